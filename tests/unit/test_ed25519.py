# SPDX-License-Identifier: Apache-2.0
"""Strict keys and signatures; the forged ones are vectors."""

from __future__ import annotations

from buildtool.signing import ed25519
from buildtool.signing.keys import generate_key


def test_keys_that_libraries_make_are_strict() -> None:
    """No honest key is refused."""
    assert all(ed25519.is_strict_point(generate_key().public.raw) for _ in range(5))


def test_decoding_and_encoding_are_inverse() -> None:
    """A canonical encoding is the only one."""
    raw = generate_key().public.raw
    point = ed25519.decode_point(raw)
    assert point is not None
    assert ed25519.encode_point(point) == raw
    assert ed25519.encode_point(ed25519.add_points(point, ed25519.IDENTITY)) == raw


def test_order_of_the_base_point() -> None:
    """L times the base point is the identity, and no smaller power of two is."""
    base = ed25519.decode_point(bytes([0x58]) + bytes([0x66]) * 31)
    assert base is not None
    assert ed25519.is_identity(ed25519.multiply(ed25519.L, base))
    assert not ed25519.is_identity(ed25519.multiply(8, base))


def test_wrong_lengths_are_no_points() -> None:
    """32 bytes, no more and no fewer."""
    assert not ed25519.is_strict_point(b"")
    assert not ed25519.is_strict_point(generate_key().public.raw + b"\0")


def test_encodings_that_are_no_points() -> None:
    """A y that is P or larger, one without an x, and the negative of x = 0 have no point."""
    for y in (ed25519.P, ed25519.P + 1, 2**255 - 1):
        assert ed25519.decode_point(y.to_bytes(32, "little")) is None
        assert ed25519.decode_point((y - ed25519.P).to_bytes(32, "little")) is not None or y == 2**255 - 1
    assert ed25519.decode_point((2).to_bytes(32, "little")) is None
    for y in (1, ed25519.P - 1):
        assert ed25519.decode_point(y.to_bytes(32, "little")) is not None
        assert ed25519.decode_point((y | 1 << 255).to_bytes(32, "little")) is None


def test_both_signs_of_x() -> None:
    """The highest bit of an encoding is the lowest of x, and chooses between a point and its negative."""
    base = ed25519.decode_point(bytes([0x58]) + bytes([0x66]) * 31)
    assert base is not None
    parities = set()
    for scalar in range(1, 9):
        encoding = ed25519.encode_point(ed25519.multiply(scalar, base))
        other = encoding[:31] + bytes((encoding[31] ^ 0x80,))
        points = [ed25519.decode_point(each) for each in (encoding, other)]
        for each, point in zip((encoding, other), points, strict=True):
            assert point is not None
            assert (point[0] & 1) == each[31] >> 7
            assert 0 < point[0] < ed25519.P
            assert ed25519.encode_point(point) == each
        parities.add(encoding[31] >> 7)
    assert parities == {0, 1}
