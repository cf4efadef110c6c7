# SPDX-License-Identifier: Apache-2.0
"""
Compiles the loader's libbpf, and reads tables of it without running it: section names, with the type of each.

libbpf has no interface that lists them. The tables are arrays of structs, whose pointers are relocations
(libbpf.c: section_defs, prog_type_name).
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from elftools.elf.elffile import ELFFile

from buildtool.runtime.carried import LIBBPF_FROM, libbpf_digest
from labs import TOP

_SECTION_BYTES = 56  # struct bpf_sec_def on 64-bit machines: a pointer, two enums, and five words
_TYPE_AT, _ATTACH_AT = 8, 12


def compile_libbpf(clang: Path, *options: str) -> Path:
    """Return the loader's libbpf as one object file. *options* are those of the target."""
    clang_said = subprocess.run([clang, "--version"], capture_output=True, check=True).stdout
    recipe = repr((libbpf_digest(), clang_said, options)).encode()
    output = TOP / ".cache/loader" / f"libbpf-{hashlib.sha256(recipe).hexdigest()[:16]}.o"
    if not output.exists():
        output.parent.mkdir(parents=True, exist_ok=True)
        aside = output.with_suffix(f".{os.getpid()}")  # another process of the run may compile it, too
        argv = [clang, *(option for option in options if option != "-static-pie"), *LIBBPF_FROM]
        subprocess.run([*argv, "-o", aside], cwd=TOP / "loader", check=True)
        aside.rename(output)
    return output


def read_sections(libbpf: Path) -> dict[str, tuple[str, int]]:
    """Return libbpf's type and expected attach type of each section name. `+` stands for `/` and a target."""
    elf = ELFFile(io.BytesIO(libbpf.read_bytes()))
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
