# SPDX-License-Identifier: Apache-2.0
"""`verify`: one line per object, stable exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from labs.sig import other_key, sign, unsigned, vector
from labs.sig import test_key as alice

from buildtool.cli.main import run

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.bpf.o").write_bytes(sign())
    Path("unsigned.bpf.o").write_bytes(unsigned())
    Path("changed.bpf.o").write_bytes(sign()[:65] + b"\1" + sign()[66:])
    Path("text.bpf.o").write_text("text")
    Path("alice.pub").write_bytes(alice().public.pem)
    Path("other.pub").write_bytes(other_key().public.pem)
    Path("public.txt").write_bytes(alice().public.pem)
    for name in ("alice.pem", "private.pub"):
        Path(name).write_bytes(alice().to_pem(None))
    Path("empty").mkdir()


def test_accepted(capsys: Capture) -> None:
    """Exit code 0 and who signed."""
    assert run(["verify", "good.bpf.o", "--trust", "alice.pub", "--platform", "linux/amd64"]) == 0
    assert capsys.readouterr().out == f"good.bpf.o: accepted  key {alice().key_id[:16]}  version 3\n"


def test_all_objects_are_checked(capsys: Capture) -> None:
    """Each object has a line, in order. A refusal decides the exit code, not an unreadable file."""
    names = ["unsigned.bpf.o", "none.bpf.o", "text.bpf.o", "changed.bpf.o", "good.bpf.o"]
    assert run(["verify", *names, "--trust", "alice.pub"]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == names
    assert lines[0] == "unsigned.bpf.o: refused: unsigned: no section .sig"
    assert lines[1] == "none.bpf.o: error: cannot read: no such file or directory"
    assert lines[2].startswith("text.bpf.o: refused: malformed: ")
    assert lines[3].startswith("changed.bpf.o: refused: digest-mismatch: ")
    assert lines[4].startswith("good.bpf.o: accepted  key ")


def test_unreadable_alone_is_no_refusal() -> None:
    """An unreadable file alone results in exit code 1, not 3."""
    assert run(["verify", "none.bpf.o", "good.bpf.o", "--trust", "alice.pub"]) == 1


def test_json(capsys: Capture) -> None:
    """The words of the loader's decision lines."""
    assert (
        run(["verify", "good.bpf.o", "unsigned.bpf.o", "none.bpf.o", "--trust", "alice.pub", "--json"]) == 3
    )
    good, bad, none = json.loads(capsys.readouterr().out)
    assert (good["decision"], good["keyIds"]) == ("accepted", [alice().key_id])
    assert (bad["decision"], bad["reason"]) == ("refused", "unsigned")
    assert none["event"] == "error"
    assert len({good["policy"], bad["policy"], none["policy"]}) == 1


@pytest.mark.parametrize(
    ("name", "reason"),
    [("record-version-2", "malformed"), ("signature-zero", "bad-signature"), ("expired", "expired")],
)
def test_reason_is_shown(name: str, reason: str, capsys: Capture) -> None:
    """The reason is the word after `refused`."""
    Path("v.bpf.o").write_bytes(vector(name))
    assert run(["verify", "v.bpf.o", "--trust", "alice.pub"]) == 3
    assert capsys.readouterr().out.startswith(f"v.bpf.o: refused: {reason}: ")


def test_other_platform_and_other_key_are_refused(capsys: Capture) -> None:
    """The message contains the platform of the object and the key id of its signer."""
    assert run(["verify", "good.bpf.o", "--trust", "alice.pub", "--platform", "arm64"]) == 3
    assert "wrong-platform: signed for 'linux/amd64', not linux/arm64" in capsys.readouterr().out
    assert run(["verify", "good.bpf.o", "--trust", "other.pub"]) == 3
    assert alice().key_id in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trust", "none.pub"], "none.pub: cannot read"),
        (["--trust", "empty"], "empty: trust store without a key"),
        (["--trust", "empty", "--trust", "empty"], "empty, empty: trust store without a key"),
        (["--trust", "alice.pem"], "alice.pem: a private key"),
        (["--trust", "private.pub"], "private.pub: a private key"),
        (["--trust", "public.txt"], "public.txt: not a policy but a public key"),
        (["--trust", "good.bpf.o"], "good.bpf.o: "),
        (["--trust", "alice.pub", "--trust", "alice.pub"], "is listed twice, as 'alice'"),
        (["--trust", "alice.pub", "--platform", "pdp11"], "unknown architecture 'pdp11'"),
        ([], "missing option --trust"),
    ],
)
def test_bad_store_is_a_configuration_error(arguments: list[str], message: str, capsys: Capture) -> None:
    """Exit code 2, one line, and no object was judged."""
    assert run(["verify", "good.bpf.o", *arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert message in output.err.splitlines()[0]
    assert len(output.err.splitlines()) <= 2
