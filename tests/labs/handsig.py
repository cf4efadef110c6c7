# SPDX-License-Identifier: Apache-2.0
"""
A signer for the loader's tests, written from spec/sig-section.md and independent of the product's.

The product would never make some of its files: wrong statements, forged keys, records of any count.
"""

from __future__ import annotations

import hashlib
import json
import struct
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

PAYLOAD_TYPE = b"application/vnd.in-toto+json"
SECTION = {order: struct.Struct(order + "IIQQQQIIQQ") for order in "<>"}
STRTAB, NOBITS = 3, 8


@dataclass(frozen=True)
class Key:
    """An Ed25519 key pair."""

    private: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def der(self) -> bytes:
        """DER SubjectPublicKeyInfo."""
        return self.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @property
    def pem(self) -> bytes:
        """PEM SubjectPublicKeyInfo."""
        return self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def id(self) -> bytes:
        """Key id of section 5."""
        return hashlib.sha256(self.der).digest()


def append_section(obj: bytes, contents: bytes) -> tuple[bytes, int]:
    """Return *obj* with a section `.sig` of *contents*, and where that begins (section 9)."""
    order = "<" if obj[5] == 1 else ">"
    (shoff,) = struct.unpack_from(f"{order}Q", obj, 40)
    shnum, shstrndx = struct.unpack_from(f"{order}HH", obj, 60)
    sections = [list(SECTION[order].unpack_from(obj, shoff + 64 * i)) for i in range(shnum)]
    ends = [s[4] + s[5] for i, s in enumerate(sections) if i != shstrndx and s[1] not in (0, NOBITS)]
    names = obj[sections[shstrndx][4] :][: sections[shstrndx][5]]
    out = bytearray(obj[: max([64, *ends])])
    sections[shstrndx][4], sections[shstrndx][5] = len(out), len(names) + 5
    out += names + b".sig\0"
    out += bytes(-len(out) % 8)
    start = len(out)
    sections.append([len(names), 1, 0, 0, start, len(contents), 0, 0, 8, 0])
    out += contents
    out += bytes(-len(out) % 8)
    struct.pack_into(f"{order}Q", out, 40, len(out))
    struct.pack_into(f"{order}H", out, 60, shnum + 1)
    return bytes(out) + b"".join(SECTION[order].pack(*s) for s in sections), start


def make_statement(name: str, digest: str, **changes: Any) -> bytes:
    """Return a statement of section 6; *changes* replace members of its predicate (None removes)."""
    predicate: dict[str, Any] = {
        "platform": "linux/amd64",
        "project": "tests",
        "version": 1,
        "release": "1.0",
        "created": "2026-01-01T00:00:00Z",
        "programs": [],
        "maps": [],
        "helpers": [],
        "kfuncs": [],
        "license": "GPL",
    }
    predicate.update(changes)
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": digest}}],
        "predicateType": "urn:buildtool:ebpf-object:v1",
        "predicate": {k: v for k, v in predicate.items() if v is not None},
    }
    return json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()


def encode_record(statement: bytes, keys: Sequence[Key], size: int) -> bytes:
    """Return the signature record of section 2, signed by *keys*."""
    lengths = (len(PAYLOAD_TYPE), PAYLOAD_TYPE, len(statement), statement)
    signing_input = b"DSSEv1 %d %b %d %b" % lengths
    head = b"\x7fBPFSIG\0" + struct.pack("<IIII", 1, size, len(statement), len(keys)) + bytes(8)
    entries = b"".join(k.id + k.private.sign(signing_input) for k in sorted(keys, key=lambda k: k.id))
    return (head + statement + entries).ljust(size, b"\0")


def sign(obj: bytes, keys: Sequence[Key], *, name: str = "test.bpf.o", **changes: Any) -> bytes:
    """Return *obj* signed by *keys*; *changes* as for `make_statement`."""
    draft = make_statement(name, "0" * 64, **changes)
    size = -(-(32 + len(draft) + 4 * 96) // 1024) * 1024
    signed, start = append_section(obj, bytes(size))
    statement = make_statement(name, hashlib.sha256(signed).hexdigest(), **changes)
    return signed[:start] + encode_record(statement, keys, size) + signed[start + size :]


def policy(*keys: Key | tuple[Key, dict[str, Any]], threshold: int = 1, **members: Any) -> str:
    """Return a trust policy of *keys*, each perhaps with more members of its entry."""
    entries = []
    for item in keys:
        key, extra = item if isinstance(item, tuple) else (item, {})
        entries.append({"name": "test", "publicKey": b64encode(key.der).decode(), **extra})
    return json.dumps({"policyVersion": 1, "threshold": threshold, "keys": entries, **members})
