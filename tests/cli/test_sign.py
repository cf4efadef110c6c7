# SPDX-License-Identifier: Apache-2.0
"""`sign`: options over environment over file, and every kind of bad input."""

from __future__ import annotations

import errno
import json
import os
import resource
from pathlib import Path

import pytest
from labs.sig import NOW, copy_test_key, store, unsigned, vector
from labs.sig import test_key as alice

from buildtool.cli.main import run
from buildtool.core import files
from buildtool.signing.keys import generate_key, save_key
from buildtool.signing.statement import Statement
from buildtool.trust.verify import verify_object

PAST = "2020-01-01T00:00:00Z"

Capture = pytest.CaptureFixture[str]
SIGN = ["sign", "x.bpf.o", "--arch", "amd64", "--key", "alice.pem"]


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("BUILDTOOL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    Path("x.bpf.o").write_bytes(unsigned())
    copy_test_key(tmp_path)


def statement(path: str = "x.bpf.o") -> Statement:
    """Verify file *path* and return its statement."""
    return verify_object(Path(path).read_bytes(), store(), platform=None, now=NOW).statement


def test_signs_in_place(capsys: Capture) -> None:
    """One line for each object; the epoch is the statement's time."""
    assert run(SIGN) == 0
    assert capsys.readouterr().out == f"x.bpf.o: signed  linux/amd64  key {alice().key_id[:16]}\n"
    assert statement().created == 1_767_225_600


def test_options_go_over_environment_over_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """As everywhere."""
    Path("buildtool.toml").write_text(
        '[project]\nname = "file"\nversion = 1\nrelease = "1"\n[sign]\nnot-after = 2030-01-01T00:00:00Z\n'
    )
    monkeypatch.setenv("BUILDTOOL_OBJECT_VERSION", "2")
    monkeypatch.setenv("BUILDTOOL_RELEASE", "2")
    assert run([*SIGN, "--release", "3", "--created", "2026-02-03T04:05:06Z"]) == 0
    signed = statement()
    assert (signed.project, signed.version, signed.release) == ("file", 2, "3")
    assert (signed.created, signed.not_after) == (1_770_091_506, 1_893_456_000)
    options = [
        "--project",
        "option",
        "--object-version",
        "0",
        "--not-after",
        "2031-01-01T00:00:00Z",
        "--force",
    ]
    assert run([*SIGN, *options]) == 0
    assert (statement().project, statement().version, statement().not_after) == ("option", 0, 1_924_992_000)


def test_key_text_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key's text in the environment is used, and --key overrides it."""
    monkeypatch.setenv("BUILDTOOL_SIGNING_KEY", Path("alice.pem").read_text())
    assert run(["sign", "x.bpf.o", "--arch", "amd64"]) == 0
    assert statement()


def test_key_of_the_configuration() -> None:
    """sign.key."""
    Path("buildtool.toml").write_text('[sign]\nkey = "alice.pem"\n')
    assert run(["sign", "x.bpf.o", "--arch", "amd64"]) == 0
    assert statement()


def test_encrypted_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture) -> None:
    """By file or variable; without either, and without a terminal, a clear error."""
    save_key(generate_key(), "locked", tmp_path, b"secret")
    command = ["sign", "x.bpf.o", "--arch", "amd64", "--key", "locked.pem", "--force"]
    assert run(command) == 1
    said = capsys.readouterr().err
    assert "locked.pem: encrypted, and no passphrase was given" in said
    for way in ("BUILDTOOL_KEY_PASSPHRASE", "--passphrase-file", "--passphrase-fd"):
        assert way in said
    monkeypatch.setenv("BUILDTOOL_KEY_PASSPHRASE", "wrong")
    assert run(command) == 1
    assert "wrong passphrase" in capsys.readouterr().err
    monkeypatch.setenv("BUILDTOOL_KEY_PASSPHRASE", "secret")
    assert run(command) == 0
    monkeypatch.delenv("BUILDTOOL_KEY_PASSPHRASE")
    (tmp_path / "pass").write_text("secret\n")
    assert run([*command, "--passphrase-file", "pass"]) == 0


def test_json_and_output_directory(capsys: Capture) -> None:
    """The source stays unsigned."""
    assert run([*SIGN, "--output", "out", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["file"] == "out/x.bpf.o"
    assert entry["sha256"] == statement("out/x.bpf.o").digest
    assert Path("x.bpf.o").read_bytes() == unsigned()


def test_expected_key_id(capsys: Capture) -> None:
    """The message has both ids."""
    assert run([*SIGN, "--expect-key-id", alice().key_id.upper()]) == 0
    assert run([*SIGN, "--force", "--expect-key-id", "ab" * 32]) == 1
    error = capsys.readouterr().err
    assert alice().key_id in error
    assert "ab" * 32 in error


def _prepare_bad_files() -> None:
    Path("text.o").write_text("#!/bin/sh\n")
    Path("empty.o").touch()
    Path("cut.o").write_bytes(unsigned()[:-40])
    host = bytearray(unsigned())
    host[18:20] = (62).to_bytes(2, "little")
    Path("host.o").write_bytes(host)
    Path("big.o").write_bytes(vector("unsigned-big-endian"))
    Path("signed.o").write_bytes(vector("plain"))
    Path("large.o").write_bytes(bytes(64 * 1024 * 1024 + 1))
    Path("dir.o").mkdir()
    os.mkfifo("fifo.o")
    Path("open.pem").write_bytes(Path("alice.pem").read_bytes())
    Path("open.pem").chmod(0o644)
    Path("bad.toml").write_text("[sign]\nkeys = 1\n")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["text.o"], 1, "text.o: not an ELF file"),
        (["empty.o"], 1, "empty.o: not an ELF file"),
        (["cut.o"], 1, "cut.o: section header table outside the file: truncated or damaged"),
        (["host.o"], 1, "host.o: not an eBPF object: ELF machine 62"),
        (["big.o"], 2, "big.o: a big-endian object, but linux/amd64 has the other byte order"),
        (["signed.o"], 1, "signed.o: already signed"),
        (["signed.o", "--force"], 1, "signed.o: section .sig was written or moved by another tool"),
        (["large.o"], 1, "large.o: larger than 67108864 bytes"),
        (["none.o"], 1, "none.o: cannot read: no such file or directory"),
        (["dir.o"], 1, "dir.o: a directory, not a file"),
        (["fifo.o"], 1, "fifo.o: not a regular file"),
        (["x.bpf.o", "--key", "none.pem"], 1, "signing key none.pem: no such file"),
        (["x.bpf.o", "--key", "open.pem"], 1, "signing key open.pem: mode 0644 lets others use it"),
        (["x.bpf.o", "--key", "x.bpf.o"], 1, "signing key x.bpf.o: "),
        (["x.bpf.o", "--arch", "pdp11"], 2, "unknown architecture 'pdp11'"),
        (["x.bpf.o", "--not-after", "tomorrow"], 2, "'tomorrow' is not a time"),
        (["x.bpf.o", "--not-after", PAST], 2, f"not-after {PAST} has passed: verifiers would refuse"),
        (
            ["x.bpf.o", "--created", "9000-01-01T00:00:00Z", "--not-after", "9001-01-01T00:00:00Z"],
            2,
            "the creation time 9000-01-01T00:00:00Z is in the future",
        ),
        (["x.bpf.o", "--object-version", "-1"], 2, "--object-version: -1 is not an integer from 0 to "),
        (["x.bpf.o", "--release", "a\nb"], 2, "control characters"),
        (["x.bpf.o", "--project", "a b"], 2, "is not a project name"),
        (["x.bpf.o", "--config", "none.toml"], 2, "none.toml: cannot read"),
        (["x.bpf.o", "--config", "bad.toml"], 2, "bad.toml:2: unknown key sign.keys"),
        (["x.bpf.o", "--output", "text.o"], 1, "text.o"),
        ([], 2, "missing argument"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(
    arguments: list[str], code: int, message: str, capsys: Capture
) -> None:
    """Even when a good object is signed by the same command."""
    _prepare_bad_files()
    Path("x.bpf.o").chmod(0o600)  # a file that may be read as a key, but is none
    before = {path: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    good = ["a.bpf.o"] if arguments else []
    before |= {Path(name): unsigned() for name in good}
    for name in good:
        Path(name).write_bytes(unsigned())
    defaults = ["--arch", "amd64", "--key", "alice.pem"]
    assert run(["sign", *defaults, *good, *arguments]) == code
    output = capsys.readouterr()
    assert output.out == ""
    lines = output.err.splitlines()
    assert message in lines[0]
    assert len(lines) <= 2
    assert {path: path.read_bytes() for path in Path().iterdir() if path.is_file()} == before


def test_no_key_at_all(capsys: Capture) -> None:
    """Without a key, the hint of the usage error names the ways to pass one."""
    assert run(["sign", "x.bpf.o", "--arch", "amd64"]) == 2
    assert "no signing key" in capsys.readouterr().err


def test_wrong_source_date_epoch(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """A wrong SOURCE_DATE_EPOCH is an error, and nothing is signed."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    assert run(SIGN) == 2
    assert "SOURCE_DATE_EPOCH: 'yesterday' is not a number" in capsys.readouterr().err


def test_disk_full_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """A write that fails half way through the second object leaves both as they were, and no other file."""
    Path("y.bpf.o").write_bytes(unsigned())
    calls = []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", fsync)
    assert run([*SIGN, "y.bpf.o"]) == 1
    assert "y.bpf.o: cannot write: no space left on device" in capsys.readouterr().err
    assert Path("x.bpf.o").read_bytes() == Path("y.bpf.o").read_bytes() == unsigned()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alice.pem", "x.bpf.o", "y.bpf.o"]


def test_file_size_limit_changes_nothing(tmp_path: Path) -> None:
    """The same with a limit of the real kernel."""
    pid = os.fork()
    if pid == 0:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        os._exit(run(SIGN))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert Path("x.bpf.o").read_bytes() == unsigned()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alice.pem", "x.bpf.o"]
