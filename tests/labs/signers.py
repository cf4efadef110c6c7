# SPDX-License-Identifier: Apache-2.0
"""What tests of signers share: an object to sign, who signed it, and what a refusal looks like."""

from __future__ import annotations

from pathlib import Path

import pytest

from buildtool.cli.main import run
from buildtool.signing.keys import PublicKey
from buildtool.trust.store import trust_keys
from buildtool.trust.verify import verify_object
from labs.sig import NOW, copy_test_key, unsigned

Capture = pytest.CaptureFixture[str]
SIGN = ["sign", "x.bpf.o", "--arch", "amd64", "--force"]


def make_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go to a directory with an unsigned object and a key."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    Path("x.bpf.o").write_bytes(unsigned())
    copy_test_key(tmp_path)


def signers_of(path: str, *keys: PublicKey) -> tuple[str, ...]:
    """Verify file *path* with *keys* and return the key ids that counted."""
    return verify_object(Path(path).read_bytes(), trust_keys(keys), platform=None, now=NOW).key_ids


def refused(arguments: list[str], capsys: Capture, code: int = 1) -> str:
    """Run, expect exit code and an object as it was, and return the error line."""
    before = Path("x.bpf.o").read_bytes()
    assert run(arguments) == code
    assert Path("x.bpf.o").read_bytes() == before
    output = capsys.readouterr()
    assert output.out == ""
    assert "Traceback" not in output.err
    return next(line for line in output.err.splitlines() if line.startswith("buildtool: error:"))
