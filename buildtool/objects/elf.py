# SPDX-License-Identifier: Apache-2.0
"""
eBPF objects: the ELF64 profile, the signature section and its writer (spec/sig-section.md, 1, 3, 9).

A few lines of `struct` code, so that they can be compared with the
specification; a general reader of ELF costs as much time as all else of
signing. Any bytes give a value or ObjectFormatError, nothing else.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from buildtool.core.digests import Digest
from buildtool.core.errors import ObjectFormatError
from buildtool.core.platforms import EM_BPF

MAX_OBJECT_BYTES = 16 * 1024 * 1024
SIG_NAME = b".sig"
HEADER_BYTES = 64
ENTRY_BYTES = 64
MAX_SECTIONS = 65_279
MAX_NAME_BYTES = (
    512  # of the kernel's own names; sections can share one long name, which is not copied for each
)
SHT_NULL, SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_NOBITS, SHT_REL = 0, 1, 2, 3, 8, 9
SHF_EXECINSTR = 4
_ALIGNMENT = 8

_EHDR = {order: struct.Struct(f"{order}16sHHIQQQIHHHHHH") for order in "<>"}
_SHDR = {order: struct.Struct(f"{order}IIQQQQIIQQ") for order in "<>"}
_SYM = {order: struct.Struct(f"{order}IBxHQ8x") for order in "<>"}
_REL = {order: struct.Struct(f"{order}QQ") for order in "<>"}
_STT_FUNC, _STB_LOCAL = 2, 0
_SHOFF_AT, _SHNUM_AT = 40, 60


class Section(NamedTuple):
    """One entry of the section header table, and its name, cut after 513 bytes: over 512 it is too long."""

    name_offset: int
    type: int
    flags: int
    addr: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entsize: int
    name: bytes

    @property
    def occupies(self) -> bool:
        """Whether the section has bytes in the file."""
        return self.type not in (SHT_NULL, SHT_NOBITS)

    @property
    def end(self) -> int:
        """Where its bytes end."""
        return self.offset + self.size


class Symbol(NamedTuple):
    """A symbol: *section* is its section's index, 0 when it is undefined."""

    name: str
    is_function: bool
    is_local: bool
    section: int
    value: int


class Relocation(NamedTuple):
    """A relocation at *offset* of its section, to symbol number *symbol*."""

    offset: int
    symbol: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkTables:
    """The *symbols* in their order, and *relocations* by the index of the section they apply to."""

    symbols: tuple[Symbol, ...]
    relocations: dict[int, tuple[Relocation, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ElfObject:
    """An object of the profile: its *data*, byte *order* (`<` or `>`) and sections."""

    data: bytes
    order: str
    table_offset: int
    names_index: int
    sections: tuple[Section, ...]

    @property
    def is_little_endian(self) -> bool:
        """Whether the object is for little-endian machines."""
        return self.order == "<"

    def contents(self, section: Section) -> bytes:
        """Return the bytes of *section*; none for one without bytes in the file."""
        return self.data[section.offset : section.end] if section.occupies else b""


def parse_object(data: bytes) -> ElfObject:
    """
    Return the object that *data*, a whole file, is; `.sig` is checked by `find_signature_section`.

    Raises: ObjectFormatError, with the first rule of the profile that it breaks.
    """
    order, table, count, names_index = _parse_header(data)
    table_end = table + ENTRY_BYTES * count
    entries = list(_SHDR[order].iter_unpack(data[table:table_end]))
    names = _parse_names(data, entries[names_index])
    if entries[0][1] != SHT_NULL:
        raise ObjectFormatError("section 0 is not empty")
    sections = tuple(_parse_section(data, index, entry, names) for index, entry in enumerate(entries))
    end = max(section.end for section in sections if section.occupies)
    if max(end, table_end) != len(data):
        raise ObjectFormatError("data after the end that the headers describe")
    return ElfObject(data=data, order=order, table_offset=table, names_index=names_index, sections=sections)


def _parse_header(data: bytes) -> tuple[str, int, int, int]:
    if data[:4] != b"\x7fELF":
        raise ObjectFormatError("not an ELF file")
    if len(data) < HEADER_BYTES:
        raise ObjectFormatError("truncated ELF file")
    if data[4] != 2 or data[5] not in (1, 2) or data[6] != 1:
        raise ObjectFormatError("not a 64-bit ELF file of version 1")
    order = "<" if data[5] == 1 else ">"
    fields = _EHDR[order].unpack_from(data)
    _, kind, machine, version, _, _, table, _, ehsize, _, phnum, shentsize, count, names = fields
    if machine != EM_BPF:
        raise ObjectFormatError(f"not an eBPF object: ELF machine {machine}")
    if kind != 1 or version != 1:
        raise ObjectFormatError("not a relocatable eBPF object")
    if ehsize != HEADER_BYTES or phnum != 0 or shentsize != ENTRY_BYTES:
        raise ObjectFormatError("wrong ELF header or entry sizes")
    if not 2 <= count <= MAX_SECTIONS:
        raise ObjectFormatError(f"{count} sections")
    if table < HEADER_BYTES or table + ENTRY_BYTES * count > len(data):
        raise ObjectFormatError("section header table outside the file: truncated or damaged")
    if not 1 <= names < count:
        raise ObjectFormatError("no section name table")
    return order, table, count, names


def _parse_names(data: bytes, entry: tuple[Any, ...]) -> bytes:
    kind, offset, size = entry[1], entry[4], entry[5]
    if kind != SHT_STRTAB or size == 0 or offset + size > len(data) or data[offset + size - 1] != 0:
        raise ObjectFormatError("bad section name table")
    return data[offset : offset + size]


def _parse_section(data: bytes, index: int, entry: tuple[Any, ...], names: bytes) -> Section:
    if entry[0] >= len(names):
        raise ObjectFormatError(f"section {index}: name outside the table")
    section = Section._make((*entry, _cut_name(names, entry[0])))
    if section.occupies and section.end > len(data):
        raise ObjectFormatError(f"section {index}: outside the file, truncated or damaged")
    return section


def has_signature_section(obj: ElfObject) -> bool:
    """Say whether any section has the name `.sig`."""
    return any(section.name == SIG_NAME for section in obj.sections)


def find_signature_section(obj: ElfObject) -> Section:
    """
    Return the section `.sig` of *obj* after all checks of section 1; there is at least one.

    Raises: ObjectFormatError.
    """
    found = [section for section in obj.sections if section.name == SIG_NAME]
    if len(found) != 1:
        raise ObjectFormatError(f"{len(found)} sections named .sig")
    sig = found[0]
    if sig.type != SHT_PROGBITS or any((sig.flags, sig.addr, sig.link, sig.info, sig.entsize)):
        raise ObjectFormatError("section .sig: wrong type or attributes")
    ranges = [(0, HEADER_BYTES), (obj.table_offset, obj.table_offset + ENTRY_BYTES * len(obj.sections))]
    ranges += [(s.offset, s.end) for s in obj.sections if s is not sig and s.occupies and s.size]
    if sig.size and any(sig.offset < end and start < sig.end for start, end in ranges):
        raise ObjectFormatError("section .sig overlaps something else")
    return sig


def blank_section(obj: ElfObject, section: Section) -> bytes:
    """Return the file with the contents of *section* as zero bytes: the subject (section 3)."""
    return obj.data[: section.offset] + bytes(section.size) + obj.data[section.end :]


def subject_digest(obj: ElfObject, section: Section) -> Digest:
    """Return the subject digest, *section* being `.sig`."""
    return Digest(hashlib.sha256(blank_section(obj, section)).hexdigest())


def append_signature_section(obj: ElfObject, size: int) -> tuple[bytes, int]:
    """
    Return the file of unsigned *obj* with a `.sig` of *size* zero bytes, and where that begins (section 9).

    Raises: ObjectFormatError, when the result would be over the limits.
    """
    if len(obj.sections) >= MAX_SECTIONS:
        raise ObjectFormatError("no room for one section more")
    names = obj.contents(obj.sections[obj.names_index]) + SIG_NAME + b"\0"
    others = [s.end for i, s in enumerate(obj.sections) if s.occupies and i != obj.names_index]
    body = bytearray(obj.data[: max([HEADER_BYTES, *others])])
    names_offset = len(body)
    body += names
    sig_offset = _pad(body)
    body += bytes(size)
    table_offset = _pad(body)
    pack = _SHDR[obj.order].pack
    for index, section in enumerate(obj.sections):
        entry = section
        if index == obj.names_index:
            entry = section._replace(offset=names_offset, size=len(names))
        body += pack(*entry[:10])
    sig_name = len(names) - len(SIG_NAME) - 1
    body += pack(sig_name, SHT_PROGBITS, 0, 0, sig_offset, size, 0, 0, _ALIGNMENT, 0)
    struct.pack_into(f"{obj.order}Q", body, _SHOFF_AT, table_offset)
    struct.pack_into(f"{obj.order}H", body, _SHNUM_AT, len(obj.sections) + 1)
    if len(body) > MAX_OBJECT_BYTES:
        raise ObjectFormatError(f"larger than {MAX_OBJECT_BYTES} bytes with its signature")
    return bytes(body), sig_offset


def remove_signature_section(obj: ElfObject) -> ElfObject:
    """
    Return *obj* as it was before our writer signed it, up to the place of tables that the writer moves.

    Raises: ObjectFormatError, when another tool wrote or moved the section.
    """
    sig = find_signature_section(obj)
    names = obj.sections[obj.names_index]
    kept = obj.sections[:-1]
    name_length = len(SIG_NAME) + 1
    # Nothing but the last entry may go without renumbering, and nothing else may use the name's bytes.
    shared = any(section.name_offset >= sig.name_offset for section in kept)
    if obj.sections[-1] is not sig or sig.name_offset + name_length != names.size or shared:
        raise ObjectFormatError(
            "section .sig was written or moved by another tool",
            hint="remove it with llvm-objcopy --remove-section .sig, or compile again",
        )
    trimmed = names._replace(size=names.size - name_length)
    sections = tuple(trimmed if section is names else section for section in kept)
    return replace(obj, sections=sections)


def read_link_tables(obj: ElfObject) -> LinkTables:
    """
    Return the symbols of *obj*, and the relocations of its sections that hold instructions.

    Raises: ObjectFormatError.
    """
    return LinkTables(symbols=_read_symbols(obj), relocations=_read_relocations(obj))


def _read_symbols(obj: ElfObject) -> tuple[Symbol, ...]:
    table = next((section for section in obj.sections if section.type == SHT_SYMTAB), None)
    if table is None:
        return ()
    names = obj.contents(_section_at(obj, table.link))
    return tuple(
        Symbol(
            name=_name_at(names, name),
            is_function=info & 0xF == _STT_FUNC,
            is_local=info >> 4 == _STB_LOCAL,
            section=section,
            value=value,
        )
        for name, info, section, value in _entries(obj, table, _SYM)
    )


def _read_relocations(obj: ElfObject) -> dict[int, tuple[Relocation, ...]]:
    found: dict[int, tuple[Relocation, ...]] = {}
    for section in obj.sections:
        if section.type != SHT_REL or not _section_at(obj, section.info).flags & SHF_EXECINSTR:
            continue
        # libbpf applies all of them.
        if section.info in found:
            raise ObjectFormatError("two tables of relocations for one section")
        entries = _entries(obj, section, _REL)
        found[section.info] = tuple(Relocation(offset, info >> 32) for offset, info in entries)
    return found


def _entries(obj: ElfObject, section: Section, layout: dict[str, struct.Struct]) -> Iterator[tuple[Any, ...]]:
    entry = layout[obj.order]
    if section.entsize != entry.size or section.size % entry.size:
        raise ObjectFormatError(f"a table of {section.size} bytes with entries of {section.entsize}")
    return entry.iter_unpack(obj.contents(section))


def _section_at(obj: ElfObject, index: int) -> Section:
    if index >= len(obj.sections):
        raise ObjectFormatError(f"a table refers to section {index}, which is not there")
    return obj.sections[index]


def _cut_name(names: bytes, offset: int) -> bytes:
    end = names.find(0, offset, offset + MAX_NAME_BYTES + 1)
    return names[offset : end if end >= 0 else offset + MAX_NAME_BYTES + 1]


def _name_at(names: bytes, offset: int) -> str:
    end = names.find(0, offset, offset + MAX_NAME_BYTES + 1)
    if end < 0:
        raise ObjectFormatError("a symbol's name is too long, or outside the table of names")
    return names[offset:end].decode("utf-8", "replace")


def _pad(body: bytearray) -> int:
    body += bytes(-len(body) % _ALIGNMENT)
    return len(body)
