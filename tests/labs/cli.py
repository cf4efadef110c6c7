# SPDX-License-Identifier: Apache-2.0
"""Run the command line in a project, and check errors and signed files."""

from __future__ import annotations

from pathlib import Path

import pytest

from buildtool.cli.main import run
from buildtool.signing.keys import PublicKey
from buildtool.trust.store import trust_keys
from buildtool.trust.verify import verify_object
from labs.sig import NOW, copy_test_key, unsigned

BUILD = ("build", "--engine", "local", "--arch", "amd64")


def check_error(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Check that stderr has one error line, which contains *text*, and that stdout is empty."""
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("buildtool: error:")]
    assert len(lines) == 1, captured.err
    assert text in lines[0]
    assert captured.out == ""


def left(project: Path) -> list[str]:
    """Return the names of files in the project that a command added."""
    own = {"bpf", "include", "keys", "buildtool.toml", "base.tar"}
    return sorted(path.name for path in project.iterdir() if path.name not in own)


Capture = pytest.CaptureFixture[str]


SIGN = ["sign", "x.bpf.o", "--arch", "amd64", "--force"]


def enter_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make *tmp_path*, with an unsigned object and a key, the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    Path("x.bpf.o").write_bytes(unsigned())
    copy_test_key(tmp_path)


def signers_of(path: str, *keys: PublicKey) -> tuple[str, ...]:
    """Verify file *path* with *keys* and return the key ids that counted."""
    return verify_object(Path(path).read_bytes(), trust_keys(keys), platform=None, now=NOW).key_ids


def refused(arguments: list[str], capsys: Capture, code: int = 1) -> str:
    """Run the command, check the exit *code* and that the object is unchanged, and return the error line."""
    before = Path("x.bpf.o").read_bytes()
    assert run(arguments) == code
    assert Path("x.bpf.o").read_bytes() == before
    output = capsys.readouterr()
    assert output.out == ""
    assert "Traceback" not in output.err
    return next(line for line in output.err.splitlines() if line.startswith("buildtool: error:"))
