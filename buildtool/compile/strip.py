# SPDX-License-Identifier: Apache-2.0
"""
Remove DWARF from objects without llvm-strip, with the same bytes as llvm-strip.

DWARF differs between machines, and loading does not need it. BTF stays. Sections keep their order
in the file. As in LLVM's string tables, a name that is the end of another name shares its bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from buildtool.core.errors import ObjectFormatError
from buildtool.objects.elf import MAX_NAME_BYTES, ElfObject, check_total_size, pack_section, parse_object
from buildtool.objects.tables import (
    ENTRY_BYTES,
    HEADER_BYTES,
    SHT_NOBITS,
    SHT_REL,
    SHT_STRTAB,
    SHT_SYMTAB,
    SYMBOL_BYTES,
    Section,
    SymbolEntry,
)

_HINT = "install llvm-strip, which strips in its place: apt install llvm"
_DEBUG = (b".debug", b".zdebug", b".gdb_index")
_SHT_RELA = 4
_STT_FILE, _STB_LOCAL = 4, 0
_ABSOLUTE = 0xFF00  # SHN_LORESERVE: from here on, section numbers are reserved
_MAX_ALIGNMENT = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class _Names:
    """A string table: its *data*, and the offset of each name."""

    data: bytes
    offsets: dict[bytes, int]


def strip_debug(data: bytes) -> bytes:
    """
    Return object *data* without DWARF and otherwise unchanged.

    Raises: ObjectFormatError, also for tables that no eBPF compiler writes.
    """
    try:
        return _strip(parse_object(data))
    except (struct.error, IndexError, KeyError, ValueError) as error:
        raise ObjectFormatError("cannot strip: damaged symbols or relocations", hint=_HINT) from error


def _strip(obj: ElfObject) -> bytes:
    kept = _kept_sections(obj)
    numbers = {old: new for new, old in enumerate(kept)}
    table = next((index for index in kept if obj.sections[index].type == SHT_SYMTAB), None)
    if table is None or obj.sections[table].link != obj.names_index:
        raise ObjectFormatError(
            "cannot strip: symbols and sections do not share one table of names", hint=_HINT
        )
    symbols = _kept_symbols(obj, obj.sections[table], numbers)
    symbol_numbers = {old: new for new, (old, _) in enumerate(symbols)}
    old_names = obj.contents(obj.sections[obj.names_index])
    texts = {old: _name(old_names, symbol.name_offset) for old, symbol in symbols}
    names = _pack_names([*(obj.sections[index].name for index in kept), *texts.values()])
    old_symbols = obj.contents(obj.sections[table])
    packed = bytearray()
    for old, symbol in symbols:
        at = len(packed)
        # Write only the two changed fields. Binding, visibility, value and size stay.
        packed += old_symbols[SYMBOL_BYTES * old : SYMBOL_BYTES * (old + 1)]
        struct.pack_into(f"{obj.order}I", packed, at, names.offsets[texts[old]])
        struct.pack_into(f"{obj.order}H", packed, at + 6, _renumber(symbol.section, numbers))
    check_total_size(obj, [obj.sections[index] for index in kept if obj.sections[index].occupies])
    contents = {}
    for index in kept:
        section = obj.sections[index]
        contents[index] = obj.contents(section)
        if section.type == SHT_REL:
            contents[index] = _renumber_relocations(obj, section, symbol_numbers)
    contents[table], contents[obj.names_index] = bytes(packed), names.data
    local = sum(1 for _, symbol in symbols if symbol.binding == _STB_LOCAL)
    return _write(obj, kept, contents, names, first_global=local)


def _kept_sections(obj: ElfObject) -> list[int]:
    dropped = {index for index, section in enumerate(obj.sections) if section.name.startswith(_DEBUG)}
    kept = []
    for index, section in enumerate(obj.sections):
        if section.type == _SHT_RELA:
            raise ObjectFormatError("cannot strip: relocations of a kind that eBPF does not have", hint=_HINT)
        if len(section.name) > MAX_NAME_BYTES:
            raise ObjectFormatError("cannot strip: a section with too long a name", hint=_HINT)
        if index in dropped or (section.type == SHT_REL and section.info in dropped):
            continue
        kept.append(index)
    return kept


def _kept_symbols(obj: ElfObject, table: Section, numbers: dict[int, int]) -> list[tuple[int, SymbolEntry]]:
    """Return number and entry of each kept symbol. Symbols of files and of dropped sections are removed."""
    return [
        (number, symbol)
        for number, symbol in enumerate(obj.symbols(table))
        if symbol.type != _STT_FILE and (symbol.section >= _ABSOLUTE or symbol.section in numbers)
    ]


def _renumber(section: int, numbers: dict[int, int]) -> int:
    return section if section >= _ABSOLUTE else numbers[section]


def _renumber_relocations(obj: ElfObject, section: Section, symbols: dict[int, int]) -> bytes:
    pack = struct.Struct(f"{obj.order}QQ").pack
    return b"".join(
        pack(entry.offset, symbols[entry.symbol] << 32 | entry.type) for entry in obj.relocations(section)
    )


def _pack_names(names: Iterable[bytes]) -> _Names:
    """Return the string table of *names*, sorted by their ends as in LLVM, so that ends share bytes."""
    data, offsets, previous = bytearray(1), {b"": 0}, b""
    for name in sorted(set(names) - {b""}, key=lambda name: name[::-1], reverse=True):
        if not previous.endswith(name):
            offsets[name] = len(data)
            data += name + b"\0"
            previous = name
        else:
            offsets[name] = offsets[previous] + len(previous) - len(name)
    return _Names(data=bytes(data), offsets=offsets)


def _write(
    obj: ElfObject, kept: list[int], contents: dict[int, bytes], names: _Names, *, first_global: int
) -> bytes:
    numbers = {old: new for new, old in enumerate(kept)}
    body = bytearray(obj.data[:HEADER_BYTES])
    places = {}
    for index in sorted(kept[1:], key=lambda index: obj.sections[index].offset):
        section = obj.sections[index]
        if section.align > _MAX_ALIGNMENT:
            raise ObjectFormatError(
                f"cannot strip: a section is aligned to {section.align} bytes", hint=_HINT
            )
        body += bytes(-len(body) % max(section.align, 1))
        places[index] = len(body)
        if section.type != SHT_NOBITS:
            body += contents[index]
    body += bytes(-len(body) % 8)
    struct.pack_into(f"{obj.order}Q", body, 40, len(body))  # e_shoff
    struct.pack_into(f"{obj.order}HH", body, 60, len(kept), numbers[obj.names_index])
    body += bytes(ENTRY_BYTES)
    for index in kept[1:]:
        section = obj.sections[index]
        link, info = _links(obj, section, numbers, first_global)
        size = section.size if section.type == SHT_NOBITS else len(contents[index])
        moved = section._replace(
            name_offset=names.offsets[section.name], offset=places[index], size=size, link=link, info=info
        )
        body += pack_section(moved, obj.order)
    return bytes(body)


def _links(obj: ElfObject, section: Section, numbers: dict[int, int], first_global: int) -> tuple[int, int]:
    """Return link and info of *section* with new numbers."""
    if section.type == SHT_SYMTAB:
        return numbers[section.link], first_global
    if section.type == SHT_REL:
        return numbers[section.link], numbers[section.info]
    # A section of old symbol numbers (.llvm_addrsig) loses its link to the symbol table, as in llvm-strip.
    linked = obj.sections[section.link].type if section.link else SHT_STRTAB
    return (0 if linked == SHT_SYMTAB else numbers.get(section.link, 0)), section.info


def _name(names: bytes, offset: int) -> bytes:
    if offset >= len(names):
        return b""
    # Many symbols can share one name, so an object could fill the memory with copies of a long name.
    end = names.find(0, offset, offset + MAX_NAME_BYTES + 1)
    if end < 0:
        raise ObjectFormatError("cannot strip: a symbol with too long a name", hint=_HINT)
    return names[offset:end]
