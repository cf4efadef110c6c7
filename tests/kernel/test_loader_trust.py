# SPDX-License-Identifier: Apache-2.0
"""Trust stores that the loader refuses (weak keys, broken files), and the host's store before the image's."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from labs.handsig import Key
from labs.loader import PREFIX, Lab, Result, parse

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
    """A key of small order, not canonical or not on the curve is refused when it is read."""
    lab.put(tmp_path, "raw_tp")
    der = bytes.fromhex("302a300506032b6570032100") + raw
    text = base64.b64encode(der).decode()
    pem = f"-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n"
    (tmp_path / "trust/weak.pub").write_text(pem)
    result = lab.run(tmp_path, "--verify-only")
    assert result.code == 2
    assert "weak.pub: a weak Ed25519 public key" in result.message


def test_key_of_mixed_order_is_refused(lab: Lab, tmp_path: Path) -> None:
    """A point of mixed order is refused; libsodium accepted it before its fix of 2025 (CVE-2025-69277)."""
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
    "empty directory": (None, "no public key in it; put NAME.pub files there, or run buildtool trust add"),
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
    """A trust store that breaks a rule is a configuration error, and no object is verified."""
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
    """A key under two names, a private key's PEM and a missing store are errors."""
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
    """The image's store applies unless the host mounts one; a broken store of the host is an error."""
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
    # The empty mount that `docker run --volume /not/there:/etc/buildtool/trust.host` makes.
    code, text = verify("&& mount -t tmpfs none /etc/buildtool/trust.host")
    assert (code, "trust.host: no public key in it" in text) == (2, True), text
    # Without statx the loader cannot see whether the directory is mounted, and treats it as mounted.
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


Verify = Callable[..., Result]


@pytest.fixture
def over_image(lab: Lab, tmp_path: Path, as_root: None) -> Verify:
    """Return a function that verifies with a policy of the image and a store that the host mounts."""

    def policy(**rules: Any) -> str:
        key = {"name": "k", "publicKey": base64.b64encode(lab.key.der).decode()} | rules.pop("key", {})
        return json.dumps({"policyVersion": 1, "threshold": 1, "keys": [key], **rules})

    def verify(image: Any, host: Any, *options: str) -> Result:
        for name, rules in (("trust", image), ("trust.host", host)):
            directory = tmp_path / "etc" / name
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
            if rules is None:
                (directory / "dev.pub").write_bytes(lab.key.pem)
            else:
                (directory / "policy.json").write_text(rules if isinstance(rules, str) else policy(**rules))
        script = f'mkdir -p /etc/buildtool && mount --bind "{tmp_path}/etc" /etc/buildtool && exec "$@"'
        argv = [str(lab.loader), "--objects", str(tmp_path / "objects"), *(options or ("--verify-only",))]
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", script, "sh", *argv], capture_output=True, text=True, check=False
        )
        return Result(done.returncode, parse(done.stderr), done.stdout)

    return verify


MINIMUM = {"objects": {"raw_tp.bpf.o": {"minimumVersion": 2}}}
STRICT: dict[str, tuple[dict[str, Any], str, str]] = {
    "an older version": (MINIMUM, "rolled-back", "the image's policy: "),
    "another project": ({"project": "other"}, "denied-by-policy", "the image's policy: "),
    "another platform": ({"platforms": ["linux/mips"]}, "denied-by-policy", "the image's policy: "),
    "another type": ({"programTypes": ["xdp"]}, "denied-by-policy", "the image's policy: "),
    "another section": ({"attachPoints": ["xdp"]}, "denied-by-policy", "the image's policy: "),
    "a denied helper": ({"deniedHelpers": [1]}, "denied-by-policy", "the image's policy: "),
    "a large object": ({"maxObjectBytes": 64}, "too-large", "the image's policy: "),
    "a revoked key": ({"key": {"revoked": True}}, "revoked", "the image's policy: "),
}


@pytest.mark.parametrize("name", STRICT)
def test_rules_of_the_image_hold_beside_the_hosts(
    lab: Lab, tmp_path: Path, over_image: Verify, name: str
) -> None:
    """The image's rules apply beside the host's store, unless its policy sets `imageRules` to "ignore"."""
    lab.put(tmp_path, "raw_tp", version=1)
    rules, reason, words = STRICT[name]
    for host in (None, {}, {"imageRules": "combine"}):
        result = over_image(rules, host)
        assert (result.code, result.reasons) == (3, [reason])
        (line,) = result.events("verify")
        assert line["message"].startswith(words)
        assert (
            line["imagePolicy"]
            == hashlib.sha256((tmp_path / "etc/trust/policy.json").read_bytes()).hexdigest()
        )
        assert line["policy"] != line["imagePolicy"]
    result = over_image(rules, {"imageRules": "ignore"})
    assert result.code == 0, result.lines
    assert "imagePolicy" not in result.events("verify")[0]
    # The image's policy cannot lift the host's rules, and without a host's store it stands alone.
    refused = over_image({"imageRules": "ignore"}, rules)
    assert (refused.code, refused.reasons) == (3, [reason])
    assert "image" not in refused.events("verify")[0]["message"]


def test_keys_and_clock_are_the_hosts_alone(lab: Lab, tmp_path: Path, over_image: Verify) -> None:
    """The image's keys, threshold and key dates do not apply beside the host's store."""
    lab.put(tmp_path, "raw_tp", version=2)
    other = base64.b64encode(Key().der).decode()
    assert over_image({}, {"key": {"publicKey": other}}).reasons == ["unknown-key"]
    assert (
        over_image({"key": {"publicKey": other, "notAfter": "2020-01-01T00:00:00Z"}} | MINIMUM, {}).code == 0
    )
    assert over_image({"threshold": 2}, {}).code == 0
    assert over_image("{", {}).code == 2
    assert over_image("{", {"imageRules": "ignore"}).code == 0
    assert "imageRules: neither" in over_image({}, {"imageRules": "maybe"}).message
    assert over_image(None, {}).code == 0


def test_targets_must_fit_both_policies(lab: Lab, tmp_path: Path, over_image: Verify) -> None:
    """A target that the image's attachPoints deny is refused, although the host's allow it."""
    lab.put(tmp_path, "nowhere")
    option = f"--attach={PREFIX}_tp=sched/sched_switch"
    result = over_image({"attachPoints": ["tracepoint"]}, {"attachPoints": ["tracepoint*"]}, option)
    assert (result.code, result.events("refuse")[0]["message"].split(": ")[-2]) == (3, "denied-by-policy")


def test_named_store_stands_alone(lab: Lab, tmp_path: Path, over_image: Verify) -> None:
    """The image's rules do not apply beside a store that an operator names."""
    lab.put(tmp_path, "raw_tp")
    image = {"programTypes": ["xdp"]}
    assert over_image(image, {}, "--verify-only").reasons == ["denied-by-policy"]
    for name, code in (("trust.host", 0), ("trust", 3)):
        result = over_image(image, {}, "--verify-only", "--trust", f"/etc/buildtool/{name}")
        assert result.code == code, result.lines
        assert "imagePolicy" not in result.events("verify")[0]


def test_store_of_too_many_files(lab: Lab, tmp_path: Path) -> None:
    """A directory of keys has at most 1024 entries; names that begin with a dot do not count."""
    lab.put(tmp_path, "raw_tp")
    for number in range(1023):
        (tmp_path / f"trust/{number}").touch()
    (tmp_path / "trust/.hidden").touch()
    assert lab.run(tmp_path, "--verify-only").code == 0
    (tmp_path / "trust/more").touch()
    result = lab.run(tmp_path, "--verify-only")
    assert (result.code, "more than 1024 files" in result.message) == (2, True)
