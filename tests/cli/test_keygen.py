# SPDX-License-Identifier: Apache-2.0
"""`keygen`: a pair of files, a key id on stdout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from buildtool.cli.main import run
from buildtool.signing.keys import load_public_key, load_signing_key

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _in_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("BUILDTOOL_SIGNING_KEY", "BUILDTOOL_KEY_PASSPHRASE", "BUILDTOOL_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_makes_a_pair_and_prints_the_key_id(capsys: Capture) -> None:
    """Nothing but the key id is on stdout."""
    assert run(["keygen", "dev"]) == 0
    key_id = capsys.readouterr().out.strip()
    assert load_signing_key(Path("keys/dev.pem"), None).key_id == key_id
    assert load_public_key(Path("keys/dev.pub")).key_id == key_id


def test_json(capsys: Capture) -> None:
    """For machines."""
    assert run(["keygen", "dev", "--dir", "k", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["public"] == "k/dev.pub"


def test_passphrase_file_encrypts(capsys: Capture) -> None:
    """The first line is the passphrase."""
    Path("pass").write_text("secret\nnot this\n")
    assert run(["keygen", "dev", "--passphrase-file", "pass"]) == 0
    assert b"ENCRYPTED" in Path("keys/dev.pem").read_bytes()
    assert load_signing_key(Path("keys/dev.pem"), b"secret").key_id == capsys.readouterr().out.strip()


def test_passphrase_of_the_environment_encrypts(monkeypatch: pytest.MonkeyPatch) -> None:
    """BUILDTOOL_KEY_PASSPHRASE encrypts the new key, and `sign` reads the same variable."""
    monkeypatch.setenv("BUILDTOOL_KEY_PASSPHRASE", "secret")
    assert run(["keygen", "dev"]) == 0
    assert load_signing_key(Path("keys/dev.pem"), b"secret")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["../dev"], 2, "NAME: '../dev' is not a name of a key"),
        (["taken"], 1, "keys/taken.pem: already exists"),
        (["half"], 1, "keys/half.pub: already exists"),
        (["dev", "--dir", "file"], 1, "file: cannot make directory"),
        (["dev", "--passphrase-file", "none"], 1, "none: cannot read"),
        (["dev", "--passphrase-file", "empty"], 2, "empty: the first line is not a passphrase"),
        ([], 2, "missing argument NAME"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    arguments: list[str], code: int, message: str, capsys: Capture
) -> None:
    """Never overwrites, never half a pair."""
    Path("keys").mkdir()
    Path("keys/taken.pem").write_text("mine")
    Path("keys/half.pub").write_text("mine")
    Path("file").touch()
    Path("empty").touch()
    before = sorted(Path().rglob("*"))
    assert run(["keygen", *arguments]) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert message in output.err.splitlines()[0]
    assert len(output.err.splitlines()) <= 2
    assert sorted(Path().rglob("*")) == before
    assert Path("keys/taken.pem").read_text() == "mine"
