# SPDX-License-Identifier: Apache-2.0
"""load.settable: rules of the configuration, constants of real objects, and bounds that fit both."""

from __future__ import annotations

import base64
import json
import tomllib
from pathlib import Path

import pytest
from labs.compile import compile_sample
from labs.settable import BARE, SOURCE
from labs.vectors.index import INDEX

from buildtool.config.file import load_config
from buildtool.config.settable import decode_settable, encode_settable, parse_settable
from buildtool.core.errors import ConfigError, ObjectFormatError, UsageError
from buildtool.objects.constants import read_constants, write_constants
from buildtool.objects.describe import describe_object
from buildtool.objects.elf import ElfObject, parse_object
from buildtool.objects.settable import Settable, SettableMap, SettableVariable
from buildtool.signing.bounds import make_settable
from buildtool.signing.settable import from_json, to_json
from buildtool.signing.settings import LoadSettings, choose_settings
from buildtool.signing.statement import read_statement

U64 = 2**64 - 1
S32 = (-(2**31), 2**31 - 1)


@pytest.fixture(scope="module", params=["bpfel", "bpfeb"])
def obj(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ElfObject:
    """Return the object of SOURCE, in each byte order."""
    directory = tmp_path_factory.mktemp("settable")
    return parse_object(compile_sample(directory, target=request.param, source=SOURCE + BARE).read_bytes())


def rules_of(text: str) -> dict[str, object]:
    """Return the rules of TOML *text* for x.bpf.o."""
    return {"x.bpf.o": tomllib.loads(text)}


def make(obj: ElfObject, text: str) -> Settable:
    """Return what the rules of TOML *text* let be set in *obj*."""
    rules = parse_settable(rules_of(text))["x.bpf.o"]
    settable = make_settable(obj, describe_object(obj).maps, rules)
    assert settable is not None
    return settable


@pytest.mark.tools
def test_constants_of_a_compiled_object(obj: ElfObject) -> None:
    """Each constant has its kind, size and bounds, and the file has its initial value at its offset."""
    found = {item.name: item for item in read_constants(obj)}
    shown = {name: (item.kind, item.bytes, item.is_volatile) for name, item in found.items()}
    assert shown == {
        "flag": ("boolean", 1, True),
        "s8": ("integer", 1, True),
        "port": ("integer", 2, True),
        "s32": ("integer", 4, True),
        "u64": ("integer", 8, True),
        "mode": ("integer", 4, True),
        "sign": ("integer", 4, True),
        "wide": ("integer", 8, True),
        "label": ("string", 8, True),
        "table": ("other", 8, True),
        "pair": ("other", 4, True),
    } | ({"folded": ("integer", 4, False)} if "folded" in found else {})
    bounds = {name: (item.low, item.high) for name, item in found.items() if item.kind == "integer"}
    assert (bounds["s8"], bounds["port"], bounds["u64"]) == ((-128, 127), (0, 65535), (0, U64))
    assert (bounds["mode"], bounds["sign"]) == ((0, 2**32 - 1), S32)
    order = "little" if obj.is_little_endian else "big"
    values = {}
    for name in ("s8", "port", "s32", "u64", "sign", "wide"):
        item = found[name]
        assert item.offset is not None
        data = obj.data[item.offset :][: item.bytes]
        values[name] = int.from_bytes(data, order, signed=item.low < 0)  # type: ignore[arg-type]
    assert values == {"s8": -1, "port": 16, "s32": -32, "u64": 64, "sign": -1, "wide": 7}


@pytest.mark.tools
def test_rules_that_the_object_fits(obj: ElfObject) -> None:
    """Bounds without a number are those of the type; variables and maps are in order of their names."""
    settable = make(
        obj,
        "wide = true\nu64 = { min = 1 }\nport = { max = 1024 }\nflag = true\nlabel = true\n"
        "s8 = { values = [3, -1, 3] }\ncounts = { max-entries = 64 }\nouter = { max-entries = 2 }\n"
        '"outer.inner" = { min-entries = 4, max-entries = 8 }\nring = { max-entries = 8192 }\n',
    )
    assert settable.variables == (
        SettableVariable(name="flag", type="boolean"),
        SettableVariable(name="label", type="string", max_bytes=7),
        SettableVariable(name="port", type="integer", min=0, max=1024),
        SettableVariable(name="s8", type="integer", values=(-1, 3)),
        SettableVariable(name="u64", type="integer", min=1, max=U64),
        SettableVariable(name="wide", type="integer", min=-(2**63), max=2**63 - 1),
    )
    assert settable.maps == (
        SettableMap(name="counts", min_entries=1, max_entries=64),
        SettableMap(name="outer", min_entries=1, max_entries=2),
        SettableMap(name="outer.inner", min_entries=4, max_entries=8),
        SettableMap(name="ring", min_entries=4096, max_entries=8192),
    )
    assert from_json(to_json(settable), describe_object(obj).maps) == settable


@pytest.mark.tools
@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ("nothing = true", "nothing: the object has no constant of this name"),
        ("plain = true", "plain: the object has no constant of this name"),
        ("counts = true", "counts: this is a map, which has a size"),
        ("table = true", "table: the constant is neither an integer, a bool nor an array of char"),
        ("pair = true", "pair: the constant is neither an integer, a bool nor an array of char"),
        ("port = { max = 65536 }", "port: 65536 is not a value of the constant's type, which has 0 to 65535"),
        ("port = { min = -1 }", "port: -1 is not a value of the constant's type"),
        (
            "s8 = { values = [1, 128] }",
            "s8: 128 is not a value of the constant's type, which has -128 to 127",
        ),
        ("mode = { values = [-1] }", "mode: -1 is not a value of the constant's type"),
        ("flag = { min = 0, max = 1 }", "flag: the constant is a bool: write true"),
        ("flag = { max-bytes = 1 }", "flag: the constant is a bool: write true"),
        ("label = { max-bytes = 8 }", "label: the constant has room for 7 bytes"),
        ("label = { values = [1] }", "label: the constant is text"),
        ("port = { max-bytes = 1 }", "port: the constant is an integer"),
        ("others = { max-entries = 1 }", "others: the object has no map of this name"),
        ("port = { max-entries = 1 }", "port: this is a constant, which has a value"),
        ('"counts.inner" = { max-entries = 1 }', "counts.inner: the object has no map of this name"),
        ('"bare.inner" = { max-entries = 1 }', "bare.inner: the map of maps does not define the maps inside"),
        ("sockets = { max-entries = 1 }", "sockets: the size of a map of type sk_storage cannot be set"),
        ("ring = { max-entries = 5000 }", "ring: 5000 is not a size of a ring buffer"),
        ("ring = { max-entries = 2048 }", "ring: 2048 is not a size of a ring buffer"),
    ],
)
def test_rules_that_the_object_does_not_fit(obj: ElfObject, rule: str, problem: str) -> None:
    """Signing refuses a rule without its constant or map, and bounds that the type does not have."""
    with pytest.raises(UsageError) as caught:
        make(obj, rule)
    assert caught.value.message.startswith(f"load.settable: {problem}")
    assert caught.value.hint


@pytest.mark.tools
def test_hints_list_what_may_be_named(obj: ElfObject) -> None:
    """No other command shows the constants of an object."""
    for rule, hint, more in (
        ("nothing = true", "its const volatile constants: flag, label, mode, pair, port, ", ", …"),
        ("nothing = { max-entries = 1 }", "its maps: ", "counts, "),
    ):
        with pytest.raises(UsageError) as caught:
            make(obj, rule)
        assert str(caught.value.hint).startswith(hint)
        assert more in str(caught.value.hint)


@pytest.mark.tools
def test_constant_without_volatile(tmp_path: Path) -> None:
    """The compiler uses the value of such a constant, so setting it would change nothing."""
    source = SOURCE.replace("const volatile u16 port", "const u16 port").replace("+ port", "+ *(&port + !c)")
    obj = parse_object(compile_sample(tmp_path, source=source).read_bytes())
    with pytest.raises(UsageError, match="port: the constant is not volatile"):
        make(obj, "port = true")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("rate = false", "rate: must be true, or a table of bounds"),
        ("rate = 5", "rate: must be true, or a table of bounds"),
        ("rate = {}", "rate: no bounds"),
        ("rate = { minimum = 1 }", "rate: unknown key 'minimum'"),
        ("rate = { min = 1, values = [1] }", "rate: bounds of different kinds"),
        ("rate = { max = 1, max-entries = 1 }", "rate: bounds of different kinds"),
        ("rate = { min = 2, max = 1 }", "rate: min is above max"),
        ("rate = { min = 1.5 }", "rate: min must be an integer from -9223372036854775808"),
        ("rate = { min = true }", "rate: min must be an integer"),
        ("rate = { max = 18446744073709551616 }", "rate: max must be an integer"),
        ("rate = { values = [] }", "rate: values must be 1 to 64 integers"),
        ("rate = { values = 1 }", "rate: must be a list of integers"),
        ("rate = { values = ['1'] }", "rate: values must be an integer"),
        ("rate = { max-bytes = 0 }", "rate: max-bytes must be an integer from 1 to 4096"),
        ("rate = { min-entries = 1 }", "rate: the key max-entries is missing"),
        ("rate = { min-entries = 2, max-entries = 1 }", "rate: min-entries is above max-entries"),
        ("rate = { max-entries = 4294967296 }", "rate: max-entries must be an integer from 1 to 4294967295"),
        ('"a:b" = true', "a:b: "),
        ("\n".join(f"v{number} = true" for number in range(129)), "x.bpf.o: more than 128 names"),
    ],
)
def test_wrong_rules(tmp_path: Path, text: str, problem: str) -> None:
    """A wrong rule is an error of the configuration, with file, line, object and name."""
    path = tmp_path / "buildtool.toml"
    path.write_text(f'[load.settable."x.bpf.o"]\n{text}\n')
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert caught.value.message.startswith(f"{path}:1: load.settable: x.bpf.o: ")
    assert problem in caught.value.message
    assert caught.value.hint


def test_rules_pass_through_json() -> None:
    """A Dockerfile carries the rules as JSON; damaged JSON is one error."""
    rules = parse_settable(
        rules_of("a = true\nb = { values = [18446744073709551615, 2] }\nm = { max-entries = 3 }\n")
    )
    assert decode_settable(encode_settable(rules).encode()) == rules
    for bad in (b"{", b"\xff", b"[]", b'{"x.bpf.o": {"a": 1}}', b"[" * 100000):
        with pytest.raises(UsageError):
            decode_settable(bad)


@pytest.mark.tools
def test_written_constants(obj: ElfObject) -> None:
    """Dry runs get the values in the bytes of the object; nothing else changes."""
    values: dict[str, int | str] = {
        "flag": 1,
        "s8": -128,
        "port": 65535,
        "u64": U64,
        "wide": -2,
        "label": "z",
    }
    data = write_constants(obj.data, values)
    changed = parse_object(data)
    order = "little" if obj.is_little_endian else "big"
    for item in read_constants(changed):
        assert item.offset is not None
        found = data[item.offset :][: item.bytes]
        value = values.get(item.name)
        if isinstance(value, str):
            assert found == b"z" + bytes(7)
        elif value is not None:
            assert int.from_bytes(found, order, signed=item.low < 0) == value  # type: ignore[arg-type]
    different = sum(a != b for a, b in zip(obj.data, data, strict=True))
    assert 0 < different <= 1 + 1 + 2 + 8 + 8 + 2
    for bad in ({"port": 65536}, {"label": "12345678"}, {"none": 1}, {"port": "a"}, {"label": 1}):
        with pytest.raises(ObjectFormatError):
            write_constants(obj.data, bad)


SETTABLE = Settable(
    variables=(
        SettableVariable(name="label", type="string", max_bytes=3),
        SettableVariable(name="mode", type="integer", values=(1, 5)),
        SettableVariable(name="rate", type="integer", min=-2, max=10),
        SettableVariable(name="verbose", type="boolean"),
    ),
    maps=(SettableMap(name="counts", min_entries=16, max_entries=64),),
)
OTHER = Settable(variables=(SettableVariable(name="rate", type="integer", min=0, max=1),))


def test_settings_are_chosen_as_the_loader_does() -> None:
    """The last of two settings is used; integers are decimal or hexadecimal."""
    constants = ["rate=1", "x.bpf.o:rate=0xA", "x.bpf.o:label=a=b", "verbose=true", "mode=5"]
    with pytest.raises(UsageError, match=r"--set rate=1: x\.bpf\.o, y\.bpf\.o have rate"):
        choose_settings(constants, [], {"x.bpf.o": SETTABLE, "y.bpf.o": OTHER})
    chosen = choose_settings(constants, ["counts=0x40"], {"x.bpf.o": SETTABLE, "z.bpf.o": None})
    assert chosen == {
        "x.bpf.o": LoadSettings(
            constants={"rate": 10, "label": "a=b", "verbose": 1, "mode": 5}, entries={"counts": 64}
        ),
        "z.bpf.o": LoadSettings(),
    }


@pytest.mark.parametrize(
    "text",
    [
        *("x.bpf.o:rate=11", "x.bpf.o:rate=-3", "x.bpf.o:rate=", "x.bpf.o:rate=1 ", "x.bpf.o:rate=1_0"),
        *(
            "x.bpf.o:rate=\u0661",
            "x.bpf.o:rate=" + "9" * 5000,
            "mode=2",
            "verbose=1",
            "label=abcd",
            "label=\u00e4",
        ),
        *("other=1", "y.bpf.o:mode=1", "none.bpf.o:rate=1", "counts=16", "rate=1"),
    ],
)
def test_settings_that_the_bounds_refuse(text: str) -> None:
    """A value outside of the bounds, an unknown name, or a name of two objects is one error."""
    with pytest.raises(UsageError, match=r"^--set "):
        choose_settings([text], [], {"x.bpf.o": SETTABLE, "y.bpf.o": OTHER})


@pytest.mark.parametrize("text", ["counts=15", "counts=65", "counts=-16", "counts=a", "rate=1"])
def test_sizes_that_the_bounds_refuse(text: str) -> None:
    """A number of entries outside of the bounds, or of a name that is no map, is one error."""
    with pytest.raises(UsageError, match=r"^--map-entries "):
        choose_settings([], [text], {"x.bpf.o": SETTABLE})


def test_statements_of_the_vectors_are_encoded_to_the_same_json() -> None:
    """Reading and writing the member of each accepted vector gives the same JSON."""
    count = 0
    for vector in INDEX["vectors"]:
        if not vector["name"].startswith("settable-") or vector["expect"] != "accepted":
            continue
        data = base64.b64decode(vector["file"])
        statement = read_statement(parse_object(data))
        assert statement.settable is not None
        text = json.dumps(to_json(statement.settable), sort_keys=True, separators=(",", ":"))
        assert f'"settable":{text}'.encode() in data, vector["name"]
        count += 1
    assert count > 10
