# SPDX-License-Identifier: Apache-2.0
"""Run commands, wait for conditions, and build one at a time."""

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
    """Run *argv* to its end and return its output; a failure is a failed test that shows what it said."""
    done = subprocess.run([str(arg) for arg in argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, argv))}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def let_others_read(directory: Path) -> None:
    """Let every user enter *directory*: pytest closes its directories to all but their owner."""
    for each in (directory, *directory.parents):
        if each.stat().st_uid == os.getuid() and each.stat().st_mode & 0o005 != 0o005:
            each.chmod(0o755)


def wait_until(condition: Callable[[], object], seconds: float = WAIT_SECONDS) -> bool:
    """Return whether *condition* came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


_depth = [0]


@contextmanager
def lock_file() -> Iterator[IO[str] | None]:
    """Open the file of the lock; give None in a checkout that this user cannot build in."""
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
    """Hold the lock of this checkout's builds: two processes would make one file at the same time."""
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
