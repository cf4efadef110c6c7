# SPDX-License-Identifier: Apache-2.0
"""The object profile and the writer: second tools read what we write, and no bytes break the reader."""

from __future__ import annotations

import hashlib
import random
import struct
import tracemalloc
from io import BytesIO

import pytest
from elftools.elf.elffile import ELFFile
from labs.sig import sign, unsigned, vector

from buildtool.core.errors import ObjectFormatError
from buildtool.image.inspect import inspect_object
from buildtool.objects import elf as elfobj
from buildtool.objects.describe import describe_object


@pytest.mark.parametrize("name", ["unsigned", "unsigned-big-endian"])
def test_pyelftools_reads_what_the_writer_wrote(name: str) -> None:
    """All sections are as before, and one more."""
    obj = elfobj.parse_object(vector(name))
    data, offset = elfobj.append_signature_section(obj, 2048)
    file = ELFFile(BytesIO(data))
    names = [section.name for section in file.iter_sections()]
    assert names[-1] == ".sig"
    sig = file.get_section_by_name(".sig")
    assert (sig["sh_offset"], sig["sh_size"], sig["sh_type"]) == (offset, 2048, "SHT_PROGBITS")
    assert sig.data() == bytes(2048)
    for section in obj.sections[1:]:
        if section.name != b".strtab":
            assert file.get_section_by_name(section.name.decode()).data() == obj.contents(section)
    assert file.header["e_shoff"] % 8 == 0
    assert len(data) == file.header["e_shoff"] + 64 * len(names)


def test_writer_is_deterministic_and_removal_gives_the_same_file_again() -> None:
    """Sign, remove, sign: the same bytes."""
    first, _ = elfobj.append_signature_section(elfobj.parse_object(unsigned()), 1024)
    again = elfobj.remove_signature_section(elfobj.parse_object(first))
    assert elfobj.append_signature_section(again, 1024)[0] == first


def test_section_of_another_tool_is_not_removed() -> None:
    """Where entries would have to be renumbered, the user is told what to do."""
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
    """A signed file keeps the limit of 16 MiB."""
    data = unsigned()
    obj = elfobj.parse_object(data)
    with pytest.raises(ObjectFormatError, match="larger than 16777216"):
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
    """Nothing of struct, pyelftools or the interpreter leaks."""
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


def test_sections_that_share_a_long_name_are_not_many_copies() -> None:
    """A file of 1 MB stays one of a few MB in memory; names are cut where the limit is passed."""
    names = b"\0" + b"A" * 500_000 + b"\0"
    count = 8000
    head = struct.pack(
        "<4sBBB9xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 1, 247, 1, 0, 0, 64, 0, 64, 0, 0, 64, count, 1
    )
    table = bytes(64) + struct.pack("<IIQQQQIIQQ", 1, 3, 0, 0, 64 + 64 * count, len(names), 0, 0, 1, 0)
    table += struct.pack("<IIQQQQIIQQ", 2, 0, 0, 0, 0, 0, 0, 0, 0, 0) * (count - 2)
    tracemalloc.start()
    try:
        obj = elfobj.parse_object(head + table + names)
        assert tracemalloc.get_traced_memory()[1] < 40_000_000
    finally:
        tracemalloc.stop()
    assert {len(section.name) for section in obj.sections} == {0, 513}
