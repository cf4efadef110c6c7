# SPDX-License-Identifier: Apache-2.0
"""The edge to pyelftools: the numbers of the file come back, and nothing but our own error comes out."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable

import pytest
from elftools.common.exceptions import ELFParseError
from elftools.elf import enums

from buildtool.core.errors import ObjectFormatError
from buildtool.objects import tables

ORDERS = pytest.mark.parametrize("order", ["<", ">"])
SECTION_NUMBERS = [*range(700), *range(0xFE80, 0x10000)]  # all reserved ones, SHN_XINDEX last
WORDS = sorted(
    {number for number in enums.ENUM_SH_TYPE_BASE.values() if isinstance(number, int)}
    | {*range(64), 0x6FFFFFFF, 0x70000000, 0x70000001, 0x70000003, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF}
)
# The largest value of each field: a reader that is signed, or too narrow, shows another.
LARGEST = ((1 << 32) - 1, (1 << 64) - 1)
READERS = {
    "header": (tables.read_header, 64),
    "section header table": (tables.read_section_headers, 64),
    "symbol table": (tables.read_symbols, 24),
    "relocation table": (tables.read_relocations, 16),
}


@ORDERS
def test_section_types_that_pyelftools_names_or_not_are_numbers(order: str) -> None:
    """Every name of pyelftools, the numbers around, and all other fields at their largest."""
    word, quad = LARGEST
    rest = (quad, quad - 1, quad - 2, quad - 3, word - 1, word - 2, quad - 4, quad - 5)
    packed = b"".join(struct.pack(f"{order}IIQQQQIIQQ", word, number, *rest) for number in WORDS)
    read = tables.read_section_headers(packed, little_endian=order == "<")
    assert read == tuple((word, number, *rest, b"") for number in WORDS)


@ORDERS
def test_every_binding_type_and_section_of_a_symbol_is_a_number(order: str) -> None:
    """All values of `st_info`, and `st_shndx` with its reserved values."""
    word, quad = LARGEST
    entries = [(number & 0xFF, number) for number in SECTION_NUMBERS]
    packed = b"".join(
        struct.pack(f"{order}IBBHQQ", word, info, 0xFF, section, quad, quad) for info, section in entries
    )
    read = tables.read_symbols(packed, little_endian=order == "<")
    assert read == tuple((word, info >> 4, info & 0xF, section, quad) for info, section in entries)


@ORDERS
def test_relocations_are_numbers(order: str) -> None:
    """The halves of `r_info` are apart, in both byte orders."""
    word, quad = LARGEST
    entries = [(quad, word, word), (0, 0, 0), (8, 3, 10), (1 << 40, 1 << 31, 1 << 30)]
    packed = b"".join(struct.pack(f"{order}QQ", at, symbol << 32 | kind) for at, symbol, kind in entries)
    assert tables.read_relocations(packed, little_endian=order == "<") == tuple(entries)


@ORDERS
@pytest.mark.parametrize("field", ["type", "machine", "version", "sections", "names_index"])
def test_header_fields_are_numbers(order: str, field: str) -> None:
    """Known and unknown values of the fields that pyelftools names, extended numbering among them."""
    at = {"type": 0, "machine": 1, "version": 2, "sections": 11, "names_index": 12}[field]
    values = [*range(300), 0xFEFF, 0xFF00, 0xFFFE, 0xFFFF]
    for value in values:
        fields = [1, 247, 1, 0, 0, 1 << 40, 0, 64, 0, 3, 64, 5, 6]
        fields[at] = value
        order_byte = 1 if order == "<" else 2
        ident = struct.pack("4sBBBB8x", b"\x7fELF", 2, order_byte, 1, 0xFE)
        header = tables.read_header(
            ident + struct.pack(f"{order}HHIQQQIHHHHHH", *fields), little_endian=order == "<"
        )
        assert getattr(header, field) == value
        assert header[3:7] == (1 << 40, 64, 3, 64)


@pytest.mark.parametrize("what", READERS)
@pytest.mark.parametrize(
    "error",
    [
        ELFParseError("x"),
        OverflowError("x"),
        struct.error("x"),
        AssertionError("x"),
        RecursionError("x"),
        MemoryError("x"),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "x"),
        KeyError("SHT_X"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_pyelftools_raises_is_one_error(
    monkeypatch: pytest.MonkeyPatch, what: str, error: Exception
) -> None:
    """A caller sees ObjectFormatError, which names the table, and no class of Python."""

    def fail(*_: object) -> None:
        raise error

    read, size = READERS[what]
    monkeypatch.setattr(tables, "struct_parse", fail)
    with pytest.raises(ObjectFormatError, match=f"^{what}: damaged$") as caught:
        read(bytes(size), little_endian=True)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("what", READERS)
def test_a_table_that_ends_within_an_entry_is_refused(what: str) -> None:
    """Nothing is read of it."""
    read, size = READERS[what]
    with pytest.raises(ObjectFormatError, match=f"^{what}: truncated or damaged$"):
        read(bytes(size - 1), little_endian=True)


@pytest.mark.parametrize("what", ["section header table", "symbol table", "relocation table"])
def test_memory_is_bounded_by_the_table(what: str) -> None:
    """Entries with the largest numbers take at most twenty times their bytes."""
    read: Callable[..., tuple[object, ...]]
    read, size = READERS[what]
    table = b"\xff" * (size * (48_000 // size))
    read(bytes(size), little_endian=True)
    tracemalloc.start()
    try:
        entries = read(table, little_endian=True)
        assert tracemalloc.get_traced_memory()[1] < 20 * len(table)
    finally:
        tracemalloc.stop()
    assert len(entries) == len(table) // size
