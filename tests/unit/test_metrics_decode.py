# SPDX-License-Identifier: Apache-2.0
"""Entries by their types: both byte orders, bit fields, sums over CPUs, and hostile types at little cost."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

import pytest
from labs.compile import compile_sample

from buildtool.core.errors import ObjectFormatError
from buildtool.metrics.bpfcall import MapFacts
from buildtool.metrics.decode import Decoder, EntryDecoder
from buildtool.objects.btf import Btf
from buildtool.objects.elf import parse_object

SOURCE = """
#define SEC(name) __attribute__((section(name), used))
enum side { SIDE_LEFT = -1, SIDE_RIGHT = 5 };
struct bits { unsigned int a : 3, b : 5, c : 24; signed char d : 4; enum side e : 4; _Bool f : 1; };
struct plain { unsigned long long n; short s; float f; double d; char t[4]; unsigned char b[2]; enum side e;
    void *p; struct { int inner; union { int x; unsigned short y[2]; }; }; int grid[2][2]; };
struct bits bits; struct plain plain; struct { } empty[4]; __int128 wide;
SEC("xdp") int f(void *c) { return bits.a + plain.s + (int)(long)&empty + (int)wide; }
"""


def read_btf(directory: Path, target: str, source: str = SOURCE) -> tuple[bytes, str]:
    """Return the types of the program, and their byte order."""
    obj = parse_object(compile_sample(directory, source=source, target=target).read_bytes())
    (section,) = [section for section in obj.sections if section.name == b".BTF"]
    return obj.contents(section), obj.order


def facts(size: int, number: int, *, kind: int = 1) -> MapFacts:
    """Return the facts of a map whose values have type *number*, and whose keys have none."""
    return MapFacts(
        type=kind,
        id=1,
        key_size=4,
        value_size=size,
        max_entries=9,
        flags=0,
        name="m",
        btf_id=1,
        value_type=number,
    )


def decoder(btf: Btf, name: str) -> Decoder:
    """Return the decoder of variable *name*."""
    for section, group, _ in btf.groups():
        for number, _, _ in btf.group_entries(group) if section == b".bss" else ():
            if btf.variable(number)[0] == name:
                kind = btf.variable(number)[1]
                return EntryDecoder(facts(btf.size(kind), kind), btf).value
    raise AssertionError(name)


@pytest.mark.tools
@pytest.mark.parametrize("target", ["bpfel", "bpfeb"])
def test_structs_of_both_byte_orders(tmp_path: Path, target: str) -> None:
    """Every kind of member has its value."""
    data, order = read_btf(tmp_path, target)
    found = decoder(Btf(data, order), "plain")
    numbers = (1 << 63, -2, 0.5, float("inf"), b"a\xffb\0", b"\1\xfe", 5, 9, 7, 1, 2, 1, 2, 3, 4)
    raw = struct.pack(f"{order}Qh2xfd4s2s2xi4xQiHH4i", *numbers)
    assert len(raw) == found.size
    value = found.decode(memoryview(raw), 0)
    halves = [1, 2]
    whole = struct.unpack(f"{order}i", struct.pack(f"{order}HH", 1, 2))[0]
    assert value == {
        "n": 1 << 63,
        "s": -2,
        "f": 0.5,
        "d": "inf",
        "t": "a\\xffb",
        "b": "01fe",
        "e": "SIDE_RIGHT",
        "p": "0x9",
        "inner": 7,
        "x": whole,
        "y": halves,
        "grid": [[1, 2], [3, 4]],
    }
    assert found.add([value, value])["grid"] == [[2, 4], [6, 8]]
    assert set(found.add([value, value])) == {"n", "s", "f", "inner", "x", "y", "grid"}


@pytest.mark.tools
@pytest.mark.parametrize("target", ["bpfel", "bpfeb"])
def test_bit_fields_of_both_byte_orders(tmp_path: Path, target: str) -> None:
    """Compilers fill a word from its low bits on little-endian machines, and from its high bits on others."""
    data, order = read_btf(tmp_path, target)
    found = decoder(Btf(data, order), "bits")
    if order == "<":
        word, byte, last = 5 | 17 << 3 | 0xABCDE1 << 8, (-3 & 0xF) | (5 << 4), 1
    else:
        word, byte, last = 5 << 29 | 17 << 24 | 0xABCDE1, (-3 & 0xF) << 4 | 5, 0x80
    raw = struct.pack(f"{order}IBB", word, byte, last)
    value = found.decode(memoryview(raw + bytes(found.size - len(raw))), 0)
    assert value == {"a": 5, "b": 17, "c": 0xABCDE1, "d": -3, "e": "SIDE_RIGHT", "f": True}


@pytest.mark.tools
def test_other_types(tmp_path: Path) -> None:
    """Empty structs, numbers of 16 bytes; without types, bytes."""
    data, order = read_btf(tmp_path, "bpfel")
    btf = Btf(data, order)
    assert decoder(btf, "empty").decode(memoryview(b""), 0) == []
    assert decoder(btf, "wide").decode(memoryview(b"\xff" * 15 + b"\x7f"), 0) == (1 << 127) - 1
    for number in (0, btf.count + 5):
        found = EntryDecoder(facts(3, number), btf)
        assert found.value.decode(memoryview(b"\1\2\3"), 0) == "010203"
        assert found.value.name == "3 bytes"
        assert found.key.decode(memoryview(b"\1\0\0\0"), 0) == "01000000"


@pytest.mark.tools
def test_hostile_types_cost_little(tmp_path: Path) -> None:
    """Thousands of damaged types: each value is decoded somehow, or is shown as bytes."""
    data, order = read_btf(tmp_path, "bpfel")
    source = random.Random(16)  # noqa: S311 - test data
    decoded = 0
    for _ in range(2000):
        damaged = bytearray(data)
        for _ in range(source.randint(1, 8)):
            damaged[source.randrange(24, len(data))] = source.choice(
                (0, 1, 2, 3, 4, 0xFF, source.randrange(256))
            )
        try:
            btf = Btf(bytes(damaged), order)
        except ObjectFormatError:
            continue
        for number in range(1, btf.count + 1):
            try:
                size = btf.size(number)
            except ObjectFormatError:
                size = 8
            size = min(size, 1 << 12)
            found: Any = EntryDecoder(facts(size, number), btf).value
            assert found.size == size
            found.add([found.decode(memoryview(bytes(size)), 0)] * 2)
            decoded += 1
    assert decoded > 1000


def nested(word: str, levels: int, members: str) -> str:
    """Return declarations of types t0 to t*levels*, each with *members* of the one before."""
    lines = [f"{word} t0 {{ int a; }};"]
    lines += [f"{word} t{at} {{ {word} t{at - 1} {members}; }};" for at in range(1, levels + 1)]
    return "\n".join(lines)


@pytest.mark.tools
@pytest.mark.parametrize(
    ("types", "variable"),
    [
        (nested("union", 15, "x, y"), "union t15 big"),  # 65,535 members by 16 types
        (nested("struct", 40, "x"), "struct t40 big"),
        ("struct three { int x, y, z; };", "struct three big[1 << 19]"),
    ],
    ids=["members", "depth", "elements"],
)
def test_too_large_types_are_shown_as_bytes(tmp_path: Path, types: str, variable: str) -> None:
    """Types of a few hundred bytes that would take minutes or a stack to decode."""
    program = 'SEC("xdp") int f(void *c) { return (int)(long)&big; }\n'
    head = "#define SEC(name) __attribute__((section(name), used))\n"
    data, order = read_btf(tmp_path, "bpfel", f"{head}{types}\n{variable};\n{program}")
    found = decoder(Btf(data, order), "big")
    assert found.name == f"{found.size} bytes"
    assert found.decode(memoryview(bytes(found.size)), 0) == "00" * found.size
