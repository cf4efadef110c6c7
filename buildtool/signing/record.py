# SPDX-License-Identifier: Apache-2.0
"""Encode and decode the contents of `.sig` (spec/sig-section.md, section 2)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise

from buildtool.core.errors import ObjectFormatError

MAGIC = b"\x7fBPFSIG\0"
RECORD_VERSION = 1
UNIT_BYTES = 1024
MAX_SECTION_BYTES = 524_288
MAX_STATEMENT_BYTES = 262_144
MAX_SIGNATURES = 16
ROOM_SIGNATURES = 4
KEY_ID_BYTES = 32
SIGNATURE_BYTES = 64

# The record is little-endian in all objects.
_HEADER = struct.Struct("<8sIIII8s")
_ENTRY = struct.Struct(f"{KEY_ID_BYTES}s{SIGNATURE_BYTES}s")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureEntry:
    """A signature: *key_id* (32 bytes) and *signature* (64 bytes, Ed25519)."""

    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureRecord:
    """The contents of `.sig`: *section_size* in bytes, encoded *statement*, *signatures* by key id."""

    section_size: int
    statement: bytes
    signatures: tuple[SignatureEntry, ...]


def section_size_for(statement_bytes: int, signatures: int = 1) -> int:
    """
    Return the size in bytes of the smallest section for *statement_bytes* and four or more *signatures*.

    Raises: ObjectFormatError, if the statement is too large.
    """
    if not 1 <= statement_bytes <= MAX_STATEMENT_BYTES:
        raise ObjectFormatError(
            f"its statement would have {statement_bytes} bytes, more than {MAX_STATEMENT_BYTES}",
            hint="divide its programs among several sources, or compile with fewer flags",
        )
    used = _HEADER.size + statement_bytes + _ENTRY.size * max(signatures, ROOM_SIGNATURES)
    return -(-used // UNIT_BYTES) * UNIT_BYTES


def room_for(record: SignatureRecord) -> int:
    """Return the number of signatures for which the section of *record* has room."""
    return (record.section_size - _HEADER.size - len(record.statement)) // _ENTRY.size


def to_bytes(record: SignatureRecord) -> bytes:
    """Return the contents of `.sig`. *record* must satisfy the rules that `from_bytes` checks."""
    header = _HEADER.pack(
        MAGIC, RECORD_VERSION, record.section_size, len(record.statement), len(record.signatures), bytes(8)
    )
    entries = b"".join(_ENTRY.pack(entry.key_id, entry.signature) for entry in record.signatures)
    return (header + record.statement + entries).ljust(record.section_size, b"\0")


def from_bytes(data: bytes) -> SignatureRecord:
    """
    Return the record in *data*, the whole contents of `.sig`.

    Raises: ObjectFormatError, which names the first broken rule.
    """
    if len(data) < _HEADER.size or data[:8] != MAGIC:
        raise ObjectFormatError("signature record: wrong magic")
    _, version, section_size, statement_size, count, reserved = _HEADER.unpack_from(data)
    if version != RECORD_VERSION:
        raise ObjectFormatError(f"signature record: unknown version {version}")
    if section_size != len(data) or section_size % UNIT_BYTES or section_size > MAX_SECTION_BYTES:
        raise ObjectFormatError("signature record: wrong section size")
    if not 1 <= statement_size <= MAX_STATEMENT_BYTES:
        raise ObjectFormatError("signature record: wrong statement size")
    if not 1 <= count <= MAX_SIGNATURES:
        raise ObjectFormatError("signature record: wrong signature count")
    if any(reserved):
        raise ObjectFormatError("signature record: reserved bytes not zero")
    statement_end = _HEADER.size + statement_size
    end = statement_end + _ENTRY.size * count
    if max(end, statement_end + _ENTRY.size * ROOM_SIGNATURES) > section_size:
        raise ObjectFormatError("signature record: section too small")
    if data.count(0, end) != section_size - end:
        raise ObjectFormatError("signature record: padding not zero")
    entries = tuple(
        SignatureEntry(key_id=key_id, signature=signature)
        for key_id, signature in _ENTRY.iter_unpack(data[statement_end:end])
    )
    # Strictly ascending ids: each signer signs once, and each set of signatures has one encoding.
    if any(first.key_id >= second.key_id for first, second in pairwise(entries)):
        raise ObjectFormatError("signature record: key ids not ascending")
    return SignatureRecord(
        section_size=section_size, statement=data[_HEADER.size : statement_end], signatures=entries
    )
