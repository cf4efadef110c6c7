# SPDX-License-Identifier: Apache-2.0
"""
Sort the types of BTF that clang writes in an accidental order.

LLVM's BTFDebug::endModule keeps structs that are only pointed to in a std::map whose keys are pointers.
It writes them last, as forward declarations in the order of their addresses in the compiler's memory. The
length of a directory's name moves these addresses. Sorting by name moves no other byte.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from buildtool.core.errors import ObjectFormatError
from buildtool.objects.btf import Btf
from buildtool.objects.elf import parse_object
from buildtool.objects.tables import Section

_HEAD_BYTES = 12
# The blocks of .BTF.ext in the header's order, with the words of a record that refer to types and to names.
_EXT_WORDS = (((1,), ()), ((), (1, 2)), ((1,), (2,)))
_HINT = "compile the source with another version of clang"


def order_types(data: bytes) -> bytes:
    """
    Return object *data* with the forward declarations at the end of its BTF sorted by name.

    An object without BTF, or with fewer than two such declarations, is returned unchanged.

    Raises: ObjectFormatError.
    """
    obj = parse_object(data)
    sections = {section.name: section for section in obj.sections}
    try:
        if b".BTF" in sections:
            return _order(data, obj.order, sections[b".BTF"], sections.get(b".BTF.ext"))
    except struct.error as error:
        raise ObjectFormatError("damaged BTF", hint=_HINT) from error
    return data


def _order(data: bytes, order: str, section: Section, ext_section: Section | None) -> bytes:
    btf = Btf(data[section.offset : section.end], order)
    first = btf.count + 1
    while first > 1 and btf.is_declaration(first - 1):
        first -= 1
    if btf.count - first < 1:
        return data
    words = _Words(data, order)
    types, names = btf.references(first)
    types, names = [section.offset + at for at in types], [section.offset + at for at in names]
    if ext_section is not None:
        more_types, more_names = _ext_references(words, ext_section)
        types, names = types + more_types, names + more_names
    used = words.read(types)
    # Declarations of one name are told apart by the first type that refers to them.
    rank = {number: place for place, number in reversed([*enumerate(used)])}
    tail = range(first, btf.count + 1)
    heads = {number: words.slice(section.offset + btf.place(number), _HEAD_BYTES) for number in tail}
    texts = {number: btf.name(words.number(heads[number])) for number in tail}
    ordered = sorted(tail, key=lambda number: (texts[number], heads[number][4:8], rank.get(number, 0)))
    # Strings that nothing else uses are at the end of the table, in the order of the declarations.
    start = max(words.read(names), default=0) + 1
    own = [words.number(heads[number]) for number in ordered]
    moved = {
        offset: text for offset, text in zip(own, (texts[n] for n in ordered), strict=True) if offset >= start
    }
    offsets = _place_strings(words, section.offset + btf.names_at, btf.names_size, moved)
    for number, old in zip(tail, ordered, strict=True):
        at = section.offset + btf.place(number)
        words.data[at : at + _HEAD_BYTES] = heads[old]
        name = words.number(heads[old])
        words.write(at, offsets.get(name, name))
    numbers = dict(zip(ordered, tail, strict=True))
    for at, number in zip(types, used, strict=True):
        if number in numbers:
            words.write(at, numbers[number])
    return bytes(words.data)


class _Words:
    """The words of 32 bits in an object's *data*, in byte *order*."""

    def __init__(self, data: bytes, order: str) -> None:
        self.data = bytearray(data)
        self._word = struct.Struct(f"{order}I")

    def number(self, data: bytes) -> int:
        """Return the first word of *data*."""
        return int(self._word.unpack_from(data)[0])

    def read(self, places: Sequence[int]) -> list[int]:
        """Return the words at *places*."""
        unpack, data = self._word.unpack_from, self.data
        return [unpack(data, at)[0] for at in places]

    def write(self, at: int, value: int) -> None:
        """Replace the word at *at*."""
        self._word.pack_into(self.data, at, value)

    def slice(self, at: int, size: int) -> bytes:
        """Return *size* bytes at *at*."""
        return bytes(self.data[at : at + size])


def _place_strings(words: _Words, at: int, size: int, moved: dict[int, bytes]) -> dict[int, int]:
    """
    Write the strings *moved*, by old offset and in their new order, to the end of the table.

    Return the new offsets.

    A table that has other strings there, which LLVM does not write, stays as it is.
    """
    packed = b"".join(text + b"\0" for text in moved.values())
    begin = size - len(packed)
    if not moved or min(moved) != begin:
        return {}
    offsets, place = {}, begin
    for old, text in moved.items():
        offsets[old] = place
        place += len(text) + 1
    words.data[at + begin : at + size] = packed
    return offsets


def _ext_references(words: _Words, section: Section) -> tuple[list[int], list[int]]:
    """Return the places of words in .BTF.ext that refer to types, and of those that refer to names."""
    header = words.slice(section.offset, section.size)[4:8]
    start = section.offset + words.number(header)
    blocks = words.read(range(section.offset + 8, min(section.offset + 32, start), 4))
    types: list[int] = []
    names: list[int] = []
    for (type_words, name_words), at, size in zip(_EXT_WORDS, blocks[::2], blocks[1::2], strict=False):
        place, end = start + at, start + at + size
        if size == 0:
            continue
        (each,) = words.read([place])
        place += 4
        while place < end:
            _, count = words.read([place, place + 4])
            names.append(place)
            if each < 4 or each * count > end - place:
                raise ObjectFormatError("damaged BTF", hint=_HINT)
            records = range(place + 8, place + 8 + each * count, each)
            types += [record + 4 * word for record in records for word in type_words]
            names += [record + 4 * word for record in records for word in name_words]
            place += 8 + each * count
    return types, names
