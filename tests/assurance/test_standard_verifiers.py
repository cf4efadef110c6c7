# SPDX-License-Identifier: Apache-2.0
"""Verifiers of other projects accept the envelopes that `inspect` exports, and refuse tampered ones."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from labs import TOP
from labs.sig import other_key, sign, test_key, vector

from buildtool.cli.inspect import command as inspect
from buildtool.signing.keys import load_public_key
from buildtool.signing.statement import PREDICATE_TYPE

COSIGN_SUITE = "trixie"


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """Return a directory with envelope.json, x.subject and alice.pub, made by the documented commands."""
    (tmp_path / "x.bpf.o").write_bytes(sign())
    (tmp_path / "alice.pub").write_bytes(test_key().public.pem)
    (tmp_path / "other.pub").write_bytes(other_key().public.pem)
    argv = [str(tmp_path / "x.bpf.o"), "--envelope", "--subject-file", str(tmp_path / "x.subject")]
    done = CliRunner().invoke(inspect, argv)
    assert done.exit_code == 0, done.output
    (tmp_path / "envelope.json").write_text(done.stdout)
    return tmp_path


def edit_envelope(pair: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Change the envelope by *edit*."""
    path = pair / "envelope.json"
    envelope = json.loads(path.read_text())
    edit(envelope)
    path.write_text(json.dumps(envelope))


def change_statement(pair: Path) -> None:
    """Raise the version in the statement."""

    def edit(envelope: dict[str, Any]) -> None:
        text = base64.b64decode(envelope["payload"])
        assert b'"version":3' in text
        envelope["payload"] = base64.b64encode(text.replace(b'"version":3', b'"version":4')).decode()

    edit_envelope(pair, edit)


def change_signature(pair: Path) -> None:
    """Flip a bit of the signature."""

    def edit(envelope: dict[str, Any]) -> None:
        raw = bytearray(base64.b64decode(envelope["signatures"][0]["sig"]))
        raw[40] ^= 1
        envelope["signatures"][0]["sig"] = base64.b64encode(raw).decode()

    edit_envelope(pair, edit)


def change_type(pair: Path) -> None:
    """Change the payload type."""
    edit_envelope(pair, lambda envelope: envelope.update(payloadType="application/vnd.in-toto.bundle+json"))


def change_subject(pair: Path) -> None:
    """Flip a bit of the subject."""
    data = bytearray((pair / "x.subject").read_bytes())
    data[70] ^= 1
    (pair / "x.subject").write_bytes(data)


def change_key(pair: Path) -> None:
    """Replace the trusted key."""
    shutil.copyfile(pair / "other.pub", pair / "alice.pub")


ENVELOPE_CHANGES = (change_statement, change_signature, change_type, change_key)


def trusted_key(pair: Path) -> Any:
    """Return alice.pub in securesystemslib's form, with our key id."""
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey

    public = load_public_key(pair / "alice.pub")
    return SSlibKey.from_crypto(load_pem_public_key(public.pem), keyid=public.key_id)


def securesystemslib_accepts(pair: Path) -> bool:
    """Return the verdict of securesystemslib, the library of TUF and in-toto."""
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import VerificationError

    envelope = Envelope.from_dict(json.loads((pair / "envelope.json").read_text()))
    try:
        return bool(envelope.verify([trusted_key(pair)], 1))
    except VerificationError:
        return False


def in_toto_accepts(pair: Path) -> bool:
    """Return the verdict of in-toto's own reader of envelopes."""
    from in_toto.exceptions import SignatureVerificationError
    from in_toto.models.metadata import Envelope

    envelope = Envelope.from_dict(json.loads((pair / "envelope.json").read_text()))
    key = trusted_key(pair)
    try:
        envelope.verify_signature({"keyid": key.keyid, **key.to_dict()})
    except SignatureVerificationError:
        return False
    return True


def openssl_accepts(pair: Path) -> bool:
    """Return openssl's verdict on the raw signature."""
    if shutil.which("openssl") is None:
        pytest.skip("needs-tool: openssl")
    envelope = json.loads((pair / "envelope.json").read_text())
    payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"].encode()
    (pair / "pae").write_bytes(b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload))
    (pair / "raw").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    argv = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", "alice.pub", "-sigfile", "raw"]
    done = subprocess.run([*argv, "-in", "pae"], cwd=pair, capture_output=True, check=False)
    assert (done.returncode == 0) == (b"Verified Successfully" in done.stdout)
    return done.returncode == 0


@pytest.mark.parametrize("accepts", [securesystemslib_accepts, in_toto_accepts, openssl_accepts])
def test_envelope_is_accepted_and_tampering_refused(accepts: Callable[[Path], bool], pair: Path) -> None:
    """The exported envelope is accepted; one with a changed part, or another key, is refused."""
    original = (pair / "envelope.json").read_text()
    trusted = (pair / "alice.pub").read_bytes()
    assert accepts(pair)
    for change in ENVELOPE_CHANGES:
        change(pair)
        assert not accepts(pair), change.__name__
        (pair / "envelope.json").write_text(original)
        (pair / "alice.pub").write_bytes(trusted)
    assert accepts(pair)


@pytest.fixture(scope="module")
def cosign() -> Path:
    """Unpack Debian's cosign below .cache and return its path."""
    arch = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=False)
    directory = TOP / ".cache/cosign" / (arch.stdout.strip() or "unknown")
    if arch.returncode != 0:
        pytest.skip("needs-tool: dpkg")
    argv = [TOP / "tools/sysroot", arch.stdout.strip(), directory, COSIGN_SUITE, "cosign"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return directory / "usr/bin/cosign"


def cosign_accepts(cosign: Path, pair: Path, kind: str = PREDICATE_TYPE) -> bool:
    """Return cosign's verdict on envelope and subject, without a network."""
    argv = ["unshare", "--net", "--map-root-user"] if shutil.which("unshare") else []
    argv += [str(cosign), "verify-blob-attestation", "--key", "alice.pub", "--signature", "envelope.json"]
    argv += ["--type", kind, "--insecure-ignore-tlog", "x.subject"]
    env = {"HOME": str(pair), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(argv, cwd=pair, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == ("Verified OK" in done.stderr), done.stderr
    return done.returncode == 0


def test_cosign_verifies_the_pair_offline(cosign: Path, pair: Path) -> None:
    """Debian's cosign accepts envelope and subject, and refuses a change of either, of key or type."""
    files = {name: (pair / name).read_bytes() for name in ("envelope.json", "x.subject", "alice.pub")}
    assert cosign_accepts(cosign, pair)
    assert not cosign_accepts(cosign, pair, kind="urn:buildtool:ebpf-object:v2")
    for change in (*ENVELOPE_CHANGES, change_subject):
        change(pair)
        assert not cosign_accepts(cosign, pair), change.__name__
        for name, data in files.items():
            (pair / name).write_bytes(data)
    assert cosign_accepts(cosign, pair)


def test_cosign_refuses_another_object_with_this_envelope(cosign: Path, pair: Path) -> None:
    """An envelope is refused for another object."""
    (pair / "y.bpf.o").write_bytes(vector("larger-section"))
    (pair / "x.subject").unlink()
    argv = [str(pair / "y.bpf.o"), "--subject-file", str(pair / "x.subject")]
    assert CliRunner().invoke(inspect, argv).exit_code == 0
    assert not cosign_accepts(cosign, pair)
