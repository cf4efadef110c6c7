# SPDX-License-Identifier: Apache-2.0
"""Forward declarations at the end of BTF: sorted, with all references, whatever order they came in."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from contextlib import suppress

import pytest

from buildtool.compile.typeorder import order_types
from buildtool.core.errors import ObjectFormatError
from buildtool.objects.btf import Btf
from buildtool.objects.elf import parse_object

PTR, STRUCT, FWD = 2 << 24, 4 << 24, 7 << 24
UNION_FWD = FWD | 1 << 31


def make_object(order: str, btf: bytes, ext: bytes) -> bytes:
    """Return an object with the sections .BTF and .BTF.ext alone."""
    names = b"\0.BTF\0.BTF.ext\0.shstrtab\0"
    bodies = [btf, ext, names]
    at, entries = 64, bytes(64)
    for name, kind, body in zip((1, 6, 15), (1, 1, 3), bodies, strict=True):
        entries += struct.pack(f"{order}IIQQQQIIQQ", name, kind, 0, 0, at, len(body), 0, 0, 1, 0)
        at += len(body)
    ident = b"\x7fELF\x02" + (b"\x01" if order == "<" else b"\x02") + b"\x01" + bytes(9)
    head = struct.pack(f"{order}HHIQQQIHHHHHH", 1, 247, 1, 0, 0, at, 0, 64, 0, 0, 64, 4, 3)
    return ident + head + b"".join(bodies) + entries


def make_sample(order: str, declared: Sequence[tuple[str, int]]) -> bytes:
    """
    Return an object as LLVM writes it: a struct with a pointer to each declaration, by name.

    *declared* are name and kind of the declarations, in the order of the types and of their strings.
    """
    count = len(declared)
    strings = bytearray(b"\0line\0all\0shared\0")
    known = {"": 0, "line": 1, "all": 6, "shared": 10}
    types = bytearray()
    numbers = {}
    for place, each in enumerate(declared):
        numbers[each] = count + 2 + place
    for each in sorted(declared):
        types += struct.pack(f"{order}III", 0, PTR, numbers[each])
    types += struct.pack(f"{order}III", 6, STRUCT | count, 8 * count)
    for place in range(count):
        types += struct.pack(f"{order}III", 10 if place == 0 else 0, place + 1, 64 * place)
    for name, kind in declared:
        if name not in known:
            known[name] = len(strings)
            strings += name.encode() + b"\0"
        types += struct.pack(f"{order}III", known[name], kind, 0)
    btf = struct.pack(f"{order}HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    # One relocation for CO-RE of the last declaration, and one line.
    line = struct.pack(f"{order}IIIIIII", 16, 1, 1, 0, 1, 1, 0)
    core = struct.pack(f"{order}IIIIIII", 16, 1, 1, 8, numbers[max(declared)], 1, 0)
    parts = struct.pack(f"{order}IIIIII", 0, 0, 0, len(line), len(line), len(core))
    ext = struct.pack(f"{order}HBBI", 0xEB9F, 1, 0, 32) + parts + line + core
    return make_object(order, bytes(btf + types + strings), ext)


@pytest.mark.parametrize("order", ["<", ">"])
def test_every_order_gives_the_same_bytes(order: str) -> None:
    """All 120 orders of five declarations: a struct and a union of one name, and a name with another use."""
    declared = [("c", FWD), ("shared", FWD), ("b", UNION_FWD), ("b", FWD), ("all", FWD)]
    results = {order_types(make_sample(order, each)) for each in itertools.permutations(declared)}
    (data,) = results
    obj = parse_object(data)
    (section,) = [each for each in obj.sections if each.name == b".BTF"]
    btf = Btf(obj.contents(section), order)
    tail = [make_sample(order, sorted(declared))]
    assert data == tail[0]
    assert [btf.is_declaration(number) for number in range(1, btf.count + 1)] == [False] * 6 + [True] * 5
    assert order_types(data) == data


def test_objects_without_an_order_to_choose_stay() -> None:
    """One declaration, or no BTF: the same bytes."""
    data = make_sample("<", [("one", FWD)])
    assert order_types(data) == data
    assert order_types(data.replace(b".BTF\0", b".XTF\0")) == data.replace(b".BTF\0", b".XTF\0")


def test_damaged_btf_is_one_error() -> None:
    """Each cut of a section, and records without a size: an error of the project, nothing else."""
    data = make_sample("<", [("b", FWD), ("a", FWD)])
    ends = 0
    for value in range(64, len(data) - 4 * 64):
        for word in (0, 0xFF):
            changed = data[:value] + bytes([word]) + data[value + 1 :]
            with suppress(ObjectFormatError):
                ends += len(order_types(changed)) == len(data)
    assert ends > 0
