# SPDX-License-Identifier: Apache-2.0
"""
Keys and signatures on which Ed25519 libraries differ (spec/sig-section.md, section 5).

The points of small order are computed here, not copied from a list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from buildtool.signing.ed25519 import (
    IDENTITY,
    L,
    P,
    Point,
    add_points,
    decode_point,
    encode_point,
    is_identity,
    multiply,
)

ORDER = L
_BASE_Y = 4 * pow(5, -1, P) % P
BASE = decode_point(_BASE_Y.to_bytes(32, "little"))


def torsion_generator() -> Point:
    """Return a point of order 8: the cofactor part of the first curve point that has one."""
    for y in range(2, 200):
        point = decode_point(y.to_bytes(32, "little"))
        if point is None:
            continue
        torsion = multiply(L, point)
        if not is_identity(multiply(4, torsion)):
            return torsion
    raise AssertionError("no point of order 8")


def small_points() -> list[Point]:
    """Return the eight points of small order, the identity first."""
    generator = torsion_generator()
    return [multiply(k, generator) if k else IDENTITY for k in range(8)]


def bad_keys() -> Iterator[tuple[str, bytes]]:
    """Yield encodings that must not be public keys."""
    assert BASE is not None
    for number, point in enumerate(small_points()):
        yield f"small-order-{number}", encode_point(point)
    yield "mixed-order", encode_point(add_points(multiply(5, BASE), torsion_generator()))
    # y is at least p: another way to write the same point.
    yield "non-canonical-identity", (P + 1).to_bytes(32, "little")
    yield "non-canonical-order-4", P.to_bytes(32, "little")
    # x is 0, which has no negative.
    yield "negative-zero-x", (1 | 1 << 255).to_bytes(32, "little")
    not_on_curve = next(y for y in range(2, 50) if decode_point(y.to_bytes(32, "little")) is None)
    yield "not-on-curve", not_on_curve.to_bytes(32, "little")


def forge(seed: bytes, message: bytes, kind: str) -> bytes:
    """Sign *message* with the key of *seed*, with an R of another *kind* and S to match."""
    assert BASE is not None
    digest = hashlib.sha512(seed).digest()
    scalar = int.from_bytes(digest[:32], "little") & ~7 & (2**254 - 1) | 2**254
    public = encode_point(multiply(scalar, BASE))
    nonce = int.from_bytes(hashlib.sha512(digest[32:] + message).digest(), "little") % L
    torsion = torsion_generator()
    if kind == "identity-r":
        nonce, r = 0, encode_point(IDENTITY)
    elif kind == "non-canonical-r":
        nonce, r = 0, (P + 1).to_bytes(32, "little")
    elif kind == "small-order-r":
        # The cofactored equation accepts this: 8 times R is the identity.
        nonce, r = 0, encode_point(torsion)
    else:
        r = encode_point(add_points(multiply(nonce, BASE), torsion))
    k = int.from_bytes(hashlib.sha512(r + public + message).digest(), "little") % L
    return r + ((nonce + k * scalar) % L).to_bytes(32, "little")
