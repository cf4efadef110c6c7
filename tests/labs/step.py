# SPDX-License-Identifier: Apache-2.0
"""Run a program under ptrace, stop it at the n-th boundary of a system call, and run an event there."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

_TRACEME, _CONT, _DETACH, _SYSCALL = 0, 7, 17, 24
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


def _trace_me() -> None:
    _libc.ptrace(_TRACEME, 0, None, None)


def run_with_event(
    argv: Sequence[str], boundary: int, event: Callable[[], None], log: Path
) -> tuple[int, str, bool]:
    """
    Run *argv*, call *event* at the entry or exit of a system call with number *boundary*, and continue.

    Return exit code, stdout, and whether the program reached the boundary. stderr is written to *log*.
    """
    process = _start(argv, log)
    came = _step(process.pid, boundary)
    if came:
        event()
        _libc.ptrace(_DETACH, process.pid, None, None)
    stdout, _ = process.communicate(timeout=30)
    return process.returncode, stdout, came


def kill_at_boundary(
    argv: Sequence[str], boundary: int, log: Path, event: Callable[[], None] = lambda: None
) -> bool:
    """Run *argv*, call *event* at *boundary*, and kill the program. Return whether it came that far."""
    process = _start(argv, log)
    came = _step(process.pid, boundary)
    if came:
        event()
    process.kill()
    process.communicate(timeout=30)
    return came


def _start(argv: Sequence[str], log: Path) -> subprocess.Popen[str]:
    with log.open("wb") as stderr:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            preexec_fn=_trace_me,  # noqa: PLW1509 - the tests have no other thread
        )


def count_boundaries(argv: Sequence[str], log: Path) -> int:
    """Run *argv* to its end, and return the number of boundaries."""
    process = _start(argv, log)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    count = 0
    while _advance(process.pid):
        count += 1
    process.communicate(timeout=30)
    return count


def _step(pid: int, boundary: int) -> bool:
    """Continue *pid* to its *boundary*. Return False if it ended before, without reaping it."""
    os.waitid(os.P_PID, pid, os.WSTOPPED)
    return all(_advance(pid) for _ in range(boundary))


def _advance(pid: int) -> bool:
    """Continue the stopped *pid* to its next boundary. Return False if it ended before."""
    _libc.ptrace(_SYSCALL, pid, None, None)
    state = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    assert state is not None
    if state.si_code not in (os.CLD_TRAPPED, os.CLD_STOPPED):
        return False
    assert state.si_status == signal.SIGTRAP, state
    os.waitid(os.P_PID, pid, os.WSTOPPED)
    return True


def kill_at(argv: list[str], call: str, number: int, more: Sequence[str] = ()) -> bool:
    """Run *argv*, and kill it at its *number*th system call *call*. Return whether it was killed."""
    trace = ["strace", "-o", "/dev/null", "-e", f"inject={call}:signal=SIGKILL:when={number}"]
    done = subprocess.run([*trace, *more, *argv], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0
