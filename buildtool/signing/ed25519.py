# SPDX-License-Identifier: Apache-2.0
"""
Point arithmetic that checks public keys by the rules of spec/sig-section.md, section 5.

OpenSSL accepts keys of small order, of mixed order and non-canonical ones. Other libraries refuse
them. All values are public, so the functions need no constant time.
"""

from __future__ import annotations

from functools import lru_cache

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, P) % P
_SQRT_M1 = pow(2, (P - 1) // 4, P)

IDENTITY_ENCODING = b"\1" + bytes(31)

# Extended coordinates (X, Y, Z, T) with x = X/Z, y = Y/Z, T = XY/Z (RFC 8032, section 5.1.4).
Point = tuple[int, int, int, int]
IDENTITY: Point = (0, 1, 1, 0)


@lru_cache(maxsize=256)
def is_strict_point(encoding: bytes) -> bool:
    """Return whether *encoding* is the canonical one of a prime-order point other than the identity."""
    point = decode_point(encoding)
    return point is not None and not is_identity(point) and is_identity(multiply(L, point))


def decode_point(encoding: bytes) -> Point | None:
    """Return the point of *encoding* (RFC 8032, section 5.1.3), or None if it is not canonical."""
    number = int.from_bytes(encoding, "little")
    sign, y = number >> 255, number & (2**255 - 1)
    if len(encoding) != 32 or y >= P:
        return None
    u, v = (y * y - 1) % P, (_D * y * y + 1) % P
    x = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    if v * x * x % P == -u % P:
        x = x * _SQRT_M1 % P
    if v * x * x % P != u or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


def encode_point(point: Point) -> bytes:
    """Return the canonical encoding of *point*."""
    x, y, z, _ = point
    inverse = pow(z, -1, P)
    x, y = x * inverse % P, y * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def add_points(first: Point, second: Point) -> Point:
    """Return the sum of two points. The formula is complete, so it also doubles a point."""
    x1, y1, z1, t1 = first
    x2, y2, z2, t2 = second
    a = (y1 - x1) * (y2 - x2) % P
    b = (y1 + x1) * (y2 + x2) % P
    c = 2 * t1 * t2 * _D % P
    d = 2 * z1 * z2 % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def multiply(scalar: int, point: Point) -> Point:
    """Return *scalar* times *point*."""
    result = IDENTITY
    while scalar:
        if scalar & 1:
            result = add_points(result, point)
        point = add_points(point, point)
        scalar >>= 1
    return result


def is_identity(point: Point) -> bool:
    """Return whether *point* is the neutral element."""
    x, y, z, _ = point
    return x % P == 0 and (y - z) % P == 0
