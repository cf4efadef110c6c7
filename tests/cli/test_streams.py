# SPDX-License-Identifier: Apache-2.0
"""Standard streams that are closed, full or without a reader: the work is done, the exit code is its own."""

from __future__ import annotations

import array
import fcntl
import io
import os
import shlex
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from labs.sig import sign, unsigned

from buildtool.cli.main import COMMANDS, run
from buildtool.cli.output import write_lines

FULL, CLOSED, LEFT = "> /dev/full", ">&-", "| true"
SAID = {
    FULL: "buildtool: error: cannot write output: no space left on device\n",
    CLOSED: "buildtool: error: cannot write output: bad file descriptor\n",
    LEFT: "",
}
EVERY = pytest.mark.parametrize("output", SAID)


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["keygen", "release"]) == 0
    Path("x.bpf.o").write_bytes(unsigned())
    Path("signed.bpf.o").write_bytes(sign())


def start(command: str, output: str) -> tuple[int, str]:
    """Run `buildtool COMMAND` in a shell with its *output* there; return exit code and stderr."""
    # A reader that has left before anything is written: the shell's pipe would be a race.
    reader = output == LEFT
    script = f"{shlex.quote(sys.executable)} -m buildtool {command} {'' if reader else output}"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        ["sh", "-c", script],
        stdout=write if reader else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    return done.returncode, done.stderr


@EVERY
def test_a_refusal_is_one_whoever_reads(output: str) -> None:
    """Exit code 3 is an alarm: a full disk of a log must not make it a mere failure."""
    for more in ("", " --json", " signed.bpf.o"):
        code, said = start(f"verify --trust keys/release.pub x.bpf.o{more}", output)
        talk = [line for line in said.splitlines(keepends=True) if not line.startswith("buildtool: hint: ")]
        assert (code, "".join(talk)) == (3, SAID[output])
        assert more != " --json" or said == SAID[output]  # machines get no hints


@EVERY
@pytest.mark.parametrize(
    "command", ["--version", "--help", "inspect x.bpf.o", "trust list --policy keys", "check x.bpf.o --json"]
)
def test_what_nobody_gets_is_no_success(output: str, command: str) -> None:
    """Output that cannot be written results in a failure, with one line at most and no traceback."""
    code, said = start(command, output)
    assert code == 1
    assert said.endswith(SAID[output])
    assert "Traceback" not in said


@EVERY
@pytest.mark.parametrize("name", COMMANDS)
def test_help_that_nobody_gets(output: str, name: str) -> None:
    """Of every command."""
    assert start(f"{name} --help", output) == (1, SAID[output])


@EVERY
def test_the_work_is_done_all_the_same(output: str) -> None:
    """Keys are written whole, and what is told of them is told."""
    code, said = start("keygen other", output)
    assert code == 1
    assert said.startswith("buildtool: keys/other.pem signs")
    assert said.endswith(SAID[output])
    assert Path("keys/other.pem").stat().st_size > 100
    assert Path("keys/other.pub").stat().st_size > 100


def test_nothing_to_write_is_success() -> None:
    """A closed output matters to what is written to it only."""
    assert start("inspect signed.bpf.o --subject-file subject", CLOSED) == (0, "buildtool: wrote subject\n")
    assert Path("subject").stat().st_size == Path("signed.bpf.o").stat().st_size


@pytest.mark.parametrize("errors", ["2>&-", "2> /dev/full", "0<&- 1>&- 2>&-"])
def test_errors_that_nobody_reads_have_their_code(errors: str) -> None:
    """And no file gets the number of a stream that is closed, nor what is meant for it."""
    assert start("keygen release", errors) == (1, "")
    assert start("verify --trust keys/release.pub x.bpf.o", errors) == (3, "")
    assert start("nonsense", errors) == (2, "")
    code = 1 if "1>&-" in errors else 0
    assert start("keygen quiet", errors) == (code, "")
    assert Path("keys/quiet.pub").read_text().startswith("-----BEGIN PUBLIC KEY-----\n")


def test_pipe_that_does_not_wait() -> None:
    """A full non-blocking pipe delays the output, and the reader receives all of it."""
    names = [f"signed{number}.bpf.o" for number in range(100)]
    for name in names:
        Path(name).write_bytes(sign())
    read, write = os.pipe()
    size = fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(write, False)
    argv = [sys.executable, "-m", "buildtool", "verify", "--trust", "keys/release.pub", *names]
    with subprocess.Popen(argv, stdout=write, stderr=subprocess.PIPE) as process:
        os.close(write)
        deadline = time.monotonic() + 60
        waiting = array.array("i", [0])
        while waiting[0] < size:
            assert time.monotonic() < deadline
            fcntl.ioctl(read, termios.FIONREAD, waiting)
            time.sleep(0.01)
        with os.fdopen(read) as stream:
            said = stream.read()
        assert process.stderr is not None
        assert process.stderr.read().startswith(b"buildtool: hint: trust the public key of a signer")
    assert [line.partition(":")[0] for line in said.splitlines()] == names


class _Interrupted(io.RawIOBase):
    """A stream on which an interrupt arrives right after each write."""

    written = b""

    def writable(self) -> bool:
        """Return true."""
        return True

    def write(self, data: object) -> int:
        """Take all of *data*, and get an interrupt."""
        self.written += bytes(data)  # type: ignore[call-overload]
        os.kill(os.getpid(), signal.SIGINT)
        return len(data)  # type: ignore[arg-type]


def test_an_interrupt_writes_no_line_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python would write its buffer again, if the interrupt came between the write and the note of it."""
    raw = _Interrupted()
    stream = io.TextIOWrapper(io.BufferedWriter(raw), "utf-8")
    monkeypatch.setattr(sys, "stdout", stream)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        write_lines(f"{number}" for number in range(5000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "kill", lambda *_: None)
        stream.close()
    assert raw.written.decode().splitlines() == [f"{number}" for number in range(1024)]
    assert signal.getsignal(signal.SIGINT) is before
