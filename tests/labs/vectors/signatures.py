# SPDX-License-Identifier: Apache-2.0
"""
Signatures on which Ed25519 libraries differ, each with the result of strict verification.

The twelve classes are those of "Taming the many EdDSAs" (Chalkias, Garillot, Nikolaenko;
Cryptology ePrint 2020/1244, table 6), computed here from fixed scalars. Every case
asserts which equations it satisfies, so that it is refused for its class and not for a mistake.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

from buildtool.signing.ed25519 import (
    IDENTITY,
    P,
    Point,
    add_points,
    decode_point,
    encode_point,
    is_identity,
    multiply,
)
from labs.vectors.points import BASE, ORDER, small_points

SECRET = int.from_bytes(hashlib.sha256(b"buildtool TEST scalar a").digest(), "little") % ORDER
NONCE = int.from_bytes(hashlib.sha256(b"buildtool TEST scalar r").digest(), "little") % ORDER
TORSION = small_points()
GOOD, WEAK, BAD = "good", "weak-key", "bad-signature"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A case: 32 bytes of *key*, a *message*, 64 bytes of *signature*, and the *expect*ed result."""

    name: str
    expect: str
    key: bytes
    message: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """
    How to make a signature: scalars *a* and *r*, and torsion components by their number of eighths.

    *key* and *point* replace the encodings; *hashed_key* and *hashed_point* are what is hashed instead of
    them. *lift* is added to S, in orders of the group.
    """

    a: int = SECRET
    a_eighths: int = 0
    r: int = NONCE
    r_eighths: int = 0
    key: bytes | None = None
    point: bytes | None = None
    hashed_key: bytes | None = None
    hashed_point: bytes | None = None
    lift: int = 0


def signatures() -> Iterator[Signature]:
    """Yield all cases."""
    yield _make("plain", GOOD, Shape(), _both)
    yield from _twelve()
    yield from _points_beside_a_good_key()


def _twelve() -> Iterator[Signature]:
    """Yield the classes of the paper, numbered as there."""
    y_0 = P.to_bytes(32, "little")  # y = 0 written as p: order 4
    y_1 = (P - 1 | 1 << 255).to_bytes(32, "little")  # y = -1, x = 0 with a negative sign: order 2
    mixed = Shape(a_eighths=1, r_eighths=3)
    small_r = Shape(a_eighths=1, r=0, r_eighths=_eighths(y_0), point=y_0)
    small_a = Shape(a=0, a_eighths=4, key=y_1, r_eighths=3)
    yield _make("taming-0-small-a-small-r-s-0", WEAK, Shape(a=0, a_eighths=1, r=0, r_eighths=3), _both)
    yield _make("taming-1-small-a-mixed-r", WEAK, Shape(a=0, a_eighths=1, r_eighths=3), _both)
    yield _make("taming-2-mixed-a-small-r", WEAK, Shape(a_eighths=1, r=0, r_eighths=3), _both)
    yield _make("taming-3-mixed-a-mixed-r", WEAK, mixed, _both)
    yield _make("taming-4-mixed-a-mixed-r-cofactored-only", WEAK, mixed, _cofactored_only)
    yield _make("taming-5-mixed-a-cofactored-only-unreduced", WEAK, Shape(a_eighths=1), _unreduced)
    yield _make("taming-6-s-over-order", BAD, Shape(lift=1), _both)
    yield _make("taming-7-s-far-over-order", BAD, Shape(lift=14), _both)
    yield _make("taming-8-non-canonical-r-hashed-reduced", WEAK, _reduced_r(small_r), _any)
    yield _make("taming-9-non-canonical-r-hashed-as-it-is", WEAK, small_r, _both)
    yield _make("taming-10-non-canonical-a-hashed-reduced", WEAK, _reduced_a(small_a), _any)
    yield _make("taming-11-non-canonical-a-hashed-as-it-is", WEAK, small_a, _cofactored)


def _points_beside_a_good_key() -> Iterator[Signature]:
    """Yield signatures of a valid key with each kind of invalid R."""
    for eighths in range(8):
        # Without torsion the identity satisfies both equations, the others the cofactored one.
        wanted = _both if eighths == 0 else _cofactored_only
        yield _make(f"small-order-r-{eighths}", BAD, Shape(r=0, r_eighths=eighths), wanted)
    for eighths in range(1, 8):
        yield _make(f"mixed-order-r-{eighths}", BAD, Shape(r_eighths=eighths), _cofactored_only)
    for name, encoding in _other_encodings():
        shape = Shape(r=0, r_eighths=_eighths(encoding), point=encoding)
        yield _make(f"non-canonical-r-{name}", BAD, shape, _cofactored)
        yield _make(f"non-canonical-r-{name}-hashed-reduced", BAD, _reduced_r(shape), _any)
    not_on_curve = next(y for y in range(2, 50) if decode_point(y.to_bytes(32, "little")) is None)
    yield _make("r-not-on-curve", BAD, Shape(point=not_on_curve.to_bytes(32, "little")), _any)
    yield _make("s-is-order", BAD, Shape(a=SECRET, r=0, r_eighths=1), _any, scalar=ORDER)
    yield _make("s-is-0", BAD, Shape(), _any, scalar=0)
    yield _make("s-with-top-bits", BAD, Shape(), _any, scalar=2**256 - 1)


def _other_encodings() -> Iterator[tuple[str, bytes]]:
    """Yield the encodings of small-order points that are not the canonical ones."""
    for name, y in (("0", P), ("1", P + 1)):
        for sign in (0, 1):
            yield f"y-{name}-sign-{sign}", (y | sign << 255).to_bytes(32, "little")
    # x is 0, so a negative sign is invalid.
    yield "identity-negative", (1 | 1 << 255).to_bytes(32, "little")
    yield "order-2-negative", (P - 1 | 1 << 255).to_bytes(32, "little")


def _lenient(encoding: bytes) -> Point:
    """Decode *encoding* leniently: y modulo p, and a negative 0 as 0."""
    number = int.from_bytes(encoding, "little")
    y, sign = (number & (2**255 - 1)) % P, number >> 255
    for bit in (sign, 0):
        point = decode_point((y | bit << 255).to_bytes(32, "little"))
        if point is not None:
            return point
    raise AssertionError("no point")


def _eighths(encoding: bytes) -> int:
    """Return the number of the small-order point that *encoding* is."""
    wanted = encode_point(_lenient(encoding))
    return [encode_point(point) for point in TORSION].index(wanted)


def _reduced_r(shape: Shape) -> Shape:
    """Hash the canonical encoding of R instead of the bytes of the signature."""
    assert shape.point is not None
    return Shape(
        a_eighths=shape.a_eighths,
        r=shape.r,
        r_eighths=shape.r_eighths,
        point=shape.point,
        hashed_point=encode_point(_lenient(shape.point)),
    )


def _reduced_a(shape: Shape) -> Shape:
    """Hash the canonical encoding of A instead of the bytes of the key."""
    assert shape.key is not None
    return Shape(
        a=shape.a,
        a_eighths=shape.a_eighths,
        key=shape.key,
        r_eighths=shape.r_eighths,
        hashed_key=encode_point(_lenient(shape.key)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """Facts about a leniently read signature: the hash *k*, and the equations that it satisfies."""

    k: int
    is_cofactored: bool
    is_cofactorless: bool


def _both(facts: _Facts) -> bool:
    return facts.is_cofactored and facts.is_cofactorless


def _cofactored(facts: _Facts) -> bool:
    return facts.is_cofactored


def _cofactored_only(facts: _Facts) -> bool:
    return facts.is_cofactored and not facts.is_cofactorless


def _unreduced(facts: _Facts) -> bool:
    """Return whether only the cofactored equation holds, and reducing 8k modulo the order would change it."""
    return _cofactored_only(facts) and 8 * facts.k % ORDER % 8 != 0


def _any(_: _Facts) -> bool:
    return True


def _make(
    name: str, expect: str, shape: Shape, wanted: Callable[[_Facts], bool], scalar: int | None = None
) -> Signature:
    """Return the first signature of *shape* over a numbered message whose facts satisfy *wanted*."""
    assert BASE is not None
    a = add_points(multiply(shape.a, BASE) if shape.a else IDENTITY, TORSION[shape.a_eighths])
    r = add_points(multiply(shape.r, BASE) if shape.r else IDENTITY, TORSION[shape.r_eighths])
    key, point = shape.key or encode_point(a), shape.point or encode_point(r)
    for number in count():
        message = f"{name} {number}".encode()
        hashed = (shape.hashed_point or point) + (shape.hashed_key or key) + message
        k = int.from_bytes(hashlib.sha512(hashed).digest(), "little") % ORDER
        s = (shape.r + k * shape.a) % ORDER
        # [S]B - R - [k]A
        minus_one = ORDER * 8 - 1
        rest = add_points(multiply(s, BASE), multiply(minus_one, add_points(r, multiply(k, a))))
        facts = _Facts(k=k, is_cofactored=is_identity(multiply(8, rest)), is_cofactorless=is_identity(rest))
        if wanted(facts):
            break
    s = s + shape.lift * ORDER if scalar is None else scalar
    signature = point + s.to_bytes(32, "little")
    return Signature(name=name, expect=expect, key=key, message=message, signature=signature)
