# SPDX-License-Identifier: Apache-2.0
"""Read section `.BTF.ext` (kernel documentation, bpf/btf.rst): lines of C, and the use of CO-RE."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from buildtool.check.model import SourceLine
from buildtool.core.errors import ObjectFormatError
from buildtool.objects.btf import Btf
from buildtool.objects.elf import ElfObject

_MAGIC = 0xEB9F
_HEADER_BYTES = 24  # without the two optional words of CO-RE
_LINE_RECORD_BYTES = 16
_LINE_SHIFT = 10  # line and column share a word


@dataclass(frozen=True, slots=True, kw_only=True)
class LineInfo:
    """*lines* of C by ELF section. *has_relocations* is true if the object has CO-RE relocations."""

    has_relocations: bool = False
    lines: dict[str, tuple[SourceLine, ...]] = field(default_factory=dict)

    def locate(self, section: str, source: SourceLine) -> SourceLine:
        """
        Return *source* with file and line, if exactly one line of the object has its text.

        A kernel that reports the file reports only the last part of its path.
        """
        here = (*self.lines.get(section, ()), *self.lines.get(".text", ()))
        same = [known for known in here if known.text == source.text and source.line in (0, known.line)]
        places = {(known.file, known.line) for known in same}
        if len(places) != 1:
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
        lines = dict(_sections(data[header + at : header + at + size], btf, obj.order))
    except struct.error as error:
        raise ObjectFormatError("damaged BTF.ext") from error
    return LineInfo(has_relocations=has_relocations, lines=lines)


def _sections(data: bytes, btf: Btf, order: str) -> Iterator[tuple[str, tuple[SourceLine, ...]]]:
    if not data:
        return
    record = struct.unpack_from(f"{order}I", data)[0]
    if record < _LINE_RECORD_BYTES:
        raise ObjectFormatError("damaged BTF.ext")
    at = 4
    while at < len(data):
        name, count = struct.unpack_from(f"{order}II", data, at)
        at += 8
        yield btf.text(name), tuple(_line(data, at + i * record, btf, order) for i in range(count))
        at += count * record


def _line(data: bytes, at: int, btf: Btf, order: str) -> SourceLine:
    _, file, text, position = struct.unpack_from(f"{order}IIII", data, at)
    return SourceLine(
        file=btf.text(file).removeprefix("./"), line=position >> _LINE_SHIFT, text=btf.text(text).strip()
    )
