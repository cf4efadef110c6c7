# SPDX-License-Identifier: Apache-2.0
"""--set, --map-entries and --settings: constants and map sizes of a signed object, within signed bounds."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from labs.handsig import policy, sign
from labs.kernel import bpf_file_system, list_bpf
from labs.loader import PREFIX, SOURCES, Lab, Result, in_kernel
from labs.run import wait_until

pytestmark = pytest.mark.usefixtures("as_root", "nothing_left")

PROGRAMS = [{"name": f"{PREFIX}_prog", "section": "raw_tp/sys_enter", "type": "raw_tracepoint"}]
NAMES = ("flag", "s8", "u16", "s32", "u64", "mode", "wide", "first", "last")
# Each constant goes to a place of a map, so that a test sees what the program sees.
SOURCES |= {
    "settings": """
enum mode { OFF, ON = 5 };
const volatile _Bool flag = 0;
const volatile signed char s8 = -1;
const volatile __u16 u16 = 16;
static const volatile int s32 = -32;
const volatile __u64 u64 = 64;
const volatile enum mode mode = OFF;
const volatile __s64 wide SEC(".rodata.more") = 7;
const volatile char label[8] = "ab";
const __u32 folded = 1;
int plain = 1;
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 16); __type(key, __u32);
    __type(value, __s64); } @_seen SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 16); __type(key, __u32);
    __type(value, __u32); } @_sized SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } @_ring SEC(".maps");
struct inner { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4); __type(key, __u32);
    __type(value, __u32); };
struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 2); __type(key, __u32);
    __array(values, struct inner); } @_outer SEC(".maps");
static void put(__u32 place, __s64 seen)
{
    bpf_map_update_elem(&@_seen, &place, &seen, 0);
}
SEC("raw_tp/sys_enter") int @_prog(void *c)
{
    __u32 zero = 0, *found;
    void *inside = bpf_map_lookup_elem(&@_outer, &zero);

    put(0, flag), put(1, s8), put(2, u16), put(3, s32), put(4, u64), put(5, mode), put(6, wide);
    put(7, label[0]), put(8, label[7]), put(9, folded), put(10, plain);
    if (inside && (found = bpf_map_lookup_elem(inside, &zero)))
        put(11, *found);
    found = bpf_map_lookup_elem(&@_sized, &zero);
    bpf_ringbuf_output(&@_ring, &zero, 4, 0);
    return 0;
}
"""
}
SOURCES |= {
    "sleeper": "const volatile _Bool flag = 0;"
    'SEC("raw_tp/sys_enter") int @_prog(void *c) { static const char text[] = "x";'
    " if (flag) bpf_trace_printk(text, 2); return 0; }"
}
FILE = "settings.bpf.o"
MAPS = [
    {"name": f"{PREFIX}_{name}", "type": kind, "keySize": 4, "valueSize": 4, "maxEntries": 16}
    for name, kind in (
        ("outer", "array_of_maps"),
        ("ring", "ringbuf"),
        ("seen", "array"),
        ("sized", "hash"),
    )
]


def integer(name: str, low: int, high: int) -> dict[str, Any]:
    """Return a settable integer."""
    return {"name": name, "type": "integer", "min": str(low), "max": str(high)}


def size(name: str, low: int, high: int) -> dict[str, Any]:
    """Return a settable map."""
    return {"name": f"{PREFIX}_{name}", "minEntries": low, "maxEntries": high}


EVERYTHING = {
    "variables": [
        {"name": "flag", "type": "boolean"},
        integer("folded", 0, 9),
        {"name": "label", "type": "string", "maxBytes": 8},
        {"name": "mode", "type": "integer", "values": ["0", "5"]},
        integer("nothing", 0, 9),
        integer("plain", 0, 9),
        integer("s32", -(2**31), 2**31),
        integer("s8", -128, 255),
        integer("u16", 0, 65536),
        integer("u64", 0, 2**64 - 1),
        integer("wide", -(2**63), 2**64 - 1),
    ],
    "maps": [
        size("outer.inner", 1, 1024),
        size("ring", 4096, 12288),
        size("sized", 8, 1000),
    ],
}


def put(
    lab: Lab, directory: Path, settable: Any = EVERYTHING, *, source: str = "settings", **changes: Any
) -> None:
    """Write the object, signed with *settable*."""
    lab.put(directory, source, **({"settable": settable, "maps": MAPS, "programs": PROGRAMS} | changes))


def values() -> dict[str, int]:
    """Return what the program saw of the constants: it runs at each system call."""
    (found,) = [m for m in list_bpf("map") if m.get("name") == f"{PREFIX}_seen"]
    argv = ["bpftool", "-j", "map", "dump", "id", str(found["id"])]
    items = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    numbers = [struct.unpack("<q", bytes(int(b, 16) for b in item["value"]))[0] for item in items]
    return dict(zip(NAMES, numbers, strict=False))


def sizes(name: str) -> list[int]:
    """Return the numbers of entries of the maps of this name, those that the kernel frees soon included."""
    return [int(m["max_entries"]) for m in list_bpf("map") if m.get("name") == f"{PREFIX}_{name}"[:15]]


def entries(name: str) -> int:
    """Return the number of entries of the only map of this name."""
    (found,) = sizes(name)
    return found


DEFAULTS = dict(zip(NAMES, (0, -1, 16, -32, 64, 0, 7, ord("a"), 0), strict=True))


def test_the_program_sees_the_values(lab: Lab, tmp_path: Path) -> None:
    """Constants of all types and sections, given in decimal, hexadecimal and as words, reach the program."""
    put(lab, tmp_path)
    given = {
        "flag": "true",
        "s8": "-128",
        "u16": "0xffff",
        "s32": "-2147483648",
        "u64": "18446744073709551615",
        "mode": "5",
        "wide": "-0x8000000000000000",
        "label": "Z",
    }
    options = [f"--set={FILE}:{name}={value}" for name, value in given.items()]
    with lab.started(tmp_path, *options) as (_, stop):
        seen = values()
        result = stop()
    expected = (1, -128, 65535, -(2**31), -1, 5, -(2**63), ord("Z"), 0)
    assert seen == dict(zip(NAMES, expected, strict=True))
    shown = {line["target"]: (line["object"], line["value"]) for line in result.events("set")}
    decimal = {"u16": "65535", "wide": str(-(2**63))}
    assert shown == {name: (FILE, decimal.get(name, value)) for name, value in given.items()}
    events = [line["event"] for line in result.lines]
    assert events.index("verify") < events.index("set") < events.index("load")


def test_nothing_is_set_without_options(lab: Lab, tmp_path: Path) -> None:
    """An object that allows settings is loaded as it was compiled."""
    put(lab, tmp_path)
    with lab.started(tmp_path) as (_, stop):
        seen = values()
        result = stop()
    assert seen == DEFAULTS
    assert result.events("set") == []


def test_sizes_of_maps(lab: Lab, tmp_path: Path) -> None:
    """A hash, a ring buffer and the map inside a map of maps get their entries, as libbpf rounds them."""
    put(lab, tmp_path)
    options = [
        f"--map-entries={PREFIX}_sized=1000",
        f"--map-entries={FILE}:{PREFIX}_ring=4097",
        f"--map-entries={FILE}:{PREFIX}_outer.inner=0x20",
    ]
    with lab.started(tmp_path, *options) as (_, stop):
        assert (entries("sized"), entries("ring")) == (1000, 8192)
        result = stop()
    shown = [(line["target"].removeprefix(f"{PREFIX}_"), line["value"]) for line in result.events("set")]
    assert shown == [("outer.inner", "32"), ("ring", "8192"), ("sized", "1000")]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--set=settings.bpf.o:u16=65537", "variable u16: 65537 is above the maximum 65536"),
        ("--set=settings.bpf.o:s8=-129", "variable s8: -129 is below the minimum -128"),
        ("--set=settings.bpf.o:mode=1", "variable mode: 1 is none of the values, which begin with 0"),
        ("--set=settings.bpf.o:flag=2", "variable flag: 2 is neither true nor false"),
        ("--set=settings.bpf.o:u64=18446744073709551616", "is not an integer of at most 64 bits"),
        ("--set=settings.bpf.o:u64=", "variable u64:  is not an integer"),
        ("--set=settings.bpf.o:label=123456789", "variable label: longer than 8 bytes"),
        ("--set=settings.bpf.o:label=a\x1b[0m", "variable label: not printable ASCII"),
        ("--set=settings.bpf.o:other=1", "variable other: the statement does not let this variable be set"),
        ("--set=other=1", "--set other: denied-by-statement: no object lets it be set"),
        ("--map-entries=settings.bpf.o:@_sized=7", "map @_sized: 7 is not from 8 to 1000"),
        ("--map-entries=settings.bpf.o:@_sized=1001", "map @_sized: 1001 is not from 8 to 1000"),
        ("--map-entries=settings.bpf.o:@_sized=4294967304", "is not a number of entries"),
        ("--map-entries=settings.bpf.o:@_seen=8", "map @_seen: the statement does not let the size"),
        ("--map-entries=settings.bpf.o:u16=8", "map u16: the statement does not let the size"),
        ("--set=settings.bpf.o:@_sized=8", "variable @_sized: the statement does not let this variable"),
    ],
)
def test_what_the_signers_do_not_allow(lab: Lab, tmp_path: Path, option: str, words: str) -> None:
    """A value outside of the bounds, or a name that is not settable: exit code 3, nothing is loaded."""
    put(lab, tmp_path)
    check_refused(lab.run(tmp_path, f"--set={FILE}:flag=true", option.replace("@", PREFIX)), words)


def check_refused(result: Result, words: str) -> None:
    """Check a refusal for the sake of a setting."""
    assert (result.code, result.reasons) == (3, [])
    assert [line["event"] for line in result.lines] == ["verify", "refuse"]
    message = result.lines[-1]["message"]
    assert "denied-by-statement: " in message
    assert words.replace("@", PREFIX) in message
    assert in_kernel() == []


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("u16=65536", "variable u16: its type does not have this integer"),
        ("s8=128", "variable s8: its type does not have this integer"),
        ("s32=2147483648", "variable s32: its type does not have this integer"),
        ("u64=-1", "variable u64: -1 is below the minimum 0"),
        ("label=12345678", "variable label: its type has no room for this text"),
        ("folded=2", "variable folded: the constant is not volatile"),
        ("plain=2", "variable plain: the object has no constant of this name"),
        ("nothing=2", "variable nothing: the object has no constant of this name"),
    ],
)
def test_bounds_that_the_object_cannot_have(lab: Lab, tmp_path: Path, option: str, words: str) -> None:
    """Signers can err: the variable's own type bounds the value, and only constants can be set."""
    put(lab, tmp_path)
    check_refused(lab.run(tmp_path, f"--set={FILE}:{option}"), words)


@pytest.mark.parametrize(
    ("name", "item", "words"),
    [
        ("u16", {"type": "boolean"}, "its type is not bool"),
        ("u16", {"type": "string", "maxBytes": 2}, "its type has no room for this text"),
        ("flag", {"type": "integer", "min": "0", "max": "1"}, "its type does not have this integer"),
        ("label", {"type": "integer", "min": "0", "max": "1"}, "its type does not have this integer"),
    ],
)
def test_another_type_than_the_object_has(
    lab: Lab, tmp_path: Path, name: str, item: dict[str, Any], words: str
) -> None:
    """A statement that takes a constant for one of another type changes nothing in memory."""
    put(lab, tmp_path, {"variables": [{"name": name} | item]})
    value = "true" if item["type"] == "boolean" else "1"
    check_refused(lab.run(tmp_path, f"--set={FILE}:{name}={value}"), words)


def test_a_size_that_rounding_makes_too_large(lab: Lab, tmp_path: Path) -> None:
    """A ring buffer is rounded up by libbpf; the rounded size must be within the bounds, too."""
    put(lab, tmp_path)
    option = f"--map-entries={FILE}:{PREFIX}_ring=8193"
    check_refused(lab.run(tmp_path, option), "map @_ring: rounded to the next size of a ring buffer")


def test_a_statement_without_settable(lab: Lab, tmp_path: Path) -> None:
    """Objects that were signed before allow no setting."""
    put(lab, tmp_path, None)
    refused = lab.run(tmp_path, f"--set={FILE}:flag=true")
    check_refused(refused, "variable flag: the statement does not let this variable be set")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set=flag"], "--set flag: not OBJECT:NAME=VALUE"),
        (["--set==1"], "--set =1: not OBJECT:NAME=VALUE"),
        (["--set=:flag=1"], "--set :flag=1: not OBJECT:NAME=VALUE"),
        (["--map-entries=x.bpf.o:=1"], "not OBJECT:NAME=VALUE"),
        (["--set=other.bpf.o:flag=true"], "no object has this file name; use one of: settings.bpf.o"),
        (["--set=flag=true"] * 129, "--set: more than 128 times"),
        (["--hand-over", "--set=flag=true"], "--hand-over cannot be combined with --set"),
        (["--hand-over", "--settings=f"], "--hand-over cannot be combined with --settings"),
    ],
)
def test_wrong_options(lab: Lab, tmp_path: Path, options: list[str], words: str) -> None:
    """A wrong form of an option, or an object that is not there, is exit code 2."""
    put(lab, tmp_path)
    result = lab.run(tmp_path, *options, "--", "/bin/true")
    assert result.code == 2
    assert words in result.message


def test_two_objects_with_one_name(lab: Lab, tmp_path: Path) -> None:
    """A name of two objects needs the object's; each object has its own values."""
    put(lab, tmp_path)
    other = sign(lab.object("settings"), [lab.key], name="other.bpf.o", settable=EVERYTHING, maps=MAPS)
    (tmp_path / "objects/other.bpf.o").write_bytes(other)
    result = lab.run(tmp_path, "--set=u16=1")
    assert result.code == 2
    assert "--set u16: several objects have it; use OBJECT:u16=VALUE" in result.message
    with lab.started(tmp_path, f"--set={FILE}:u16=1", "--set=other.bpf.o:u16=2") as (_, stop):
        result = stop()
    assert [(line["object"], line["value"]) for line in result.events("set")] == [
        ("other.bpf.o", "2"),
        (FILE, "1"),
    ]


def test_the_last_one_is_used(lab: Lab, tmp_path: Path) -> None:
    """A later option replaces an earlier one for the same name, such as that of an image."""
    put(lab, tmp_path)
    with lab.started(tmp_path, "--set=u16=1", f"--set={FILE}:u16=2") as (_, stop):
        assert values()["u16"] == 2
        result = stop()
    assert [line["value"] for line in result.events("set")] == ["2"]


def test_settings_file(lab: Lab, tmp_path: Path) -> None:
    """A file has all kinds of lines. It replaces the options before it, and those after it replace its."""
    put(lab, tmp_path)
    file = tmp_path / "settings"
    file.write_text(
        f"# of this machine\n\nset {FILE}:u16=2\n  set   s32=-3 \nset label=a = b\n"
        f"map-entries {FILE}:{PREFIX}_sized=64\nattach {PREFIX}_prog=none\nload {PREFIX}_prog"
    )
    options = ["--set=u16=1", "--set=s8=1", f"--settings={file}", "--set=s32=3"]
    with lab.started(tmp_path, *options) as (_, stop):
        assert entries("sized") == 64
        result = stop()
    shown = {line["target"].removeprefix(PREFIX): line["value"] for line in result.events("set")}
    assert shown == {"u16": "2", "s8": "1", "s32": "3", "label": "a = b", "_sized": "64"}
    assert result.events("attach") == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sat u16=1", "line 1: sat: none of set, map-entries, attach, load, no-load"),
        ("\nset", "line 2: a word without a value: none of set"),
        ("set u16", "line 1: --set u16: not OBJECT:NAME=VALUE"),
        ("pin-root /sys/fs/bpf", "line 1: pin-root: none of set"),
        ("trust /tmp", "line 1: trust: none of set"),
        ("set label=\u00e4", "line 1: not printable ASCII"),
        ("set u16=1\0", "not a text file"),
        ("#" * 70000, "larger than 64 KiB"),
    ],
)
def test_wrong_settings_file(lab: Lab, tmp_path: Path, text: str, words: str) -> None:
    """A line that is not one of the five words, or a file that is not text, is exit code 2."""
    put(lab, tmp_path)
    file = tmp_path / "settings"
    file.write_text(text)
    result = lab.run(tmp_path, f"--settings={file}")
    assert result.code == 2
    assert f"--settings {file}" in result.message
    assert words in result.message


def test_settings_file_is_refused_like_an_option(lab: Lab, tmp_path: Path) -> None:
    """A file cannot set what the signers do not allow."""
    put(lab, tmp_path)
    file = tmp_path / "settings"
    file.write_text("set u16=70000\n")
    check_refused(lab.run(tmp_path, f"--settings={file}"), "variable u16: 70000 is above the maximum 65536")


def test_missing_settings_file(lab: Lab, tmp_path: Path) -> None:
    """A file that does not exist is exit code 2, not a start without settings."""
    put(lab, tmp_path)
    result = lab.run(tmp_path, f"--settings={tmp_path}/none")
    assert (result.code, "No such file" in result.message) == (2, True)


def test_share_only_with_equal_settings(lab: Lab, tmp_path: Path) -> None:
    """Containers share an object if their settings are equal, whatever their order; others load their own."""
    put(lab, tmp_path)
    with bpf_file_system(tmp_path) as mount:
        share = f"--share={mount}/share"
        with (
            lab.started(tmp_path, share, "--set=u16=1", "--set=s8=2") as (_, stop),
            lab.started(tmp_path, share, "--set=s8=2", "--set=u16=0x1") as (_, stop_equal),
            lab.started(tmp_path, share, "--set=s8=2", "--set=u16=2") as (_, stop_other),
            lab.started(tmp_path, share) as (_, stop_plain),
        ):
            results = [end() for end in (stop, stop_equal, stop_other, stop_plain)]
    loads = [(len(result.events("load")), len(result.events("reuse"))) for result in results]
    assert loads == [(1, 0), (0, 1), (1, 0), (1, 0)]


def test_pins_with_other_settings_are_updated(lab: Lab, tmp_path: Path) -> None:
    """A start with the settings of the pins loads nothing; another one updates links and keeps equal maps."""
    put(lab, tmp_path)
    with bpf_file_system(tmp_path) as mount:
        pins = f"--pin-root={mount}/pins"
        sized = f"{PREFIX}_sized"
        end = ("--", "/bin/true")
        first = lab.run(tmp_path, pins, "--set=u16=1", f"--map-entries={sized}=64", *end)
        again = lab.run(tmp_path, pins, "--set=u16=1", f"--map-entries={sized}=64", *end)
        status = subprocess.run(
            [lab.pins, "list", "--json", pins], capture_output=True, text=True, check=True
        )
        table = subprocess.run([lab.pins, "list", pins], capture_output=True, text=True, check=True)
        constant = lab.run(tmp_path, pins, "--set=u16=2", f"--map-entries={sized}=64", *end)
        assert values()["u16"] == 2
        grown = lab.run(tmp_path, pins, "--set=u16=2", f"--map-entries={sized}=65", *end)
        assert 65 in sizes("sized")
        none = lab.run(tmp_path, pins, *end)
        assert values()["u16"] == 16
        subprocess.run([lab.pins, "detach", pins], check=True)
    assert [bool(run.events("load")) for run in (first, again, constant, grown, none)] == [
        True,
        False,
        True,
        True,
        True,
    ]
    assert again.events("reuse")
    (record,) = json.loads(status.stdout)
    assert record["settings"] == {"u16": "1", sized: "64"}
    assert any(line.split()[4:] == ["u16", "1", "set"] for line in map(_cells, table.stdout.splitlines()))
    assert [line["target"] for line in constant.events("map")] == []
    assert [(line["target"], line["message"]) for line in grown.events("map")] == [
        (sized, "begins empty: its number of entries was 64, is 65")
    ]
    # A link of a raw tracepoint cannot get another program, so a new link replaces it.
    assert [len(run.events("attach")) for run in (constant, grown, none)] == [1, 1, 1]


def accepts_inner(outer: int, directory: Path, size: int) -> bool:
    """Return whether map of maps number *outer* accepts an array of *size* entries inside."""
    pin = directory / f"inner{size}"
    make = ["type", "array", "key", "4", "value", "4", "entries", str(size), "name", "inside"]
    subprocess.run(["bpftool", "map", "create", pin, *make], check=True)
    put = ["key", "0", "0", "0", "0", "value", "pinned", pin]
    done = subprocess.run(["bpftool", "map", "update", "id", str(outer), *put], check=False)
    pin.unlink()
    return done.returncode == 0


def test_the_size_inside_a_map_of_maps(lab: Lab, tmp_path: Path) -> None:
    """The kernel accepts maps of the set size inside; a pinned map of maps of another size begins empty."""
    put(lab, tmp_path)
    name, end = f"{PREFIX}_outer", ("--", "/bin/true")
    with bpf_file_system(tmp_path) as mount:
        pins = f"--pin-root={mount}/pins"

        def outer() -> int:
            (path,) = (mount / "pins").glob(f"*/current/maps/{name}")
            argv = ["bpftool", "-j", "map", "show", "pinned", path]
            return int(json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)["id"])

        def start(*options: str) -> list[str]:
            result = lab.run(tmp_path, pins, *options, *end)
            assert result.code == 0, result.lines
            return [line["target"] for line in result.events("map")]

        assert start(f"--map-entries={name}.inner=32") == []
        first = outer()
        assert [accepts_inner(first, mount, size) for size in (4, 32)] == [False, True]
        assert start(f"--map-entries={name}.inner=32", "--set=u16=1") == []
        assert outer() == first
        assert start(f"--map-entries={name}.inner=33") == [name]
        assert [accepts_inner(outer(), mount, size) for size in (32, 33)] == [False, True]
        assert start() == [name]
        assert [accepts_inner(outer(), mount, size) for size in (33, 4)] == [False, True]
        subprocess.run([lab.pins, "detach", pins], check=True)


def _cells(line: str) -> str:
    """Return a line without the column of times."""
    return " ".join(cell for cell in line.split() if "T" not in cell or ":" not in cell)


def test_a_setting_wakes_no_denied_helper(lab: Lab, tmp_path: Path) -> None:
    """A policy counts a helper behind a constant, whatever the constant's value is."""
    put(lab, tmp_path, source="sleeper", helpers=[6])
    (tmp_path / "trust/dev.pub").unlink()
    for denied, code in (([7], 0), ([6], 3)):
        (tmp_path / "trust/policy.json").write_text(policy(lab.key, deniedHelpers=denied))
        for options in ([], ["--set=flag=true"]):
            result = lab.run(tmp_path, *options, "--", "/bin/true")
            assert (result.code, result.reasons) == (code, ["denied-by-policy"] if code else [])


def test_reload_checks_the_settings_again(lab: Lab, tmp_path: Path) -> None:
    """SIGHUP loads a new release with the settings of the start; one that does not allow them stays out."""
    put(lab, tmp_path)
    with lab.started(tmp_path, "--reload", "--set=u16=2") as (process, stop):
        narrow = [integer("u16", 10, 20)]
        put(lab, tmp_path, {"variables": narrow}, version=2)
        kept = lab_reload(process, tmp_path)
        assert kept["outcome"] == "kept"
        assert "denied-by-statement: variable u16: 2 is below the minimum 10" in kept["message"]
        assert values()["u16"] == 2
        put(lab, tmp_path, {"variables": [integer("u16", 1, 20)]}, version=3)
        updated = lab_reload(process, tmp_path)
        assert (updated.get("message"), updated["outcome"]) == (None, "updated")
        assert values()["u16"] == 2
        assert stop().code == 0


def lab_reload(process: subprocess.Popen[str], directory: Path) -> dict[str, Any]:
    """Send SIGHUP and return the line about it."""

    def lines() -> list[dict[str, Any]]:
        (log,) = directory.glob("stderr*")
        found = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
        return [line for line in found if line["event"] == "reload"]

    before = len(lines())
    process.send_signal(signal.SIGHUP)
    assert wait_until(lambda: len(lines()) > before)
    return lines()[-1]


def test_verify_only_ignores_settings(lab: Lab, tmp_path: Path) -> None:
    """An image's entrypoint may have settings: they have no effect if nothing is loaded."""
    put(lab, tmp_path)
    result = lab.run(tmp_path, "--verify-only", "--set=other=1", "--settings=/no/such/file")
    assert result.code == 0


def test_two_constants_of_one_name(lab: Lab, tmp_path: Path) -> None:
    """A foreign signer may allow a name that two constants of one section have: which one is not guessed."""
    data = lab.object("settings")
    assert b"\0u16\0" in data
    put(lab, tmp_path)
    signed = sign(
        data.replace(b"\0u16\0", b"\0s32\0"),
        [lab.key],
        name=FILE,
        programs=PROGRAMS,
        maps=MAPS,
        settable=EVERYTHING,
    )
    (tmp_path / "objects" / FILE).write_bytes(signed)
    result = lab.run(tmp_path, f"--set={FILE}:s32=1", "--", "/bin/true")
    check_refused(result, "variable s32: the object has two constants of this name")
