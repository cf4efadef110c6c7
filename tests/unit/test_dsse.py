# SPDX-License-Identifier: Apache-2.0
"""The signing input and the envelope, checked by independent tools."""

from __future__ import annotations

import json
import shutil
import subprocess
from base64 import b64decode
from pathlib import Path

import pytest
from labs.sig import sign, test_key

from buildtool.image.inspect import signature_record, subject_file
from buildtool.signing.dsse import envelope_json, signing_input


def test_signing_input_counts_bytes() -> None:
    """The example of the DSSE specification's form, with a text longer in bytes than in characters."""
    assert signing_input("\u00e4".encode()) == b"DSSEv1 28 application/vnd.in-toto+json 2 \xc3\xa4"


@pytest.mark.tools
def test_openssl_verifies_the_signature_of_the_envelope(tmp_path: Path) -> None:
    """The envelope holds all that a standard tool needs."""
    if shutil.which("openssl") is None:
        pytest.skip("needs-tool: openssl")
    envelope = json.loads(envelope_json(signature_record(sign())))
    payload = b64decode(envelope["payload"])
    kind = envelope["payloadType"].encode()
    (tmp_path / "pae").write_bytes(b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload))
    (tmp_path / "sig").write_bytes(b64decode(envelope["signatures"][0]["sig"]))
    (tmp_path / "key.pub").write_bytes(test_key().public.pem)
    verify = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", "key.pub", "-sigfile", "sig"]
    done = subprocess.run([*verify, "-in", "pae"], cwd=tmp_path, capture_output=True, check=False)
    assert b"Verified Successfully" in done.stdout
    (tmp_path / "pae").write_bytes(b"x")
    assert subprocess.run([*verify, "-in", "pae"], cwd=tmp_path, capture_output=True, check=False).returncode


def test_securesystemslib_verifies_the_envelope() -> None:
    """The library of in-toto and TUF accepts it."""
    dsse = pytest.importorskip("securesystemslib.dsse", reason="needs-tool: securesystemslib")
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey

    envelope = dsse.Envelope.from_dict(json.loads(envelope_json(signature_record(sign()))))
    public = test_key().public
    key = SSlibKey.from_crypto(load_pem_public_key(public.pem), keyid=public.key_id)
    assert list(envelope.verify([key], 1)) == [public.key_id]


def test_subject_file_has_the_digest_of_the_statement(tmp_path: Path) -> None:
    """Plain sha256sum of the subject file is the subject's digest."""
    data = sign()
    (tmp_path / "subject").write_bytes(subject_file(data))
    done = subprocess.run(["sha256sum", tmp_path / "subject"], capture_output=True, check=True)
    payload = json.loads(signature_record(data).statement)
    assert done.stdout.split()[0].decode() == payload["subject"][0]["digest"]["sha256"]
