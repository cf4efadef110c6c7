# SPDX-License-Identifier: Apache-2.0
"""
Build signed objects for the vectors from scratch, valid and invalid ones.

The module shares only point arithmetic with the product, so that a mistake in the product's writer is not
repeated. Everything is deterministic.
"""

from __future__ import annotations

import hashlib
import json
import struct
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

DER_PREFIX = bytes.fromhex("302a300506032b6570032100")
MAGIC = b"\x7fBPFSIG\0"
PAYLOAD_TYPE = b"application/vnd.in-toto+json"
SHT_PROGBITS, SHT_STRTAB, SHT_NOBITS = 1, 3, 8

Edit = Callable[[bytearray], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """A TEST KEY. Its seed is the hash of its name, so it is public."""

    name: str

    @property
    def private(self) -> Ed25519PrivateKey:
        """The private key."""
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    @property
    def seed(self) -> bytes:
        """The 32 bytes of the key's seed."""
        return hashlib.sha256(f"buildtool TEST KEY {self.name}, never trust it".encode()).digest()

    @property
    def raw(self) -> bytes:
        """The public key."""
        return self.private.public_key().public_bytes_raw()

    @property
    def key_id(self) -> bytes:
        """SHA-256 of the SubjectPublicKeyInfo."""
        return key_id(self.raw)

    @property
    def pem(self) -> str:
        """The private key file."""
        return self.private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()


ALICE, BOB, CAROL, MALLORY = (Signer(name=name) for name in ("alice", "bob", "carol", "mallory"))


def key_id(raw: bytes) -> bytes:
    """Return the key id of public key *raw*."""
    return hashlib.sha256(DER_PREFIX + raw).digest()


def pub(raw: bytes) -> str:
    """Return the .pub file of public key *raw*."""
    body = b64encode(DER_PREFIX + raw).decode()
    return f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n"


def pae(statement: bytes, kind: bytes = PAYLOAD_TYPE) -> bytes:
    """Return the DSSE pre-authentication encoding."""
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(statement), statement)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A section of a file under construction, with index 1 or higher. *fields* replace those of its entry."""

    name: bytes
    data: bytes
    type: int = SHT_PROGBITS
    flags: int = 0
    fields: dict[str, int] = field(default_factory=dict)


CODE = Part(name=b"xdp", data=bytes.fromhex("b700000002000000 9500000000000000"), flags=6)
LICENSE = Part(name=b"license", data=b"GPL\0", flags=3)
_FIELDS = ("name", "type", "flags", "addr", "offset", "size", "link", "info", "align", "entsize")


def statement(**changes: Any) -> dict[str, Any]:
    """Return a small statement without its digest. *changes* replace or (None) remove members."""
    predicate: dict[str, Any] = {
        "platform": "linux/amd64",
        "project": "demo",
        "version": 3,
        "release": "1.0",
        "created": "2026-01-01T00:00:00Z",
        "programs": [],
        "maps": [],
        "helpers": [],
        "kfuncs": [],
        "license": "GPL",
    }
    predicate.update(changes)
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "x.bpf.o", "digest": {"sha256": "DIGEST"}}],
        "predicateType": "urn:buildtool:ebpf-object:v1",
        "predicate": {key: value for key, value in predicate.items() if value is not None},
    }


def encode(value: Any) -> bytes:
    """Return the writers' encoding of *value*."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """
    The recipe of an object.

    The file is made with a blank `.sig`, edited by *shape*, hashed and signed, so only its shape is wrong.
    *record* edits the contents of `.sig`, and *late* the finished file.
    """

    order: str = "<"
    parts: Sequence[Part] = (CODE, LICENSE)
    sig: Part | None = Part(name=b".sig", data=b"")
    sig_size: int = 1024
    pad: int = 8
    shape: Edit | None = None
    text: Callable[[bytes], bytes] | None = None
    statement: dict[str, Any] = field(default_factory=statement)
    signers: Sequence[Signer] = (ALICE,)
    entries: Callable[[bytes], list[tuple[bytes, bytes]]] | None = None
    record: Edit | None = None
    late: Edit | None = None


def build(recipe: Recipe) -> bytes:
    """Return the file of *recipe*."""
    data, sig_offset = _layout(recipe)
    if recipe.shape:
        recipe.shape(data)
    if recipe.sig is not None:
        digest = hashlib.sha256(data).hexdigest()
        text = encode(recipe.statement).replace(b'"DIGEST"', f'"{digest}"'.encode())
        text = recipe.text(text) if recipe.text else text
        record = bytearray(_record(recipe, text))
        if recipe.record:
            recipe.record(record)
        data[sig_offset : sig_offset + len(record)] = record
    if recipe.late:
        recipe.late(data)
    return bytes(data)


def sign(text: bytes, signers: Sequence[Signer]) -> list[tuple[bytes, bytes]]:
    """Return the entries of *signers* over *text*, in order of their key ids."""
    return sorted((signer.key_id, signer.private.sign(pae(text))) for signer in signers)


def _record(recipe: Recipe, text: bytes) -> bytes:
    entries = recipe.entries(text) if recipe.entries else sign(text, recipe.signers)
    head = struct.pack("<8sIIIIQ", MAGIC, 1, recipe.sig_size, len(text), len(entries), 0)
    record = head + text + b"".join(a + b for a, b in entries)
    assert len(record) <= recipe.sig_size, "the vector needs a larger section"
    return record.ljust(recipe.sig_size, b"\0")


def _layout(recipe: Recipe) -> tuple[bytearray, int]:
    """Return header, sections and table with a blank `.sig`, and the offset of `.sig`."""
    parts = list(recipe.parts)
    if recipe.sig is not None:
        sig = recipe.sig
        parts.append(Part(name=sig.name, data=bytes(recipe.sig_size), type=sig.type, fields=sig.fields))
    names = b"\0" + b"".join(part.name + b"\0" for part in [*parts, Part(name=b".strtab", data=b"")])
    parts.append(Part(name=b".strtab", data=names, type=SHT_STRTAB))
    data, table, sig_offset = bytearray(64), bytearray(64), 0
    for part in parts:
        data += bytes(-len(data) % recipe.pad)
        entry = dict.fromkeys(_FIELDS, 0) | {"align": 1, "type": part.type, "flags": part.flags}
        entry |= {"name": names.index(b"\0" + part.name + b"\0") + 1, "offset": len(data)}
        entry |= {"size": len(part.data)} | part.fields
        sig_offset = len(data) if recipe.sig is not None and part.name == recipe.sig.name else sig_offset
        data += part.data
        table += struct.pack(f"{recipe.order}IIQQQQIIQQ", *(entry[name] for name in _FIELDS))
    data += bytes(-len(data) % 8)
    ident = b"\x7fELF" + bytes((2, 1 if recipe.order == "<" else 2, 1)) + bytes(9)
    count = len(parts) + 1
    head = (1, 247, 1, 0, 0, len(data), 0, 64, 0, 0, 64, count, count - 1)
    data[:64] = struct.pack(f"{recipe.order}16sHHIQQQIHHHHHH", ident, *head)
    return data + table, sig_offset
