# SPDX-License-Identifier: Apache-2.0
"""Trust stores that the loader does not take: weak keys, broken files, a host's store that is empty."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from labs.handsig import Key
from labs.loader import Lab

pytestmark = pytest.mark.usefixtures("nothing_left")

PRIME = 2**255 - 19


def _point(y: int, *, odd: bool) -> bytes:
    return (y | odd << 255).to_bytes(32, "little")


@pytest.mark.parametrize(
    "raw",
    [
        _point(1, odd=False),  # the identity
        _point(PRIME - 1, odd=False),  # order 2
        _point(0, odd=False),  # order 4
        _point(PRIME + 1, odd=False),  # the identity, not canonical
        _point(2, odd=False),  # not on the curve
    ],
)
def test_weak_key_is_a_configuration_error(lab: Lab, tmp_path: Path, raw: bytes) -> None:
    """Keys that break the rule for A are refused when they are read."""
    lab.put(tmp_path, "raw_tp")
    der = bytes.fromhex("302a300506032b6570032100") + raw
    text = base64.b64encode(der).decode()
    pem = f"-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n"
    (tmp_path / "trust/weak.pub").write_text(pem)
    result = lab.run(tmp_path, "--verify-only")
    assert result.code == 2
    assert "weak.pub: a weak Ed25519 public key" in result.message


def test_key_of_mixed_order_is_refused(lab: Lab, tmp_path: Path) -> None:
    """A good point plus the point of order 2: libsodium took it before its fix of 2025 (CVE-2025-69277)."""
    lab.put(tmp_path, "raw_tp")
    good = int.from_bytes(lab.key.der[12:], "little")
    odd, y = good >> 255, good & (2**255 - 1)
    mixed = _point(PRIME - y, odd=not odd)  # (-x, -y)
    text = base64.b64encode(lab.key.der[:12] + mixed).decode()
    pem = f"-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n"
    (tmp_path / "trust/mixed.pub").write_text(pem)
    result = lab.run(tmp_path, "--verify-only")
    assert result.code == 2
    assert "mixed.pub: a weak Ed25519 public key" in result.message


BAD_STORES: dict[str, tuple[str | None, str]] = {
    "empty directory": (None, "no public key in it"),
    "policy is not json": ("{", "not the JSON"),
    "policy without keys": ('{"policyVersion":1,"threshold":1,"keys":[]}', "no public key"),
    "policy version": ('{"policyVersion":2,"threshold":1,"keys":[]}', "policyVersion: unknown"),
    "unknown member": ('{"policyVersion":1,"threshold":1,"keys":[],"x":1}', "unknown member"),
    "duplicate member": ('{"policyVersion":1,"policyVersion":1,"threshold":1,"keys":[]}', "not the JSON"),
    "threshold 0": ('{"policyVersion":1,"threshold":0,"keys":[]}', "threshold: not 1 to 16"),
    "deep": ("[" * 9 + "]" * 9, "nested more than 8 deep"),
    "key": ('{"policyVersion":1,"threshold":1,"keys":[{"name":"k","publicKey":"AAAA"}]}', "not an Ed25519"),
}


@pytest.mark.parametrize("name", BAD_STORES)
def test_bad_trust_store(lab: Lab, tmp_path: Path, name: str) -> None:
    """A trust store that breaks a rule is a configuration error; nothing is verified with it."""
    text, words = BAD_STORES[name]
    lab.put(tmp_path, "raw_tp")
    (tmp_path / "trust/dev.pub").unlink()
    if text:
        (tmp_path / "trust/policy.json").write_text(text)
    result = lab.run(tmp_path, "--", "echo", "started")
    assert result.code == 2
    assert words in result.message
    assert result.events("verify") == []
    assert result.stdout == ""


def test_key_twice_and_missing_store(lab: Lab, tmp_path: Path) -> None:
    """The same key under two names, a private key's PEM and a store that isn't there are errors."""
    lab.put(tmp_path, "raw_tp")
    (tmp_path / "trust/again.pub").write_bytes(lab.key.pem)
    assert "there twice" in lab.run(tmp_path, "--verify-only").message
    (tmp_path / "trust/again.pub").write_bytes(lab.key.pem.replace(b"PUBLIC", b"PRIVATE"))
    assert "not a PEM public key" in lab.run(tmp_path, "--verify-only").message
    result = lab.run(tmp_path, "--trust", str(tmp_path / "nothing"))
    assert result.code == 2
    assert "No such file or directory" in result.message


@pytest.mark.usefixtures("as_root")
def test_trust_of_the_host_takes_precedence(lab: Lab, tmp_path: Path) -> None:
    """Default stores: the image's, unless the host's holds something; a broken one is no way around it."""
    lab.put(tmp_path, "raw_tp")
    image, host = tmp_path / "etc/trust", tmp_path / "etc/trust.host"
    image.mkdir(parents=True)
    (image / "dev.pub").write_bytes(lab.key.pem)

    def verify(more: str = "", before: Sequence[str] = ()) -> tuple[int, str]:
        argv = [str(lab.loader), "--objects", str(tmp_path / "objects"), "--verify-only"]
        script = (
            f'mkdir -p /etc/buildtool && mount --bind "{tmp_path}/etc" /etc/buildtool {more} && exec "$@"'
        )
        done = subprocess.run(
            [*before, "unshare", "-m", "sh", "-c", script, "sh", *argv],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stderr

    assert verify()[0] == 0
    host.mkdir()
    assert verify()[0] == 0
    # As `docker run --volume /not/there:/etc/buildtool/trust.host` makes it.
    code, text = verify("&& mount -t tmpfs none /etc/buildtool/trust.host")
    assert (code, "trust.host: no public key in it" in text) == (2, True), text
    # Nobody can tell whether it is mounted: as if it were.
    code, text = verify(before=["strace", "-qq", "-f", "-o", "/dev/null", "-e", "inject=statx:error=ENOSYS"])
    assert (code, "trust.host: no public key in it" in text) == (2, True), text
    (host / "ops.pub").write_bytes(Key().pem)
    assert verify()[0] == 3
    (host / "ops.pub").write_text("garbage")
    assert verify()[0] == 2
    (host / "ops.pub").unlink()
    host.rmdir()
    host.symlink_to("nowhere/at/all")
    code, text = verify()
    assert code == 2, text
    assert "trust.host: No such file or directory" in text
    host.unlink()
    host.write_text("")
    assert verify()[0] == 2


def test_store_of_too_many_files(lab: Lab, tmp_path: Path) -> None:
    """A directory of keys has at most 1024 entries; those that begin with a dot do not count."""
    lab.put(tmp_path, "raw_tp")
    for number in range(1023):
        (tmp_path / f"trust/{number}").touch()
    (tmp_path / "trust/.hidden").touch()
    assert lab.run(tmp_path, "--verify-only").code == 0
    (tmp_path / "trust/more").touch()
    result = lab.run(tmp_path, "--verify-only")
    assert (result.code, "more than 1024 files" in result.message) == (2, True)
