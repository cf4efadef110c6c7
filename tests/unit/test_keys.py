# SPDX-License-Identifier: Apache-2.0
"""Key files: what is made, what is read, what is refused."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from labs.sig import TEST_KEY, copy_test_key

from buildtool.core.errors import ConfigError, FileAccessError, SigningKeyError
from buildtool.signing import keys


def test_saved_key_is_read_back(tmp_path: Path) -> None:
    """The pair of files has the same key id, and only the owner may read the private one."""
    key = keys.generate_key()
    private, public = keys.save_key(key, "dev", tmp_path / "keys", None)
    assert private.stat().st_mode & 0o777 == 0o600
    assert keys.load_signing_key(private, None).key_id == key.key_id
    loaded = keys.load_public_key(public)
    assert loaded.key_id == key.key_id
    assert loaded.name == "dev"
    assert loaded.verifies(key.sign(b"m"), b"m")
    assert not loaded.verifies(key.sign(b"m"), b"n")


@pytest.mark.parametrize(
    "word",
    ["load_signing_key(Path(sys.argv[1]), None)", "generate_key()", "read_key_file(Path(sys.argv[1]))"],
)
def test_no_core_dump_has_a_key(tmp_path: Path, word: str) -> None:
    """A process that read a key, and its forks, are undumpable and have the lowest core limit."""
    text = f"""
import ctypes, os, resource, sys
from pathlib import Path
from buildtool.signing.keys import generate_key, load_signing_key, read_key_file
hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
key = {word}
child = os.fork()
limit = 0 if hard == 0 else 1 # of 1: also for a pipe
dumpable = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
os.write(1, f"{{(resource.getrlimit(resource.RLIMIT_CORE) == (limit, hard), dumpable)}}\\n".encode())
if child:
    os.waitpid(child, 0)
"""
    argv = [sys.executable, "-c", text, str(copy_test_key(tmp_path))]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout == "(True, 0)\n" * 2


@pytest.mark.tools
def test_key_id_is_the_digest_of_what_openssl_writes(tmp_path: Path) -> None:
    """Openssl pkey -pubout -outform DER | sha256sum."""
    private = copy_test_key(tmp_path)
    der = subprocess.run(
        ["openssl", "pkey", "-in", private, "-pubout", "-outform", "DER"], capture_output=True, check=True
    ).stdout
    assert keys.load_signing_key(private, None).key_id == hashlib.sha256(der).hexdigest()


@pytest.mark.tools
def test_key_of_openssl_is_read(tmp_path: Path) -> None:
    """A key made by openssl can be read."""
    path = tmp_path / "k.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", path], check=True)
    path.chmod(0o600)
    subprocess.run(["openssl", "pkey", "-in", path, "-pubout", "-out", tmp_path / "k.pub"], check=True)
    assert keys.load_signing_key(path, None).key_id == keys.load_public_key(tmp_path / "k.pub").key_id


def test_passphrase(tmp_path: Path) -> None:
    """An encrypted key needs its passphrase; a plain one does not mind one."""
    key = keys.generate_key()
    private, _ = keys.save_key(key, "dev", tmp_path, b"secret")
    assert keys.load_signing_key(private, b"secret").key_id == key.key_id
    with pytest.raises(SigningKeyError, match="encrypted, and no passphrase was given"):
        keys.load_signing_key(private, None)
    with pytest.raises(SigningKeyError, match="wrong passphrase"):
        keys.load_signing_key(private, b"other")
    assert keys.load_signing_key(copy_test_key(tmp_path), b"unneeded").key_id


def test_nothing_is_overwritten_and_nothing_half_left(tmp_path: Path) -> None:
    """If one of the two files exists, neither is written."""
    (tmp_path / "dev.pub").write_text("mine")
    with pytest.raises(FileAccessError, match="already exists"):
        keys.save_key(keys.generate_key(), "dev", tmp_path, None)
    assert [path.name for path in tmp_path.iterdir()] == ["dev.pub"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o700 | 0o001])
def test_key_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    """As ssh does."""
    path = copy_test_key(tmp_path)
    path.chmod(mode)
    with pytest.raises(SigningKeyError, match=f"mode {mode:04o} lets others use it"):
        keys.load_signing_key(path, None)


def _ec_key() -> bytes:
    key = generate_private_key(SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a PKCS#8 PEM private key"),
        (b"\x00\xff", "not a PKCS#8 PEM private key"),
        (_ec_key(), "not an Ed25519 key"),
        (keys.generate_key().public.pem, "this is a public key"),
        (TEST_KEY.read_bytes()[:60], "not a PKCS#8 PEM private key"),
        (b"x" * 5000, "too large"),
    ],
    ids=["empty", "bytes", "another-algorithm", "public", "cut", "large"],
)
def test_other_files_are_no_signing_keys(tmp_path: Path, data: bytes, message: str) -> None:
    """One line, and never a word of the key's text."""
    path = tmp_path / "k.pem"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(SigningKeyError, match=message) as caught:
        keys.load_signing_key(path, None)
    assert "\n" not in caught.value.message


def test_public_key_is_told_before_its_mode(tmp_path: Path) -> None:
    """A public key as signing key is reported as such, rather than for its mode."""
    _, public = keys.save_key(keys.generate_key(), "dev", tmp_path, None)
    assert public.stat().st_mode & 0o777 == 0o644
    with pytest.raises(SigningKeyError, match="this is a public key") as caught:
        keys.load_signing_key(public, None)
    assert "name the private key" in str(caught.value.hint)


def test_missing_files(tmp_path: Path) -> None:
    """A missing signing key is not a usage error; a missing public key is one of configuration."""
    with pytest.raises(SigningKeyError, match="no such file"):
        keys.load_signing_key(tmp_path / "none.pem", None)
    with pytest.raises(ConfigError, match="no such file"):
        keys.load_public_key(tmp_path / "none.pub")


def test_a_key_does_not_show_itself() -> None:
    """Neither repr nor str hold the secret."""
    key = keys.generate_key()
    assert repr(key) == f"SigningKey({key.key_id})"


@pytest.mark.parametrize("size", [keys.MAX_KEY_FILE_BYTES, keys.MAX_KEY_FILE_BYTES + 1])
def test_largest_public_key_file(tmp_path: Path, size: int) -> None:
    """4096 bytes of key and white space are read, one more is not."""
    assert keys.MAX_KEY_FILE_BYTES == 4096
    path = tmp_path / "k.pub"
    path.write_bytes(keys.generate_key().public.pem.ljust(size))
    if size == 4096:
        assert keys.load_public_key(path).name == "k"
        return
    with pytest.raises(ConfigError, match="not a PEM public key"):
        keys.load_public_key(path)


@pytest.mark.parametrize("size", [keys.MAX_KEY_FILE_BYTES, keys.MAX_KEY_FILE_BYTES + 1])
def test_largest_signing_key_file(tmp_path: Path, size: int) -> None:
    """4096 bytes of key and white space are read, one more is not."""
    key = keys.generate_key()
    private, _ = keys.save_key(key, "k", tmp_path, None)
    private.write_bytes(private.read_bytes().ljust(size))
    if size == keys.MAX_KEY_FILE_BYTES:
        assert keys.load_signing_key(private, None).key_id == key.key_id
        return
    with pytest.raises(SigningKeyError, match="too large for a key file"):
        keys.load_signing_key(private, None)
