# SPDX-License-Identifier: Apache-2.0
"""One object for each reason of refusal, with the trust store it is refused by, right but for that."""

from __future__ import annotations

import base64
import json
from typing import Any

from labs.handsig import Key, sign

NAME = "vm_regs.bpf.o"
PAST, FUTURE = "2026-01-02T00:00:00Z", "2126-01-02T00:00:00Z"

Files = dict[str, bytes]


def make(data: bytes, platform: str, other: str) -> dict[str, Files]:
    """Return for each reason the files below its directory: objects/, trust/ and perhaps state/."""
    key = Key()

    def signed(*keys: Key, **changes: Any) -> bytes:
        return sign(data, list(keys) or [key], name=NAME, **{"platform": platform, **changes})

    good = signed()
    flipped = bytearray(good)
    flipped[0x48] ^= 1
    cases = {
        "unsigned": (data, _policy(key)),
        "malformed": (good[:-1], _policy(key)),
        "unknown-key": (signed(Key()), _policy(key)),
        "bad-signature": (good.replace(b'"release":"1.0"', b'"release":"1.1"'), _policy(key)),
        "digest-mismatch": (bytes(flipped), _policy(key)),
        "wrong-platform": (signed(platform=other), _policy(key)),
        "expired": (signed(notAfter=PAST), _policy(key)),
        "not-yet-valid": (good, _policy((key, {"notBefore": FUTURE}))),
        "rolled-back": (good, _policy(key, objects={NAME: {"minimumVersion": 2}})),
        "below-threshold": (good, _policy(key, Key(), threshold=2)),
        "revoked": (good, _policy((key, {"revoked": True}))),
        "denied-by-policy": (good, _policy(key, programTypes=["xdp"])),
        "too-large": (good, _policy(key, maxObjectBytes=64)),
    }
    return {
        reason: {f"objects/{NAME}": obj, "trust/policy.json": policy}
        for reason, (obj, policy) in cases.items()
    }


def _policy(*keys: Key | tuple[Key, dict[str, Any]], threshold: int = 1, **members: Any) -> bytes:
    entries = []
    for item in keys:
        key, extra = item if isinstance(item, tuple) else (item, {})
        entries.append({"name": "test", "publicKey": base64.b64encode(key.der).decode(), **extra})
    return json.dumps({"policyVersion": 1, "threshold": threshold, "keys": entries, **members}).encode()
