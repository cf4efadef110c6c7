# SPDX-License-Identifier: Apache-2.0
"""
Read and write eBPF objects: the ELF64 profile and the signature section (spec/sig-section.md, 1, 3, 9).

pyelftools reads the header and the tables (`buildtool.objects.tables`). This module checks the rules of
the profile and writes the section. Any bytes result in a value or ObjectFormatError.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from buildtool.core.digests import Digest
from buildtool.core.errors import FileAccessError, ObjectFormatError
from buildtool.core.files import read_bounded
from buildtool.core.platforms import EM_BPF
from buildtool.objects.tables import (
    ENTRY_BYTES,
    HEADER_BYTES,
    RELOCATION_BYTES,
    SHF_EXECINSTR,
    SHT_NULL,
    SHT_PROGBITS,
    SHT_REL,
    SHT_STRTAB,
    SHT_SYMTAB,
    SYMBOL_BYTES,
    FileHeader,
    Relocation,
    Section,
    SymbolEntry,
    read_header,
    read_relocations,
    read_section_headers,
    read_symbols,
)

MAX_OBJECT_BYTES = 64 * 1024 * 1024
# spec/trust-policy.md, "Reading the code": each entry costs a reader time and memory, so a large file of
# nothing else must not hold more of them than a project needs.
MAX_CODE_BYTES = 16 * 1024 * 1024
MAX_SYMBOLS = 131_072
MAX_RELOCATIONS = 262_144
OBJECT_HINT = "objects are the .bpf.o files that buildtool compile writes"
SIG_NAME = b".sig"
MAX_SECTIONS = 65_279
MAX_NAME_BYTES = (
    512  # KSYM_NAME_LEN of the kernel; without a limit, 65,279 sections could each copy one shared long name
)
_ALIGNMENT = 8

_STT_FUNC, _STB_LOCAL = 2, 0
_SHOFF_AT, _SHNUM_AT = 40, 60


class Symbol(NamedTuple):
    """A symbol. *section* is the index of its section, or 0 if it is undefined."""

    name: str
    is_function: bool
    is_local: bool
    section: int
    value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkTables:
    """The *symbols* in order, and the *relocations* by the index of the section that they change."""

    symbols: tuple[Symbol, ...]
    relocations: dict[int, tuple[Relocation, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ElfObject:
    """An object of the profile: its *data*, byte *order* (`<` or `>`) and *sections*."""

    data: bytes
    order: str
    table_offset: int
    names_index: int
    sections: tuple[Section, ...]
    # Descriptions, policies and checks read the same tables, and pyelftools is slow.
    _symbols: dict[Section, tuple[SymbolEntry, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _relocations: dict[Section, tuple[Relocation, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def is_little_endian(self) -> bool:
        """True if the object is for little-endian machines."""
        return self.order == "<"

    def contents(self, section: Section) -> bytes:
        """Return the bytes of *section*. A section such as .bss has none in the file."""
        return self.data[section.offset : section.end] if section.occupies else b""

    def symbols(self, table: Section) -> tuple[SymbolEntry, ...]:
        """
        Return the entries of symbol table *table*.

        Raises: ObjectFormatError.
        """
        if table not in self._symbols:
            data = self._entries(table, SYMBOL_BYTES)
            if len(data) > MAX_SYMBOLS * SYMBOL_BYTES:
                raise ObjectFormatError(f"more than {MAX_SYMBOLS} symbols")
            self._symbols[table] = read_symbols(data, little_endian=self.is_little_endian)
        return self._symbols[table]

    def relocations(self, table: Section) -> tuple[Relocation, ...]:
        """
        Return the entries of *table*, a section of type SHT_REL.

        Raises: ObjectFormatError.
        """
        if table not in self._relocations:
            data = self._entries(table, RELOCATION_BYTES)
            self._relocations[table] = read_relocations(data, little_endian=self.is_little_endian)
        return self._relocations[table]

    def _entries(self, table: Section, size: int) -> bytes:
        if table.entsize != size or table.size % size:
            raise ObjectFormatError(f"a table of {table.size} bytes with entries of {table.entsize}")
        return self.contents(table)


def read_object_file(path: Path) -> bytes:
    """
    Return the bytes of object file *path*.

    Raises: FileAccessError, also for a file of more than MAX_OBJECT_BYTES.
    """
    data = read_bounded(path, MAX_OBJECT_BYTES)
    if len(data) > MAX_OBJECT_BYTES:
        raise FileAccessError(f"{path}: larger than {MAX_OBJECT_BYTES} bytes", hint=OBJECT_HINT)
    return data


def parse_object(data: bytes) -> ElfObject:
    """
    Return the object in *data*, a whole file. `find_signature_section` checks `.sig` later.

    Raises: ObjectFormatError, which names the first broken rule of the profile.
    """
    order, header = _parse_header(data)
    table_end = header.table_offset + ENTRY_BYTES * header.sections
    little_endian = order == "<"
    entries = read_section_headers(data[header.table_offset : table_end], little_endian=little_endian)
    names = _parse_names(data, entries[header.names_index])
    if entries[0].type != SHT_NULL:
        raise ObjectFormatError("section 0 is not empty")
    sections = tuple(_parse_section(data, index, entry, names) for index, entry in enumerate(entries))
    end = max(section.end for section in sections if section.occupies)
    if max(end, table_end) != len(data):
        raise ObjectFormatError("data after the end that the headers describe")
    return ElfObject(
        data=data,
        order=order,
        table_offset=header.table_offset,
        names_index=header.names_index,
        sections=sections,
    )


def _parse_header(data: bytes) -> tuple[str, FileHeader]:
    if data[:4] != b"\x7fELF":
        raise ObjectFormatError("not an ELF file", hint=OBJECT_HINT)
    if len(data) < HEADER_BYTES:
        raise ObjectFormatError("truncated ELF file")
    # The identification consists of single bytes, which decide the size and byte order of all later fields.
    if data[4] != 2 or data[5] not in (1, 2) or data[6] != 1:
        raise ObjectFormatError("not a 64-bit ELF file of version 1")
    order = "<" if data[5] == 1 else ">"
    header = read_header(data, little_endian=order == "<")
    if header.machine != EM_BPF:
        raise ObjectFormatError(f"not an eBPF object: ELF machine {header.machine}", hint=OBJECT_HINT)
    if header.type != 1 or header.version != 1:
        raise ObjectFormatError("not a relocatable eBPF object")
    if (header.header_bytes, header.program_headers, header.entry_bytes) != (HEADER_BYTES, 0, ENTRY_BYTES):
        raise ObjectFormatError("wrong ELF header or entry sizes")
    if not 2 <= header.sections <= MAX_SECTIONS:
        raise ObjectFormatError(f"{header.sections} sections")
    if header.table_offset < HEADER_BYTES or header.table_offset + ENTRY_BYTES * header.sections > len(data):
        raise ObjectFormatError("section header table outside the file: truncated or damaged")
    if not 1 <= header.names_index < header.sections:
        raise ObjectFormatError("no section name table")
    return order, header


def _parse_names(data: bytes, entry: Section) -> bytes:
    end = entry.offset + entry.size
    if entry.type != SHT_STRTAB or entry.size == 0 or end > len(data) or data[end - 1] != 0:
        raise ObjectFormatError("bad section name table")
    return data[entry.offset : end]


def _parse_section(data: bytes, index: int, entry: Section, names: bytes) -> Section:
    if entry.name_offset >= len(names):
        raise ObjectFormatError(f"section {index}: name outside the table")
    section = entry._replace(name=_cut_name(names, entry.name_offset))
    if section.occupies and section.end > len(data):
        raise ObjectFormatError(f"section {index}: outside the file, truncated or damaged")
    return section


def has_signature_section(obj: ElfObject) -> bool:
    """Return whether any section has the name `.sig`."""
    return any(section.name == SIG_NAME for section in obj.sections)


def find_signature_section(obj: ElfObject) -> Section:
    """
    Return the section `.sig` of *obj* after all checks of spec/sig-section.md, section 1.

    Raises: ObjectFormatError, also if *obj* has no or several sections of this name.
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
    """Return the subject (spec section 3): the file with zero bytes as contents of *section*."""
    return obj.data[: section.offset] + bytes(section.size) + obj.data[section.end :]


def subject_digest(obj: ElfObject, section: Section) -> Digest:
    """Return the digest of the subject of *obj*. *section* is its `.sig`."""
    data = memoryview(obj.data)  # a blank copy of the largest file would be another 64 MiB
    digest = hashlib.sha256(data[: section.offset])
    digest.update(bytes(section.size))
    digest.update(data[section.end :])
    return Digest(digest.hexdigest())


def append_signature_section(obj: ElfObject, size: int) -> tuple[bytes, int]:
    """
    Return the file of unsigned *obj* with a `.sig` of *size* zero bytes, and its offset (spec section 9).

    Raises: ObjectFormatError, if the result has too many sections or bytes.
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
    for index, section in enumerate(obj.sections):
        entry = section
        if index == obj.names_index:
            entry = section._replace(offset=names_offset, size=len(names))
        body += pack_section(entry, obj.order)
    sig_name = len(names) - len(SIG_NAME) - 1
    entry = Section(sig_name, SHT_PROGBITS, 0, 0, sig_offset, size, 0, 0, _ALIGNMENT, 0, SIG_NAME)
    body += pack_section(entry, obj.order)
    struct.pack_into(f"{obj.order}Q", body, _SHOFF_AT, table_offset)
    struct.pack_into(f"{obj.order}H", body, _SHNUM_AT, len(obj.sections) + 1)
    if len(body) > MAX_OBJECT_BYTES:
        raise ObjectFormatError(f"larger than {MAX_OBJECT_BYTES} bytes with its signature")
    return bytes(body), sig_offset


def pack_section(section: Section, order: str) -> bytes:
    """Return the entry of *section* in the section header table of an object of byte *order*."""
    return struct.pack(f"{order}IIQQQQIIQQ", *section[:10])


def remove_signature_section(obj: ElfObject) -> ElfObject:
    """
    Return *obj* without the section that `append_signature_section` added.

    The offsets of the tables that the writer moved may differ from those of the unsigned file.

    Raises: ObjectFormatError, if another tool wrote or moved the section.
    """
    sig = find_signature_section(obj)
    names = obj.sections[obj.names_index]
    kept = obj.sections[:-1]
    name_length = len(SIG_NAME) + 1
    # Only the last entry can be removed without renumbering. Another name must not share the bytes of ".sig".
    shared = any(section.name_offset >= sig.name_offset for section in kept)
    if obj.sections[-1] is not sig or sig.name_offset + name_length != names.size or shared:
        raise ObjectFormatError(
            "section .sig was written or moved by another tool",
            hint="remove it with llvm-objcopy --remove-section .sig, or compile again",
        )
    trimmed = names._replace(size=names.size - name_length)
    sections = tuple(trimmed if section is names else section for section in kept)
    return replace(obj, sections=sections)


def unsigned_digest(obj: ElfObject) -> Digest:
    """
    Return a digest of *obj* without its signature, the same before and after signing.

    It is the SHA-256 of the file with a `.sig` of no bytes: the writer moves tables, so that the unsigned
    file cannot be restored from the signed one.

    Raises: ObjectFormatError, if another tool wrote or moved the section.
    """
    bare = remove_signature_section(obj) if has_signature_section(obj) else obj
    return Digest(hashlib.sha256(append_signature_section(bare, 0)[0]).hexdigest())


def read_link_tables(obj: ElfObject) -> LinkTables:
    """
    Return the symbols of *obj*, and the relocations of its code sections.

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
            name=_name_at(names, entry.name_offset),
            is_function=entry.type == _STT_FUNC,
            is_local=entry.binding == _STB_LOCAL,
            section=entry.section,
            value=entry.value,
        )
        for entry in obj.symbols(table)
    )


def _read_relocations(obj: ElfObject) -> dict[int, tuple[Relocation, ...]]:
    found: dict[int, Section] = {}
    for section in obj.sections:
        if section.type != SHT_REL or not _section_at(obj, section.info).flags & SHF_EXECINSTR:
            continue
        # libbpf would apply both tables.
        if section.info in found:
            raise ObjectFormatError("two tables of relocations for one section")
        found[section.info] = section
    check_relocation_tables(obj, found.values())
    return {index: obj.relocations(table) for index, table in found.items()}


def check_total_size(obj: ElfObject, sections: Collection[Section]) -> None:
    """
    Check that the sizes of *sections* together do not exceed the size of the file.

    Sections may overlap. Reading 65,000 overlapping sections of 64 MiB would take days.

    Raises: ObjectFormatError.
    """
    if sum(section.size for section in sections) > len(obj.data):
        raise ObjectFormatError("sections that overlap")


def check_relocation_tables(obj: ElfObject, tables: Collection[Section]) -> None:
    """
    Check that *tables* neither overlap nor have more than MAX_RELOCATIONS entries together.

    Raises: ObjectFormatError.
    """
    check_total_size(obj, tables)
    if sum(table.size for table in tables) > MAX_RELOCATIONS * RELOCATION_BYTES:
        raise ObjectFormatError(f"more than {MAX_RELOCATIONS} relocations")


def _section_at(obj: ElfObject, index: int) -> Section:
    if index >= len(obj.sections):
        raise ObjectFormatError(f"section header: no section {index}")
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
