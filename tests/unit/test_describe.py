# SPDX-License-Identifier: Apache-2.0
"""Descriptions of objects of a real compiler. Names of types agree with the machine's libbpf."""

from __future__ import annotations

import ctypes
import random
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from labs.compile import compile_sample
from labs.readelf import read_with_llvm
from labs.vectors.builder import CODE, LICENSE, SHT_STRTAB, Part, Recipe, build
from labs.vectors.code import EXIT, FLAGS_OF_CODE, KFUNC, SHT_SYMTAB, call, code, makes, relocated

from buildtool.core.errors import ObjectFormatError
from buildtool.objects import elf as elfobj
from buildtool.objects import types as bpfnames
from buildtool.objects.describe import MapInfo, ProgramInfo, describe_object
from buildtool.objects.tables import SHF_EXECINSTR


@pytest.mark.tools
@pytest.mark.parametrize("target", ["bpfel", "bpfeb"])
@pytest.mark.parametrize("strip", [True, False], ids=["stripped", "with-dwarf"])
def test_contents_of_a_compiled_object(tmp_path: Path, target: str, *, strip: bool) -> None:
    """Programs, maps, helpers, kernel functions and license, in both byte orders."""
    data = compile_sample(tmp_path, target=target, strip=strip).read_bytes()
    contents = describe_object(elfobj.parse_object(data))
    tracepoint = "?tracepoint/net/net_dev_queue"
    assert contents.programs == (
        ProgramInfo(name="pass", section="xdp", type="xdp"),
        ProgramInfo(name="second", section="xdp", type="xdp"),
        ProgramInfo(name="trace", section=tracepoint, type="tracepoint"),
    )
    assert contents.maps == (
        MapInfo(name="counts", type="hash", key_size=16, value_size=24, max_entries=128),
        MapInfo(name="events", type="ringbuf", key_size=0, value_size=0, max_entries=4096),
        MapInfo(name="outer", type="array_of_maps", key_size=4, value_size=4, max_entries=3),
        MapInfo(name="per_cpu", type="percpu_array", key_size=4, value_size=16, max_entries=2),
    )
    assert contents.helpers == (1, 3, 131, 132)
    assert contents.kfuncs == ("bpf_rcu_read_lock", "bpf_rcu_read_unlock")
    assert contents.license == "Dual BSD/GPL"


@pytest.mark.tools
def test_damaged_objects_of_the_compiler_give_one_kind_of_error(tmp_path: Path) -> None:
    """Symbols, relocations and BTF of any bytes: a value or ObjectFormatError."""
    data = compile_sample(tmp_path).read_bytes()
    rng = random.Random(1)  # noqa: S311 - the same bytes in every run
    refused = 0
    for _ in range(1000):
        mutant = bytearray(data)
        for _ in range(rng.choice((1, 4, 32))):
            mutant[rng.randrange(64, len(mutant))] = rng.choice((0, 0xFF, rng.randrange(256)))
        try:
            describe_object(elfobj.parse_object(bytes(mutant)))
        except ObjectFormatError:
            refused += 1
    assert refused > 100


def _libbpf() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libbpf.so.1")
    except OSError:
        pytest.skip("needs-tool: libbpf.so.1")
    for name in ("libbpf_bpf_prog_type_str", "libbpf_bpf_map_type_str"):
        getattr(library, name).restype = ctypes.c_char_p
    return library


def test_program_types_are_those_of_libbpf() -> None:
    """Every section name of our table that this libbpf knows has libbpf's type."""
    library = _libbpf()
    library.libbpf_set_print(None)
    known = 0
    for name, expected in bpfnames.SECTION_TYPES.items():
        for section in (name.removesuffix("+"), name[:-1] + "/a/b" if name.endswith("+") else name):
            kind, attach = ctypes.c_int(), ctypes.c_int()
            if library.libbpf_prog_type_by_name(section.encode(), ctypes.byref(kind), ctypes.byref(attach)):
                continue  # newer than this libbpf
            known += 1
            assert library.libbpf_bpf_prog_type_str(kind.value).decode() == expected, section
            assert bpfnames.program_type(section) == expected
    assert known > 100


def test_map_types_are_those_of_libbpf() -> None:
    """Names of map types are those of this machine's libbpf, as far as its table goes."""
    library = _libbpf()
    names = [library.libbpf_bpf_map_type_str(number) for number in range(len(bpfnames.MAP_TYPES))]
    known = [name.decode() for name in names if name is not None]
    assert len(known) > 30
    assert tuple(known) == bpfnames.MAP_TYPES[: len(known)]


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("xdp", "xdp"),
        ("xdp/eth0", "unspec"),
        ("?xdp", "xdp"),
        ("kprobe", "kprobe"),
        ("kprobe/do_exit", "kprobe"),
        ("kprobes", "unspec"),
        ("tcx/ingress", "sched_cls"),
        ("netkit/peer", "sched_cls"),
        ("cgroup/connect_unix", "cgroup_sock_addr"),
        ("uprobe.session/x:y", "kprobe"),
        ("struct_ops.s/init", "struct_ops"),
        ("mine", "unspec"),
    ],
)
def test_program_type_of_a_section(section: str, expected: str) -> None:
    """Exact names are exact; names with + take anything after a slash."""
    assert bpfnames.program_type(section) == expected


@pytest.mark.tools
@pytest.mark.parametrize("target", ["bpfel", "bpfeb"])
def test_llvm_reads_the_same_tables(tmp_path: Path, target: str) -> None:
    """Symbols and relocations, with a second reader, in both byte orders."""
    path = compile_sample(tmp_path, target=target)
    obj = elfobj.parse_object(path.read_bytes())
    tables, seen = elfobj.read_link_tables(obj), read_with_llvm(path)
    symbols = [
        (symbol.value, symbol.is_function, symbol.is_local, symbol.section) for symbol in tables.symbols
    ]
    assert symbols == [
        (
            symbol.value,
            symbol.type == "FUNC",
            symbol.binding == "LOCAL",
            0 if symbol.section == "UND" else int(symbol.section),
        )
        for symbol in seen.symbols
    ]
    # readelf shows a section's symbol, which has no name of its own, under the section's name.
    assert [symbol.name for symbol in tables.symbols] == [
        "" if symbol.type == "SECTION" else symbol.name for symbol in seen.symbols
    ]
    assert {"pass", "sub", "LICENSE"} < {symbol.name for symbol in tables.symbols}
    executable = {i for i, section in enumerate(obj.sections) if section.flags & SHF_EXECINSTR}
    wanted = {
        section.info: seen.relocations[section.name]
        for section in seen.sections
        if section.type == "REL" and section.info in executable
    }
    assert {index: list(map(tuple, entries)) for index, entries in tables.relocations.items()} == wanted
    assert len(wanted) == 3


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (code(call(7, source=2)), "by its number"),
        ((*relocated(KFUNC), replace(relocated(KFUNC)[3], data=b"", name=b".again")), "two tables"),
        ((CODE, LICENSE, replace(LICENSE, data=b"Proprietary\0")), "2 sections named license"),
    ],
)
def test_what_readers_take_in_different_ways_is_not_described(
    parts: Part | tuple[Part, ...], said: str
) -> None:
    """An object that libbpf reads in another way is refused, because its statement would be incomplete."""
    data = build(makes(*(parts if isinstance(parts, tuple) else (parts,))))
    with pytest.raises(ObjectFormatError, match=said):
        describe_object(elfobj.parse_object(data))


@pytest.mark.parametrize(("extra", "fits"), [(0, True), (1, False)])
def test_more_than_a_statement_holds_is_not_described(extra: int, *, fits: bool) -> None:
    """A hostile file of distinct calls or of programs would otherwise become lists of a gigabyte."""
    calls = Part(name=b"xdp", data=b"".join(call(n) for n in range(65_536 + extra)), flags=FLAGS_OF_CODE)
    functions = struct.pack("<IBBHQQ", 0, 0x12, 0, 1, 0, 0) * (8192 + extra)
    programs = (
        Part(name=b"xdp", data=EXIT, flags=FLAGS_OF_CODE),
        Part(name=b".names", data=b"\0", type=SHT_STRTAB),
        Part(name=b".symtab", data=functions, type=SHT_SYMTAB, fields={"link": 2, "entsize": 24}),
    )
    for parts, message in (((calls,), "calls of more than 65536"), (programs, "more than 8192 programs")):
        obj = elfobj.parse_object(build(Recipe(parts=parts)))
        if fits:
            describe_object(obj)
        else:
            with pytest.raises(ObjectFormatError, match=message):
                describe_object(obj)
