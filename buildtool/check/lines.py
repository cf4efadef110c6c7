# SPDX-License-Identifier: Apache-2.0
"""Read section `.BTF.ext` (kernel documentation, bpf/btf.rst): lines of C, and the use of CO-RE."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import NamedTuple

from buildtool.check.model import SourceLine
from buildtool.core.errors import ObjectFormatError
from buildtool.objects.btf import Btf
from buildtool.objects.elf import MAX_CODE_BYTES, MAX_SECTIONS, ElfObject

_MAGIC = 0xEB9F
_HEADER_BYTES = 24  # without the two optional words of CO-RE
_LINE_RECORD_BYTES = 16
_LINE_SHIFT = 10  # line and column share a word
_MAX_LINES = MAX_CODE_BYTES // 8  # one for each instruction


class _Lines(NamedTuple):
    """The records of one ELF section's lines: where in `.BTF.ext`, the size of one, and how many."""

    at: int
    size: int
    records: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LineInfo:
    """
    Lines of C by ELF section. *has_relocations* is true if the object has CO-RE relocations.

    Lines are decoded when one is searched: many records can share one long text, so that all decoded lines of
    a small file could fill the memory.
    """

    has_relocations: bool = False
    _records: dict[str, list[_Lines]] = field(default_factory=dict)
    _data: bytes = b""
    _btf: Btf | None = None

    def lines(self, section: str) -> Iterator[SourceLine]:
        """
        Yield the lines of ELF *section*.

        Raises: ObjectFormatError.
        """
        for found in self._records.get(section, ()):
            for i in range(found.records):
                assert self._btf is not None
                yield _line(self._data, found.at + i * found.size, self._btf)

    def locate(self, section: str, source: SourceLine) -> SourceLine:
        """
        Return *source* with file and line, if exactly one line of the object has its text.

        A kernel that reports the file reports only the last part of its path.
        """
        places: set[tuple[str, int]] = set()
        try:
            for known in chain(self.lines(section), self.lines(".text")):
                if known.text == source.text and source.line in (0, known.line):
                    places.add((known.file, known.line))
                if len(places) > 1:
                    return source
        except ObjectFormatError:
            return source
        if not places:
            return source
        file, line = places.pop()
        return replace(source, file=file, line=line)


def read_line_info(obj: ElfObject) -> LineInfo:
    """
    Return the lines in `.BTF.ext` of *obj*, or none without this section.

    Raises: ObjectFormatError.
    """
    wanted = (b".BTF", b".BTF.ext")
    found = {section.name: obj.contents(section) for section in obj.sections if section.name in wanted}
    data = found.get(b".BTF.ext", b"")
    if not data:
        return LineInfo()
    try:
        magic, _, _, header, _, _, at, size = struct.unpack_from(f"{obj.order}HBBIIIII", data)
        if magic != _MAGIC:
            raise ObjectFormatError("BTF.ext of an unknown kind")
        relocations = struct.unpack_from(f"{obj.order}I", data, _HEADER_BYTES + 4)[0] if header >= 32 else 0
        # The first four bytes hold the size of a record, so four bytes contain no record.
        has_relocations = relocations > 4
        if b".BTF" not in found:
            return LineInfo(has_relocations=has_relocations)
        btf = Btf(found[b".BTF"], obj.order)
        block = data[header + at : header + at + size]
        records = _sections(block, btf, obj.order)
    except struct.error as error:
        raise ObjectFormatError("damaged BTF.ext") from error
    return LineInfo(has_relocations=has_relocations, _records=records, _data=block, _btf=btf)


def _sections(data: bytes, btf: Btf, order: str) -> dict[str, list[_Lines]]:
    found: dict[str, list[_Lines]] = {}
    if not data:
        return found
    record = struct.unpack_from(f"{order}I", data)[0]
    if record < _LINE_RECORD_BYTES:
        raise ObjectFormatError("damaged BTF.ext")
    at, lines, groups = 4, 0, 0
    while at < len(data):
        name, count = struct.unpack_from(f"{order}II", data, at)
        at += 8
        end, lines = at + count * record, lines + count
        groups += 1
        if end > len(data) or lines > _MAX_LINES or groups > MAX_SECTIONS:
            raise ObjectFormatError("damaged BTF.ext")
        section = btf.name(name).decode("utf-8", "replace")
        found.setdefault(section, []).append(_Lines(at, record, count))
        at = end
    return found


def _line(data: bytes, at: int, btf: Btf) -> SourceLine:
    _, file, text, position = struct.unpack_from(f"{btf.order}IIII", data, at)
    return SourceLine(
        file=btf.text(file).removeprefix("./"), line=position >> _LINE_SHIFT, text=btf.text(text).strip()
    )
