# SPDX-License-Identifier: Apache-2.0
"""
Reads tables of a static libbpf without running it: its section names, with the type of each.

libbpf has no interface that lists them. The tables are arrays of structs in libbpf.o, whose pointers are
relocations (libbpf.c: section_defs, prog_type_name).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from elftools.elf.elffile import ELFFile

_MEMBER_HEAD = 60
_SECTION_BYTES = 56  # struct bpf_sec_def on 64-bit machines: a pointer, two enums, and five words
_TYPE_AT, _ATTACH_AT = 8, 12


def find_archive(sysroot: Path) -> Path:
    """Return libbpf.a in *sysroot*."""
    (found,) = sysroot.glob("usr/lib/*/libbpf.a")
    return found


def read_sections(archive: Path) -> dict[str, tuple[str, int]]:
    """Return libbpf's type and expected attach type of each section name. `+` stands for `/` and a target."""
    elf = ELFFile(io.BytesIO(_member(archive, "libbpf.o")))
    types = [text for text, _ in _table(elf, "prog_type_name", 8)]
    order = "little" if elf.little_endian else "big"
    found = {}
    for name, row in _table(elf, "section_defs", _SECTION_BYTES):
        kind, attach = (
            int.from_bytes(row[at : at + 4], order)  # type: ignore[arg-type]
            for at in (_TYPE_AT, _ATTACH_AT)
        )
        found[name] = (types[kind], attach)
    return found


def _table(elf: ELFFile, name: str, size: int) -> Iterator[tuple[str, bytes]]:
    """Yield the text of the pointer at the beginning of each row of array *name*, and the row."""
    symbols = elf.get_section_by_name(".symtab")
    (symbol,) = symbols.get_symbol_by_name(name)
    home = elf.get_section(symbol["st_shndx"])
    (relocations,) = (s for s in elf.iter_sections("SHT_RELA") if s["sh_info"] == symbol["st_shndx"])
    pointers = {
        r["r_offset"]: (symbols.get_symbol(r["r_info_sym"]), r["r_addend"])
        for r in relocations.iter_relocations()
    }
    start, end = symbol["st_value"], symbol["st_value"] + symbol["st_size"]
    assert (end - start) % size == 0
    for at in range(start, end, size):
        target, addend = pointers[at]
        text = elf.get_section(target["st_shndx"]).data()[target["st_value"] + addend :]
        yield text.partition(b"\0")[0].decode(), home.data()[at : at + size]


def _member(archive: Path, wanted: str) -> bytes:
    """Return the member *wanted* of *archive* (ar)."""
    data, at = archive.read_bytes(), 8
    while at < len(data):
        head = data[at : at + _MEMBER_HEAD]
        size = int(head[48:58])
        if head[:16].rstrip() == f"{wanted}/".encode():
            return data[at + _MEMBER_HEAD : at + _MEMBER_HEAD + size]
        at += _MEMBER_HEAD + size + size % 2
    raise AssertionError(f"{archive}: no {wanted}")
