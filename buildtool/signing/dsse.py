# SPDX-License-Identifier: Apache-2.0
"""DSSE: the signed bytes, and the envelope for other tools (spec/sig-section.md, section 4)."""

from __future__ import annotations

import json
from base64 import b64encode

from buildtool.signing.record import SignatureRecord

PAYLOAD_TYPE = "application/vnd.in-toto+json"


def signing_input(statement: bytes) -> bytes:
    """Return the pre-authentication encoding of *statement*. All lengths in it are in bytes."""
    kind = PAYLOAD_TYPE.encode("ascii")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(statement), statement)


def envelope_json(record: SignatureRecord) -> str:
    """Return the DSSE JSON envelope with the statement and the signatures of *record*."""
    envelope = {
        "payload": b64encode(record.statement).decode("ascii"),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [
            {"keyid": entry.key_id.hex(), "sig": b64encode(entry.signature).decode("ascii")}
            for entry in record.signatures
        ],
    }
    return json.dumps(envelope, separators=(",", ":"))
