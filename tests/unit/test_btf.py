# SPDX-License-Identifier: Apache-2.0
"""BTF that no compiler writes: the reader ends with ObjectFormatError."""

from __future__ import annotations

import struct
import tracemalloc

import pytest

from buildtool.core.errors import ObjectFormatError
from buildtool.objects.btf import Btf

STRUCT = 4 << 24


def make_btf(*types: bytes) -> bytes:
    """Return a little-endian section of *types* and no names (Documentation/bpf/btf.rst, section 2)."""
    body = b"".join(types)
    return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(body), len(body), 1) + body + b"\0"


def make_struct(*members: int) -> bytes:
    """Return a struct whose members have types *members*, all at offset 0."""
    head = struct.pack("<III", 0, STRUCT | len(members), 0)
    return head + b"".join(struct.pack("<III", 0, member, 0) for member in members)


def test_structs_of_empty_structs_come_to_an_end() -> None:
    """A hundred of a hundred of a hundred ... of nothing: no field, and a million million steps."""
    levels = [make_struct(), *(make_struct(*[below] * 100) for below in range(1, 7))]
    with pytest.raises(ObjectFormatError, match="too many members"):
        Btf(make_btf(*levels), "<").fields(len(levels))


def test_struct_of_itself_comes_to_an_end() -> None:
    """A struct that holds itself."""
    with pytest.raises(ObjectFormatError, match="too many members"):
        Btf(make_btf(make_struct(1)), "<").fields(1)


def test_small_structs_are_read() -> None:
    """Structs below the limit of members are read."""
    levels = [make_struct(), make_struct(1, 1)]
    assert Btf(make_btf(*levels), "<").fields(2) == ()


def test_types_that_share_a_long_name_are_not_many_copies() -> None:
    """Names have a limit, because thousands of members could each copy one endless name."""
    names = b"\0" + b"A" * 1_000_000 + b"\0"
    types = struct.pack("<III", 0, 1 << 24, 4) + bytes(4)
    types += struct.pack("<III", 1, STRUCT | 500, 0) + struct.pack("<III", 1, 1, 0) * 500
    types += struct.pack("<III", 1, 15 << 24, 0) * 2000
    head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(names))
    btf = Btf(head + types + names, "<")
    tracemalloc.start()
    try:
        with pytest.raises(ObjectFormatError, match="too long"):
            btf.section_variables(".maps")
        with pytest.raises(ObjectFormatError, match="too long"):
            btf.members(2)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
