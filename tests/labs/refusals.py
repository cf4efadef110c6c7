# SPDX-License-Identifier: Apache-2.0
"""For each reason of refusal, an object and a trust store that refuses it for this reason only."""

from __future__ import annotations

from typing import Any

from labs.handsig import Key, policy, sign

NAME = "vm_regs.bpf.o"
PAST, FUTURE = "2026-01-02T00:00:00Z", "2126-01-02T00:00:00Z"

Files = dict[str, bytes]


def make(data: bytes, platform: str, other: str) -> dict[str, Files]:
    """Return the files of each reason's directory: objects/ and trust/."""
    key = Key()

    def signed(*keys: Key, **changes: Any) -> bytes:
        return sign(data, list(keys) or [key], name=NAME, **{"platform": platform, **changes})

    good = signed()
    flipped = bytearray(good)
    flipped[0x48] ^= 1
    cases = {
        "unsigned": (data, policy(key)),
        "malformed": (good[:-1], policy(key)),
        "unknown-key": (signed(Key()), policy(key)),
        "bad-signature": (good.replace(b'"release":"1.0"', b'"release":"1.1"'), policy(key)),
        "digest-mismatch": (bytes(flipped), policy(key)),
        "wrong-platform": (signed(platform=other), policy(key)),
        "expired": (signed(notAfter=PAST), policy(key)),
        "not-yet-valid": (good, policy((key, {"notBefore": FUTURE}))),
        "rolled-back": (good, policy(key, objects={NAME: {"minimumVersion": 2}})),
        "below-threshold": (good, policy(key, Key(), threshold=2)),
        "revoked": (good, policy((key, {"revoked": True}))),
        "denied-by-policy": (good, policy(key, programTypes=["xdp"])),
        "too-large": (good, policy(key, maxObjectBytes=64)),
    }
    return {
        reason: {f"objects/{NAME}": obj, "trust/policy.json": rules.encode()}
        for reason, (obj, rules) in cases.items()
    }
