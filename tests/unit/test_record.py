# SPDX-License-Identifier: Apache-2.0
"""The signature record's codec; its refusals are vectors."""

from __future__ import annotations

import pytest

from buildtool.core.errors import ObjectFormatError
from buildtool.signing import record as sigrecord
from buildtool.signing.record import SignatureEntry, SignatureRecord


def make_record(statement: int, signatures: int) -> SignatureRecord:
    """Make a record of that size."""
    entries = tuple(
        SignatureEntry(key_id=bytes([number]) * 32, signature=bytes([255 - number]) * 64)
        for number in range(signatures)
    )
    size = sigrecord.section_size_for(statement, signatures)
    return SignatureRecord(section_size=size, statement=b"s" * statement, signatures=entries)


@pytest.mark.parametrize("statement", [1, 607, 608, 609, 262_144])
@pytest.mark.parametrize("signatures", [1, 4, 16])
def test_what_is_written_is_read_back(statement: int, signatures: int) -> None:
    """Encoding and decoding are inverse."""
    record = make_record(statement, signatures)
    data = sigrecord.to_bytes(record)
    assert len(data) == record.section_size
    assert sigrecord.from_bytes(data) == record
    assert sigrecord.to_bytes(sigrecord.from_bytes(data)) == data


@pytest.mark.parametrize(("statement", "size"), [(1, 1024), (608, 1024), (609, 2048), (262_144, 263_168)])
def test_section_has_room_for_four_signatures_and_no_more_units(statement: int, size: int) -> None:
    """The smallest multiple of 1024 with room for four."""
    assert sigrecord.section_size_for(statement) == size


def test_statement_over_the_limit_is_an_error() -> None:
    """Nothing is signed that no verifier would read."""
    with pytest.raises(ObjectFormatError, match="262145 bytes"):
        sigrecord.section_size_for(262_145)


def test_section_over_the_limit_is_malformed() -> None:
    """128 KiB is the largest section."""
    data = bytearray(sigrecord.to_bytes(make_record(1, 1)).ljust(524_288 + 1024, b"\0"))
    data[12:16] = len(data).to_bytes(4, "little")
    with pytest.raises(ObjectFormatError, match="wrong section size"):
        sigrecord.from_bytes(bytes(data))
    largest = bytes(data[:524_288])
    largest = largest[:12] + len(largest).to_bytes(4, "little") + largest[16:]
    assert sigrecord.from_bytes(largest).section_size == 524_288
