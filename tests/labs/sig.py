# SPDX-License-Identifier: Apache-2.0
"""Small objects, keys and trust stores for the tests of signing."""

from __future__ import annotations

import shutil
from base64 import b64decode
from functools import cache
from pathlib import Path

from buildtool.core.platforms import PLATFORMS
from buildtool.objects.elf import ElfObject, parse_object
from buildtool.signing.keys import SigningKey, generate_key, load_signing_key_pem
from buildtool.signing.sign import Origin, ReleaseInfo, sign_object
from buildtool.trust.store import TrustStore, trust_keys
from labs import TOP
from labs.vectors.index import INDEX

TESTS = TOP / "tests"
TEST_KEY = TESTS / "keys" / "TEST-KEY-alice.pem"
RELEASE = ReleaseInfo(project="demo", version=3, release="1.0", created=1_767_225_600)
NOW = 1_780_000_000


@cache
def _vectors() -> dict[str, bytes]:
    return {vector["name"]: b64decode(vector["file"]) for vector in INDEX["vectors"]}


def vector(name: str) -> bytes:
    """Return the file of a vector."""
    return _vectors()[name]


def unsigned() -> bytes:
    """Return a little-endian object without a signature."""
    return vector("unsigned")


def test_key() -> SigningKey:
    """Return alice's key, which is public."""
    return load_signing_key_pem(TEST_KEY.read_bytes(), "alice", None)


def copy_test_key(directory: Path) -> Path:
    """Copy alice's key file to *directory*, with mode 0600, and return its path."""
    path = directory / "alice.pem"
    shutil.copyfile(TEST_KEY, path)
    path.chmod(0o600)
    return path


def sign(obj: ElfObject | None = None, *, key: SigningKey | None = None, arch: str = "amd64") -> bytes:
    """Return the signed file of *obj*, by default of a small object."""
    origin = Origin(platform=PLATFORMS[arch])
    return sign_object(obj or parse_object(unsigned()), "x.bpf.o", key or test_key(), RELEASE, origin)[0]


def store(*keys: SigningKey) -> TrustStore:
    """Return a trust store of *keys*, by default of alice's."""
    return trust_keys([key.public for key in keys or (test_key(),)])


def other_key() -> SigningKey:
    """Return a new key."""
    return generate_key()


test_key.__test__ = False  # type: ignore[attr-defined] - a helper, not a test
