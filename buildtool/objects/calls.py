# SPDX-License-Identifier: Apache-2.0
"""
Read the calls in an object's code, for the policy's decision (spec/trust-policy.md, "Reading the code").

An attacker may have written the code, so the rules are few and equal those of loader/verify/code.c.
Code that breaks a rule is an error. No call is ever left out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from buildtool.core.errors import ObjectFormatError
from buildtool.objects.elf import (
    MAX_CODE_BYTES,
    MAX_NAME_BYTES,
    ElfObject,
    check_relocation_tables,
    check_total_size,
)
from buildtool.objects.tables import (
    SHF_EXECINSTR,
    SHT_PROGBITS,
    SHT_REL,
    SHT_STRTAB,
    SHT_SYMTAB,
    Section,
    SymbolEntry,
)

SLOT_BYTES = 8
_CALL = 0x85
_HELPER_CALL, _LOCAL_CALL = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeCalls:
    """The names of the programs' *sections*, and the called *helpers* (numbers) and *kfuncs* (names)."""

    sections: frozenset[bytes]
    helpers: frozenset[int]
    kfuncs: frozenset[bytes]


def read_code(obj: ElfObject) -> CodeCalls:
    """
    Return the sections and calls in the code of *obj*.

    Raises: ObjectFormatError, if the code breaks a rule of the specification.
    """
    code = {index: section for index, section in enumerate(obj.sections) if _is_code(section)}
    check_total_size(obj, code.values())
    if sum(section.size for section in code.values()) > MAX_CODE_BYTES:
        raise ObjectFormatError(f"more than {MAX_CODE_BYTES} bytes of code")
    if any(len(section.name) > MAX_NAME_BYTES for section in code.values()):
        raise ObjectFormatError("code section: name too long")
    return CodeCalls(
        sections=frozenset(s.name for s in code.values() if s.name != b".text"),
        helpers=frozenset(helper for section in code.values() for helper in _helpers(obj, section)),
        kfuncs=frozenset(_kfuncs(obj, code)),
    )


def _is_code(section: Section) -> bool:
    return section.type == SHT_PROGBITS and bool(section.flags & SHF_EXECINSTR) and section.size > 0


def _helpers(obj: ElfObject, section: Section) -> Iterator[int]:
    code = obj.contents(section)
    if len(code) % SLOT_BYTES:
        raise ObjectFormatError("code section: size is not a multiple of 8 bytes")
    opcodes = code[::SLOT_BYTES]
    slot = opcodes.find(_CALL)
    while slot >= 0:
        at = slot * SLOT_BYTES
        # The two register fields are C bit fields, so their halves of the byte depend on the byte order.
        source = code[at + 1] >> 4 if obj.is_little_endian else code[at + 1] & 0xF
        if source > _LOCAL_CALL:
            raise ObjectFormatError("a call of a kernel function by its number")
        if source == _HELPER_CALL:
            yield struct.unpack_from(f"{obj.order}I", code, at + 4)[0]
        slot = opcodes.find(_CALL, slot + 1)


def _kfuncs(obj: ElfObject, code: dict[int, Section]) -> Iterator[bytes]:
    symbols, names = _symbol_table(obj)
    tables = [section for section in obj.sections if section.type == SHT_REL and section.info in code]
    check_relocation_tables(obj, tables)
    for section in tables:
        target = obj.contents(code[section.info])
        for relocation in obj.relocations(section):
            offset = relocation.offset
            if offset % SLOT_BYTES or offset >= len(target) or relocation.symbol >= len(symbols):
                raise ObjectFormatError("relocation refers to a missing section or symbol")
            symbol = symbols[relocation.symbol]
            if target[offset] == _CALL and symbol.section == 0:
                name = symbol.name_offset
                if name >= len(names):
                    raise ObjectFormatError("a symbol with a name outside the table")
                end = names.find(0, name, name + MAX_NAME_BYTES + 1)
                if end < 0:
                    raise ObjectFormatError("symbol name too long")
                yield names[name:end]


def _symbol_table(obj: ElfObject) -> tuple[tuple[SymbolEntry, ...], bytes]:
    """Return the symbols and the string table that holds their names."""
    found = [section for section in obj.sections if section.type == SHT_SYMTAB]
    if not found:
        return (), b""
    if len(found) > 1 or found[0].link >= len(obj.sections):
        raise ObjectFormatError("not exactly one symbol table with its names")
    linked = obj.sections[found[0].link]
    names = obj.contents(linked)
    if linked.type != SHT_STRTAB or not names.endswith(b"\0"):
        raise ObjectFormatError("symbol table: no string table")
    return obj.symbols(found[0]), names
