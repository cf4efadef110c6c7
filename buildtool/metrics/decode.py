# SPDX-License-Identifier: Apache-2.0
"""
Decode keys and values of maps by their types in BTF, to what JSON can say.

A struct or union becomes a dict, an array a list, an enum the name of its value, a pointer and bytes
hexadecimal text, an array of char the text before its first 0. BTF is untrusted: the work for one value is
bounded, and a value whose type cannot be decoded is shown as bytes.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from buildtool.core.errors import ObjectFormatError
from buildtool.metrics.bpfcall import MapFacts
from buildtool.metrics.maps import Block, Map
from buildtool.objects.btf import Btf, BtfEntry, BtfType

# Decoded values of one key or value. A histogram of 64 slots for each of 1000 queues has 64,000.
MAX_PARTS = 1 << 20
_MAX_DECODERS = 1 << 14
_MAX_DEPTH = 32
_CODES = {1: "b", 2: "h", 4: "i", 8: "q"}
_FLOATS = {4: "f", 8: "d"}

Decode = Callable[[memoryview, int], Any]
# The sum of the values of all CPUs, or None if they are no numbers.
Add = Callable[[Sequence[Any]], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """
    Decodes *size* bytes at an offset with *decode*.

    *name* is the type in C. *add* adds the values of several CPUs up, and gives None for what has no sum.
    """

    name: str
    size: int
    decode: Decode
    add: Add


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """
    An entry: its *key*, and its *value*, or the values of all *cpus* with the sum as *value*.

    *raw* holds the bytes of key and value.
    """

    key: Any
    value: Any
    cpus: tuple[Any, ...] | None
    raw: tuple[bytes, bytes]


class EntryDecoder:
    """Decodes the entries of maps like that of *facts*, whose types are in *btf*, None without types."""

    def __init__(self, facts: MapFacts, btf: Btf | None) -> None:
        # libbpf gives no type to the keys of arrays of global variables.
        is_index = facts.is_array and not facts.key_type
        self.key = _INDEX if is_index else _decoder(btf, facts.key_type, facts.key_size)
        self.value = _decoder(btf, facts.value_type, facts.value_size)

    def entries(self, source: Map, block: Block) -> Iterator[Entry]:
        """Yield the entries of *block* of the map *source*."""
        for key, value in split_block(source, block):
            yield self.entry(source, key, value)

    def entry(self, source: Map, key: bytes, value: bytes) -> Entry:
        """Return the entry of the bytes *key* and *value* of the map *source*."""
        decoded = self.key.decode(memoryview(key), 0)
        view, raw = memoryview(value), (key, value)
        if not source.facts.is_per_cpu:
            return Entry(key=decoded, value=self.value.decode(view, 0), cpus=None, raw=raw)
        stride = source.cpu_stride
        cpus = tuple(self.value.decode(view, cpu * stride) for cpu in range(source.cpus))
        return Entry(key=decoded, value=self.value.add(cpus), cpus=cpus, raw=raw)


def split_block(source: Map, block: Block) -> Iterator[tuple[bytes, bytes]]:
    """Yield the bytes of key and value of each entry of *block* of the map *source*."""
    key_size, stride = source.facts.key_size, block.stride
    for at in range(block.count):
        key, value = at * key_size, at * stride
        yield bytes(block.keys[key : key + key_size]), bytes(block.values[value : value + stride])


def _decoder(btf: Btf | None, number: int, size: int) -> Decoder:
    """Return the decoder of type *number*, or that of plain bytes if the type does not fit."""
    if btf is not None and number:
        try:
            found = _Builder(btf).build(number, 0)
        except (ObjectFormatError, struct.error):
            return _bytes(size, f"{size} bytes")
        if found.size == size:
            return found
    return _bytes(size, f"{size} bytes")


class _Builder:
    """Makes decoders of types, and counts the parts that they decode."""

    def __init__(self, btf: Btf) -> None:
        self._btf = btf
        self._parts = self._decoders = 0
        self._groups = {number for _, number, _ in btf.groups()}

    def build(self, number: int, depth: int, times: int = 1) -> Decoder:
        """Return the decoder of type *number*, which decodes *times* elements. Raises: ObjectFormatError."""
        self._count(depth, times)
        if number in self._groups:
            return self._group(number, depth, times)
        found = self._btf.type(number)
        if found.kind == "array":
            return self._array(found, depth, times)
        if found.kind in ("struct", "union"):
            fields = [field for entry in found.entries for field in self._member(found, entry, depth, times)]
            return _object(f"{found.kind} {found.name or '{…}'}", found.size, fields)
        if found.kind in ("integer", "enum"):
            return self._number(found)
        if found.kind == "pointer":
            show = _hex_number(self._integer(8, signed=False))
            return Decoder(name="pointer", size=8, decode=show, add=_none)
        return _other(found, self._btf.order)

    def _count(self, depth: int, times: int) -> None:
        """Count one decoder, which runs *times* for each value. Raises: ObjectFormatError."""
        self._decoders += 1
        self._parts += times
        if depth > _MAX_DEPTH or self._decoders > _MAX_DECODERS or self._parts > MAX_PARTS:
            raise ObjectFormatError("BTF: a type with too many members")

    def _group(self, number: int, depth: int, times: int) -> Decoder:
        """Return the decoder of all variables of a section, which libbpf makes one value."""
        fields, end = [], 0
        for variable, offset, size in self._btf.group_entries(number):
            name, kind = self._btf.variable(variable)
            inner = self.build(kind, depth + 1, times)
            fields.append((name, offset, inner))
            end = max(end, offset + size)
        if end > self._btf.size(number):
            raise ObjectFormatError("BTF: a variable outside of its section")
        return _object("variables", self._btf.size(number), fields)

    def _array(self, found: BtfType, depth: int, times: int) -> Decoder:
        element = self._btf.type(found.element)
        if element.kind == "integer" and element.size == 1 and not element.is_bool:
            if element.name == "char":
                return _text(found.size)
            return _bytes(found.size, f"{element.name}[{found.count}]")
        size = self._btf.size(found.element)
        count = found.count if size else 0
        inner = self.build(found.element, depth + 1, times * max(count, 1))
        decode, places = inner.decode, range(0, count * size, size or 1)

        def add(values: Sequence[Any]) -> Any:
            sums = [inner.add(column) for column in zip(*values, strict=True)]
            return None if None in sums else sums

        return Decoder(
            name=f"{inner.name}[{found.count}]",
            size=found.size,
            decode=lambda data, at: [decode(data, at + place) for place in places],
            add=add,
        )

    def _member(
        self, outer: BtfType, entry: BtfEntry, depth: int, times: int
    ) -> list[tuple[str, int, Decoder]]:
        """Return name, offset and decoder of a member: several for an anonymous struct, none for padding."""
        at = entry.bit_offset // 8
        end = (entry.bit_offset + entry.bits + 7) // 8 if entry.bits else at + self._btf.size(entry.type)
        if end > outer.size or (entry.bit_offset % 8 and not entry.bits):
            raise ObjectFormatError("BTF: a member outside of its struct")
        if entry.bits:
            self._count(depth, times)
            return [(entry.name, 0, self._bits(entry))] if entry.name else []
        if entry.name:
            return [(entry.name, at, self.build(entry.type, depth + 1, times))]
        nested = self._btf.type(entry.type)
        self._count(depth, times)
        return [
            (name, at + offset, each)
            for member in nested.entries
            for name, offset, each in self._member(nested, member, depth + 1, times)
        ]

    def _bits(self, entry: BtfEntry) -> Decoder:
        """Return the decoder of a bit field, by its offset from the struct's start."""
        found = self._btf.type(entry.type)
        first, last = entry.bit_offset // 8, (entry.bit_offset + entry.bits + 7) // 8
        little = self._btf.order == "<"
        within = entry.bit_offset - 8 * first
        shift = within if little else 8 * (last - first) - within - entry.bits
        mask, sign = (1 << entry.bits) - 1, 1 << (entry.bits - 1) if found.signed else 0
        order = "little" if little else "big"
        names = _enum_names(found)

        def decode(data: memoryview, at: int) -> Any:
            number = int.from_bytes(data[at + first : at + last], order) >> shift & mask  # type: ignore[arg-type]
            number = (number ^ sign) - sign
            return bool(number) if found.is_bool else names.get(number, number)

        return Decoder(name=found.name, size=last, decode=decode, add=_none if names else _total)

    def _number(self, found: BtfType) -> Decoder:
        read = self._integer(found.size, signed=found.signed)
        names = _enum_names(found)
        if found.kind == "enum":
            title = f"enum {found.name or '{…}'}"
            return Decoder(
                name=title,
                size=found.size,
                decode=lambda data, at: names.get(number := read(data, at), number),
                add=_none,
            )
        if found.is_bool:
            return Decoder(
                name=found.name, size=found.size, decode=lambda data, at: bool(read(data, at)), add=_none
            )
        return Decoder(name=found.name, size=found.size, decode=read, add=_total)

    def _integer(self, size: int, *, signed: bool) -> Callable[[memoryview, int], int]:
        if size in _CODES:
            code = _CODES[size] if signed else _CODES[size].upper()
            unpack = struct.Struct(f"{self._btf.order}{code}").unpack_from
            return lambda data, at: unpack(data, at)[0]
        order = "little" if self._btf.order == "<" else "big"
        return lambda data, at: int.from_bytes(data[at : at + size], order, signed=signed)  # type: ignore[arg-type]


def _enum_names(found: BtfType) -> dict[int, str]:
    names: dict[int, str] = {}
    for entry in found.entries if found.kind == "enum" else ():
        names.setdefault(entry.value, entry.name)
    return names


def _object(name: str, size: int, fields: Sequence[tuple[str, int, Decoder]]) -> Decoder:
    readers = [(title, offset, inner.decode) for title, offset, inner in fields]
    adders = [(title, inner.add) for title, _, inner in fields]

    def decode(data: memoryview, at: int) -> dict[str, Any]:
        return {title: read(data, at + offset) for title, offset, read in readers}

    def add(values: Sequence[Any]) -> Any:
        sums = {title: adder([value[title] for value in values]) for title, adder in adders}
        return {title: total for title, total in sums.items() if total is not None} or None

    return Decoder(name=name, size=size, decode=decode, add=add)


def _other(found: BtfType, order: str) -> Decoder:
    if found.kind != "float" or found.size not in _FLOATS:
        return _bytes(found.size, found.name or f"{found.size} bytes")
    unpack = struct.Struct(f"{order}{_FLOATS[found.size]}").unpack_from
    return Decoder(
        name=found.name, size=found.size, decode=lambda data, at: _finite(unpack(data, at)[0]), add=_total
    )


def _bytes(size: int, name: str) -> Decoder:
    return Decoder(name=name, size=size, decode=lambda data, at: data[at : at + size].hex(), add=_none)


def _text(size: int) -> Decoder:
    def decode(data: memoryview, at: int) -> str:
        return bytes(data[at : at + size]).partition(b"\0")[0].decode("utf-8", "backslashreplace")

    return Decoder(name=f"char[{size}]", size=size, decode=decode, add=_none)


def _hex_number(read: Callable[[memoryview, int], int]) -> Decode:
    return lambda data, at: hex(read(data, at))


def _finite(number: float) -> Any:
    """Return *number*, or its name if JSON has no word for it."""
    return number if number - number == 0 else str(number)


def _total(values: Sequence[Any]) -> Any:
    return sum(values) if all(isinstance(value, (int, float)) for value in values) else None


def _none(_: Sequence[Any]) -> None:
    return None


_INDEX = Decoder(
    name="index", size=4, decode=lambda data, at: int.from_bytes(data[at : at + 4], sys.byteorder), add=_none
)
