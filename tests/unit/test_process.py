# SPDX-License-Identifier: Apache-2.0
"""Starting programs: argument lists, errors in our words, and nothing left running."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from buildtool.core.errors import ToolFailedError, ToolMissingError, UsageError
from buildtool.core.process import Runner, _deferred_interrupts, check_operand, run_console, run_parallel
from buildtool.core.relay import KEPT_BYTES


def _running(directory: Path) -> list[int]:
    """Return which of the written pids run; one that only waits for its parent's look has ended."""
    pids = [int(word) for word in (directory / "pids").read_text("ascii").split()]
    return [pid for pid in pids if _state(pid) not in ("", "Z", "X")]


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(") ")[2][:1]
    except OSError:
        return ""


def test_arguments_reach_the_program_as_they_are() -> None:
    """Arguments reach the program unchanged, without a shell."""
    done = Runner().run(["printf", "%s|", "a b", "$HOME", "*", "`id`"])
    assert done.stdout == b"a b|$HOME|*|`id`|"


def test_the_log_shows_no_password_of_a_uri(caplog: pytest.LogCaptureFixture) -> None:
    """A mirror's URI is an argument of mmdebstrap; the digest of an image is no password."""
    caplog.set_level("DEBUG", "buildtool.core.process")
    Runner().run(["true", "http://me:hun@ter/2@mirror.test/debian", "docker-image://registry/x@sha256:00"])
    assert caplog.messages == ["run: true http://mirror.test/debian docker-image://registry/x@sha256:00"]


def test_input_environment_and_directory(tmp_path: Path) -> None:
    """The environment is added to ours."""
    done = Runner().run(["sh", "-c", 'cat; echo "$X"; pwd'], stdin=b"in\n", env={"X": "y"}, cwd=tmp_path)
    assert done.stdout == f"in\ny\n{tmp_path}\n".encode()


def test_failures_carry_what_the_program_said() -> None:
    """The detail is the program's own text."""
    with pytest.raises(ToolFailedError, match=r"^sh failed with exit code 7$") as caught:
        Runner().run(["sh", "-c", "echo oops >&2; exit 7"])
    assert caught.value.detail == "oops"
    assert Runner().run(["sh", "-c", "exit 7"], check=False).returncode == 7


def test_what_a_program_says_is_passed_on_and_kept(capfd: pytest.CaptureFixture[str]) -> None:
    """The program's stderr is that of this process, and its end is in the result."""
    argv = ["sh", "-c", "cat; echo first >&2; head -c 300000 /dev/zero >&2; echo last >&2; exit 3"]
    done = Runner().run(argv, stdin=b"in", show_stderr=True, check=False)
    said = capfd.readouterr().err
    assert (done.returncode, done.stdout) == (3, b"in")
    assert said.startswith("first\n")
    assert len(said) == 300_000 + len("first\nlast\n")
    assert done.stderr.endswith(b"\0last\n")
    assert len(done.stderr) == KEPT_BYTES


def test_a_terminal_is_passed_on_as_a_terminal() -> None:
    """A program sees a terminal of the same size if this process's stderr is one."""
    main, side = os.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("4H", 33, 77, 0, 0))
    program = "import os; assert os.isatty(2); print(*os.get_terminal_size(2))"
    script = (
        "import sys; from buildtool.core.process import Runner;"
        f"print(Runner().run([sys.executable, '-c', {program!r}], show_stderr=True).stdout.decode())"
    )
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=side, check=True)
    os.close(side)
    os.close(main)
    assert done.stdout.split() == [b"77", b"33"]


def test_a_terminal_without_a_second_one(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container without /dev/pts, the program gets a pipe."""

    def openpty() -> tuple[int, int]:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(os, "openpty", openpty)
    monkeypatch.setattr(os, "isatty", lambda descriptor: descriptor == 2)
    done = Runner().run(["sh", "-c", "echo said >&2"], show_stderr=True)
    assert done.stderr == b"said\n"
    assert capfd.readouterr().err == "said\n"


def test_a_program_that_cannot_start_leaves_no_descriptor() -> None:
    """The pipe for a missing program's stderr is closed."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(ToolMissingError):
        Runner().run(["no-such-tool"], show_stderr=True)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_programs_that_cannot_start(tmp_path: Path) -> None:
    """Missing, and not executable."""
    with pytest.raises(ToolMissingError, match=r"^no-such-tool: not found$"):
        Runner().run(["no-such-tool"])
    (tmp_path / "x").write_text("x", encoding="utf-8")
    with pytest.raises(ToolFailedError, match="cannot start: permission denied"):
        run_parallel([[str(tmp_path / "x")]], jobs=1)
    with pytest.raises(ToolMissingError):
        run_parallel([["no-such-tool"]], jobs=1)


def test_parallel_results_keep_their_order() -> None:
    """Results are in the order of commands, and long messages do not block."""
    script = 'sleep 0.$1; head -c 200000 /dev/zero | tr "\\0" "$1" >&2; exit $1'
    ended: list[int] = []
    done = run_parallel(
        [["sh", "-c", script, "sh", digit] for digit in "3102"], jobs=3, on_end=lambda: ended.append(1)
    )
    assert [end.returncode for end in done] == [3, 1, 0, 2]
    assert [end.stderr for end in done] == [digit.encode() * 200000 for digit in "3102"]
    assert len(ended) == 4


def test_no_more_than_jobs_at_once(tmp_path: Path) -> None:
    """At most *jobs* programs run at once, as each counts."""
    script = f"d={tmp_path}; touch $d/$$; ls $d | wc -l >&2; sleep 0.05; rm $d/$$"
    done = run_parallel([["sh", "-c", script]] * 6, jobs=2)
    assert max(int(end.stderr) for end in done) <= 2


def test_an_exception_ends_what_runs(tmp_path: Path) -> None:
    """Also the programs that the programs started."""
    quick = ["sh", "-c", "sleep 0.3"]
    slow = ["sh", "-c", f"echo $$ >> {tmp_path}/pids; sleep 1000 & echo $! >> {tmp_path}/pids; wait"]

    def fail() -> None:
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - any exception will do
        run_parallel([quick, slow], jobs=2, on_end=fail)
    time.sleep(0.1)
    assert not _running(tmp_path)


@pytest.mark.parametrize("silent", ["", "exec >&- 2>&-;"], ids=["console", "no-console"])
def test_a_console_has_a_time_limit(tmp_path: Path, silent: str) -> None:
    """After the time limit, the program and its children are killed, even if it closed its console."""
    script = f"cd {tmp_path}; echo said; {silent} sleep 1000 & echo $$ $! > pids; wait"
    done = run_console(["sh", "-c", script], timeout_seconds=1, max_bytes=1000)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"said\n")
    while _running(tmp_path):
        time.sleep(0.01)


def test_an_interrupt_waits_until_a_child_is_known() -> None:
    """Raised inside the block it arrives at its end, and the handler is back."""
    before = signal.getsignal(signal.SIGINT)
    known = False
    with pytest.raises(KeyboardInterrupt), _deferred_interrupts():  # noqa: PT012 - the order is the point
        os.kill(os.getpid(), signal.SIGINT)
        known = True
    assert known
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("value", ["-x", "@x", "", "a\0b"])
def test_operands_that_programs_would_misread(value: str) -> None:
    """Options and response files."""
    with pytest.raises(UsageError):
        check_operand(value)
