# SPDX-License-Identifier: Apache-2.0
"""What an object does, read from the object itself: programs, maps, helpers, kernel functions, license."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from buildtool.bpfnames import map_type, program_type
from buildtool.btf import Btf
from buildtool.elfobj import (
    SHF_EXECINSTR,
    SHT_PROGBITS,
    ElfObject,
    LinkTables,
    Section,
    read_link_tables,
)
from buildtool.model import MapInfo, ProgramInfo

_INSTRUCTION_BYTES = 8
_CALL = 0x85
_HELPER_CALL = 0
_MAPS_OF_MAPS = ("array_of_maps", "hash_of_maps")
_DESCRIPTOR_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectContents:
    """What the statement says of an object's contents."""

    programs: tuple[ProgramInfo, ...]
    maps: tuple[MapInfo, ...]
    helpers: tuple[int, ...]
    kfuncs: tuple[str, ...]
    license: str


def describe_object(obj: ElfObject) -> ObjectContents:
    """
    Return what *obj* says of itself.

    Raises: ObjectFormatError, when its tables or its BTF are damaged.
    """
    tables = read_link_tables(obj)
    return ObjectContents(
        programs=tuple(_find_programs(obj, tables)),
        maps=_find_maps(obj),
        helpers=tuple(sorted(_find_helpers(obj))),
        kfuncs=tuple(sorted(_find_kfuncs(obj, tables))),
        license=_find_license(obj),
    )


def _find_programs(obj: ElfObject, tables: LinkTables) -> Iterator[ProgramInfo]:
    """List global functions in order of section and place; libbpf takes those of .text for subprograms."""
    functions = [symbol for symbol in tables.symbols if symbol.is_function and not symbol.is_local]
    for symbol in sorted(functions, key=lambda symbol: (symbol.section, symbol.value)):
        if not 0 < symbol.section < len(obj.sections):
            continue
        section = obj.sections[symbol.section]
        if _is_code(section) and section.name != b".text":
            name = section.name.decode("utf-8", "replace")
            yield ProgramInfo(name=symbol.name, section=name, type=program_type(name))


def _find_maps(obj: ElfObject) -> tuple[MapInfo, ...]:
    section = _section(obj, b".BTF")
    if section is None:
        return ()
    btf = Btf(obj.contents(section), obj.order)
    maps = (_read_map(btf, name, number) for name, number in btf.section_variables(".maps"))
    return tuple(sorted(maps, key=lambda item: item.name))


def _read_map(btf: Btf, name: str, number: int) -> MapInfo:
    members = {member.name: member.type for member in btf.members(number)}

    def integer(member: str) -> int:
        return btf.encoded_integer(members[member]) if member in members else 0

    def size(explicit: str, by_type: str) -> int:
        return btf.pointed_size(members[by_type]) if by_type in members else integer(explicit)

    kind = map_type(integer("type"))
    # The values of a map of maps, and of a table of programs declared with them, are descriptors.
    inner = kind in _MAPS_OF_MAPS or "values" in members
    return MapInfo(
        name=name,
        type=kind,
        key_size=size("key_size", "key") or (_DESCRIPTOR_BYTES if inner else 0),
        value_size=size("value_size", "value") or (_DESCRIPTOR_BYTES if inner else 0),
        max_entries=integer("max_entries"),
    )


def _find_helpers(obj: ElfObject) -> set[int]:
    found = set()
    for section in filter(_is_code, obj.sections):
        code = obj.contents(section)
        for at in _call_offsets(code):
            if _source_register(obj, code, at) == _HELPER_CALL:
                immediate = code[at + 4 : at + 8]
                found.add(int.from_bytes(immediate, "little" if obj.is_little_endian else "big"))
    return found


def _find_kfuncs(obj: ElfObject, tables: LinkTables) -> set[str]:
    """Find calls to symbols that this object does not define: libbpf resolves them in the kernel's BTF."""
    found = set()
    for index, relocations in tables.relocations.items():
        code = obj.contents(obj.sections[index])
        for offset, number in relocations:
            is_call = offset % _INSTRUCTION_BYTES == 0 and code[offset : offset + 1] == bytes((_CALL,))
            if is_call and number < len(tables.symbols):
                symbol = tables.symbols[number]
                if symbol.section == 0 and symbol.name:
                    found.add(symbol.name)
    return found


def _find_license(obj: ElfObject) -> str:
    section = _section(obj, b"license")
    return obj.contents(section).partition(b"\0")[0].decode("utf-8", "replace") if section else ""


def _call_offsets(code: bytes) -> Iterator[int]:
    # The second half of a 16-byte load has opcode 0, so that no instruction needs decoding.
    opcodes = code[::_INSTRUCTION_BYTES]
    index = opcodes.find(_CALL)
    while index >= 0:
        if (index + 1) * _INSTRUCTION_BYTES <= len(code):
            yield index * _INSTRUCTION_BYTES
        index = opcodes.find(_CALL, index + 1)


def _source_register(obj: ElfObject, code: bytes, at: int) -> int:
    # The two register fields are bit fields: their nibbles swap with the byte order.
    return code[at + 1] >> 4 if obj.is_little_endian else code[at + 1] & 0xF


def _is_code(section: Section) -> bool:
    return section.type == SHT_PROGBITS and bool(section.flags & SHF_EXECINSTR)


def _section(obj: ElfObject, name: bytes) -> Section | None:
    return next((section for section in obj.sections if section.name == name), None)
