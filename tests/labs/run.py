# SPDX-License-Identifier: Apache-2.0
"""Run commands, wait for conditions, and hold the lock for builds."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from labs import TOP

WAIT_SECONDS = 20.0


def run(*argv: str | Path) -> str:
    """Run *argv* and return its stdout. A failure fails the test, which shows the output."""
    done = subprocess.run([str(arg) for arg in argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, argv))}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def let_others_read(directory: Path) -> None:
    """Let every user enter *directory*: pytest closes its directories to all but their owner."""
    for each in (directory, *directory.parents):
        if each.stat().st_uid == os.getuid() and each.stat().st_mode & 0o005 != 0o005:
            each.chmod(0o755)


def wait_until(condition: Callable[[], object], seconds: float = WAIT_SECONDS) -> bool:
    """Return whether *condition* became true within *seconds*."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


_depth = [0]


@contextmanager
def lock_file() -> Iterator[IO[str] | None]:
    """Open the lock's file. Yield None in a checkout to which this user cannot write."""
    path = TOP / ".cache/tests.lock"
    try:
        path.parent.mkdir(exist_ok=True)
        file = path.open("w")
    except OSError:
        yield None
        return
    with file:
        yield file


@contextmanager
def alone() -> Iterator[None]:
    """Hold the lock of this checkout's builds, so that no two processes make the same file at once."""
    _depth[0] += 1
    try:
        if _depth[0] > 1:
            yield
            return
        with lock_file() as file:
            if file is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            yield
    finally:
        _depth[0] -= 1
