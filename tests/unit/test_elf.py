# SPDX-License-Identifier: Apache-2.0
"""The object profile and the writer: second tools read what we write, and no bytes break the reader."""

from __future__ import annotations

import hashlib
import random
import struct
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from labs.readelf import read_with_llvm
from labs.sig import sign, unsigned, vector
from labs.vectors.builder import build
from labs.vectors.code import KFUNC, makes, relocated

from buildtool.core.errors import ObjectFormatError
from buildtool.image.inspect import inspect_object
from buildtool.objects import elf as elfobj
from buildtool.objects.describe import describe_object


@pytest.mark.tools
@pytest.mark.parametrize("name", ["unsigned", "unsigned-big-endian"])
def test_llvm_reads_what_the_writer_wrote(tmp_path: Path, name: str) -> None:
    """All sections are as before, and one more."""
    obj = elfobj.parse_object(vector(name))
    data, offset = elfobj.append_signature_section(obj, 2048)
    (tmp_path / "x.o").write_bytes(data)
    seen = read_with_llvm(tmp_path / "x.o")
    sig = seen.sections[-1]
    assert (sig.name, sig.type, sig.offset, sig.size) == (".sig", "PROGBITS", offset, 2048)
    assert data[offset : offset + 2048] == bytes(2048)
    assert len(seen.sections) == len(obj.sections) + 1
    for section in obj.sections[1:]:
        found = seen.section(section.name.decode())
        if section.name != b".strtab":
            assert data[found.offset : found.offset + found.size] == obj.contents(section)
    table = int(seen.header["Start of section headers"].split()[0])
    assert table % 8 == 0
    assert len(data) == table + 64 * len(seen.sections)


def test_writer_is_deterministic_and_removal_gives_the_same_file_again() -> None:
    """Sign, remove, sign: the same bytes."""
    first, _ = elfobj.append_signature_section(elfobj.parse_object(unsigned()), 1024)
    again = elfobj.remove_signature_section(elfobj.parse_object(first))
    assert elfobj.append_signature_section(again, 1024)[0] == first


def test_section_of_another_tool_is_not_removed() -> None:
    """A `.sig` of another tool, whose removal would renumber sections, is an error with a hint."""
    obj = elfobj.parse_object(vector("plain"))
    with pytest.raises(ObjectFormatError, match="another tool"):
        elfobj.remove_signature_section(obj)


def test_subject_digest_is_that_of_the_blank_file() -> None:
    """The contents of `.sig` count as zero bytes."""
    obj = elfobj.parse_object(sign())
    section = elfobj.find_signature_section(obj)
    blank = elfobj.blank_section(obj, section)
    assert len(blank) == len(obj.data)
    assert hashlib.sha256(blank).hexdigest() == elfobj.subject_digest(obj, section)


def test_object_that_would_be_too_large_is_refused() -> None:
    """A signed file keeps the limit of 64 MiB."""
    data = unsigned()
    obj = elfobj.parse_object(data)
    with pytest.raises(ObjectFormatError, match="larger than 67108864"):
        elfobj.append_signature_section(obj, elfobj.MAX_OBJECT_BYTES)


def _mutate(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[rng.randrange(len(changed))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    if rng.random() < 0.2:
        del changed[rng.randrange(len(changed)) :]
    return bytes(changed)


@pytest.mark.parametrize("name", ["all-members", "big-endian", "unsigned", "elf-empty"])
def test_any_bytes_give_a_value_or_one_kind_of_error(name: str) -> None:
    """No exception of struct, of pyelftools or of the interpreter leaks."""
    rng = random.Random(name)  # noqa: S311 - the same bytes in every run
    data = vector(name) or b"\x7fELF"
    for _ in range(1500):
        mutant = _mutate(data, rng)
        try:
            obj = elfobj.parse_object(mutant)
            describe_object(obj)
            inspect_object("x", mutant)
        except ObjectFormatError:
            continue


def _object(entries: Sequence[tuple[int, ...]], body: bytes) -> bytes:
    """Return an object of *entries* (name, type, flags, offset in *body*, size, link, info, entsize)."""
    count = len(entries) + 1
    start = 64 + 64 * count
    head = struct.pack(
        "<4sBBB9xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 1, 247, 1, 0, 0, 64, 0, 64, 0, 0, 64, count, 1
    )
    table = bytes(64) + b"".join(
        struct.pack("<IIQQQQIIQQ", name, kind, flags, 0, start + offset, size, link, info, 1, entsize)
        for name, kind, flags, offset, size, link, info, entsize in entries
    )
    return head + table + body


def test_sections_that_share_a_long_name_are_not_many_copies() -> None:
    """A file of 1 MB stays one of a few MB in memory; names are cut where the limit is passed."""
    names = b"\0" + b"A" * 500_000 + b"\0"
    data = _object([(1, 3, 0, 0, len(names), 0, 0, 0), *[(2, 0, 0, 0, 0, 0, 0, 0)] * 8000], names)
    tracemalloc.start()
    try:
        obj = elfobj.parse_object(data)
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()
    assert {len(section.name) for section in obj.sections} == {0, 513}


@pytest.mark.parametrize(("tables", "fits"), [(1, True), (2, False), (300, False)])
def test_relocation_tables_upon_each_other_are_not_read(tables: int, *, fits: bool) -> None:
    """Relocation tables together must not exceed the file's size: a small file could take hours."""
    size = 16 * 10_000
    entries = [(0, 3, 0, 0, 1, 0, 0, 0)]
    for number in range(tables):
        entries += [(0, 1, 4, 0, 0, 0, 0, 0), (0, 9, 0, 1, size, 0, 2 + 2 * number, 16)]
    obj = elfobj.parse_object(_object(entries, bytes(1 + size)))
    tracemalloc.start()
    try:
        if fits:
            assert [len(table) for table in elfobj.read_link_tables(obj).relocations.values()] == [10_000]
        else:
            with pytest.raises(ObjectFormatError, match="sections that overlap"):
                elfobj.read_link_tables(obj)
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_each_table_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each table is read once, because several callers need it and pyelftools is slow."""
    obj = elfobj.parse_object(build(makes(*relocated(KFUNC))))
    read = {"read_symbols": 0, "read_relocations": 0}

    def count(name: str) -> Callable[..., object]:
        original = getattr(elfobj, name)

        def reader(*arguments: object, **options: object) -> object:
            read[name] += 1
            return original(*arguments, **options)

        return reader

    for name in read:
        monkeypatch.setattr(elfobj, name, count(name))
    assert describe_object(obj).kfuncs == ("bpf_a",)
    assert len(elfobj.read_link_tables(obj).symbols) == 4
    assert read == {"read_symbols": 1, "read_relocations": 1}
