# SPDX-License-Identifier: Apache-2.0
"""Read objects with llvm-readelf, which shares no code with the product."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from labs.compile import find_tool


def read_elf(path: Path, *options: str) -> str:
    """Return the output of binutils' readelf for the file *path*."""
    return subprocess.run(["readelf", *options, path], capture_output=True, text=True, check=True).stdout


class SeenSection(NamedTuple):
    """A line of readelf's table of sections."""

    index: int
    name: str
    type: str
    offset: int
    size: int
    info: int


class SeenSymbol(NamedTuple):
    """A line of readelf's table of symbols; *section* is a number or a word such as UND."""

    name: str
    value: int
    type: str
    binding: str
    section: str


class Seen(NamedTuple):
    """An object in readelf's output. *relocations* are offset, symbol and type, by the name of the table."""

    header: dict[str, str]
    sections: list[SeenSection]
    symbols: list[SeenSymbol]
    relocations: dict[str, list[tuple[int, int, int]]]

    def section(self, name: str) -> SeenSection:
        """Return the only section called *name*."""
        (found,) = [section for section in self.sections if section.name == name]
        return found


_SECTION = re.compile(
    r"^ +\[ *(\d+)\] (\S*) +([A-Z]\w+) +[0-9a-f]{16} ([0-9a-f]+) ([0-9a-f]+) [0-9a-f]+ +[A-Za-z]*"
    r" +\d+ +(\d+) +\d+$",
    re.MULTILINE,
)
_SYMBOL = re.compile(r"^ +\d+: ([0-9a-f]{16}) +\d+ (\w+) +(\w+) +\w+ +(\w+) ?(.*)$", re.MULTILINE)
_TABLE = re.compile(r"^Relocation section '(.*)' at offset .*\n.*\n((?:[0-9a-f]{16} .*\n)*)", re.MULTILINE)
_RELOCATION = re.compile(r"^([0-9a-f]{16}) +([0-9a-f]{8})([0-9a-f]{8}) ", re.MULTILINE)


def read_with_llvm(path: Path) -> Seen:
    """Return the output of llvm-readelf for object *path*, which must cause no warning."""
    readelf = find_tool("llvm-readelf", "llvm-readelf-22", "llvm-readelf-19")
    argv = [readelf, "--file-header", "--sections", "--symbols", "--relocs", "--wide", path]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    text = done.stdout
    return Seen(
        header=dict(re.findall(r"^  ([A-Z][^:]*):\s+(.*)$", text, re.MULTILINE)),
        sections=[
            SeenSection(int(index), name, kind, int(offset, 16), int(size, 16), int(info))
            for index, name, kind, offset, size, info in _SECTION.findall(text)
        ],
        symbols=[
            SeenSymbol(name, int(value, 16), kind, binding, section)
            for value, kind, binding, section, name in _SYMBOL.findall(text)
        ],
        relocations={
            name: [
                (int(offset, 16), int(symbol, 16), int(kind, 16))
                for offset, symbol, kind in _RELOCATION.findall(lines)
            ]
            for name, lines in _TABLE.findall(text)
        },
    )
