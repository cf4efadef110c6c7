# SPDX-License-Identifier: Apache-2.0
"""
Read the header and the tables of 64-bit ELF files with pyelftools. No other module imports pyelftools.

pyelftools replaces known numbers by names. It also has its own rules for section names, compressed
sections and extended section numbers. The profile (spec/sig-section.md, section 1) defines the numbers in
the file. Therefore this module reads single entries and converts the names back to numbers.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from elftools.common.utils import struct_parse
from elftools.elf.enums import (
    ENUM_E_MACHINE,
    ENUM_E_TYPE,
    ENUM_E_VERSION,
    ENUM_SH_TYPE_BASE,
    ENUM_ST_INFO_BIND,
    ENUM_ST_INFO_TYPE,
    ENUM_ST_SHNDX,
)
from elftools.elf.structs import ELFStructs

from buildtool.core.errors import ObjectFormatError

HEADER_BYTES = 64
ENTRY_BYTES = 64
SYMBOL_BYTES = 24
RELOCATION_BYTES = 16
SHT_NULL, SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_NOBITS, SHT_REL = 0, 1, 2, 3, 8, 9
SHF_EXECINSTR = 4

_Entry = TypeVar("_Entry")


class FileHeader(NamedTuple):
    """The ELF header without identification, entry point and flags."""

    type: int
    machine: int
    version: int
    table_offset: int
    header_bytes: int
    program_headers: int
    entry_bytes: int
    sections: int
    names_index: int


class Section(NamedTuple):
    """An entry of the section header table. `parse_object` fills in *name*."""

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
    name: bytes = b""

    @property
    def occupies(self) -> bool:
        """True if the section has bytes in the file."""
        return self.type not in (SHT_NULL, SHT_NOBITS)

    @property
    def end(self) -> int:
        """The offset after the section's last byte."""
        return self.offset + self.size


class SymbolEntry(NamedTuple):
    """An entry of a symbol table. *section* is `st_shndx`, which may be a reserved number."""

    name_offset: int
    binding: int
    type: int
    section: int
    value: int


class Relocation(NamedTuple):
    """A relocation at *offset* of its section, with the number of its *symbol*."""

    offset: int
    symbol: int
    type: int


def read_header(data: bytes, *, little_endian: bool) -> FileHeader:
    """
    Return the ELF header of file *data*, which has at least HEADER_BYTES bytes.

    Raises: ObjectFormatError.
    """
    return _read_entries(data[:HEADER_BYTES], _structs(little_endian).Elf_Ehdr, _file_header, "header")[0]


def read_section_headers(table: bytes, *, little_endian: bool) -> tuple[Section, ...]:
    """
    Return all entries of section header table *table*.

    Raises: ObjectFormatError.
    """
    return _read_entries(table, _structs(little_endian).Elf_Shdr, _section, "section header table")


def read_symbols(table: bytes, *, little_endian: bool) -> tuple[SymbolEntry, ...]:
    """
    Return all entries of symbol table *table*.

    Raises: ObjectFormatError.
    """
    return _read_entries(table, _structs(little_endian).Elf_Sym, _symbol, "symbol table")


def read_relocations(table: bytes, *, little_endian: bool) -> tuple[Relocation, ...]:
    """
    Return all entries of *table*, the contents of an SHT_REL section.

    Raises: ObjectFormatError.
    """
    return _read_entries(table, _structs(little_endian).Elf_Rel, _relocation, "relocation table")


@lru_cache(maxsize=2)
def _structs(little_endian: bool) -> ELFStructs:  # noqa: FBT001 - a key of the cache
    """Return pyelftools' layouts for a byte order. Making them costs as much as reading a small object."""
    structs = ELFStructs(little_endian=little_endian, elfclass=64)
    structs.create_basic_structs()
    structs.create_advanced_structs()
    return structs


def _read_entries(table: bytes, layout: Any, make: Callable[[Any], _Entry], what: str) -> tuple[_Entry, ...]:
    # The number of entries follows from the length of *table*, never from a count in the file. A hostile
    # count therefore cannot prolong the loop.
    try:
        count, rest = divmod(len(table), layout.sizeof())
        if rest:
            raise ObjectFormatError(f"{what}: truncated or damaged")
        stream = io.BytesIO(table)
        return tuple(make(struct_parse(layout, stream)) for _ in range(count))
    except ObjectFormatError:
        raise
    except Exception as error:
        # pyelftools is not written for hostile files, and raised OverflowError, struct.error and
        # AssertionError in tests. The callers of this module handle one kind of error.
        raise ObjectFormatError(f"{what}: damaged") from error


def _number(value: str | int, names: Mapping[str, Any]) -> int:
    """Return the number in the file of *value*, a number or pyelftools' name of one."""
    return value if isinstance(value, int) else int(names[value])


def _file_header(entry: Any) -> FileHeader:
    return FileHeader(
        type=_number(entry["e_type"], ENUM_E_TYPE),
        machine=_number(entry["e_machine"], ENUM_E_MACHINE),
        version=_number(entry["e_version"], ENUM_E_VERSION),
        table_offset=entry["e_shoff"],
        header_bytes=entry["e_ehsize"],
        program_headers=entry["e_phnum"],
        entry_bytes=entry["e_shentsize"],
        sections=entry["e_shnum"],
        names_index=entry["e_shstrndx"],
    )


def _section(entry: Any) -> Section:
    return Section(
        entry["sh_name"],
        _number(entry["sh_type"], ENUM_SH_TYPE_BASE),
        entry["sh_flags"],
        entry["sh_addr"],
        entry["sh_offset"],
        entry["sh_size"],
        entry["sh_link"],
        entry["sh_info"],
        entry["sh_addralign"],
        entry["sh_entsize"],
    )


def _symbol(entry: Any) -> SymbolEntry:
    info = entry["st_info"]
    return SymbolEntry(
        name_offset=entry["st_name"],
        binding=_number(info["bind"], ENUM_ST_INFO_BIND),
        type=_number(info["type"], ENUM_ST_INFO_TYPE),
        section=_number(entry["st_shndx"], ENUM_ST_SHNDX),
        value=entry["st_value"],
    )


def _relocation(entry: Any) -> Relocation:
    return Relocation(entry["r_offset"], entry["r_info_sym"], entry["r_info_type"])
