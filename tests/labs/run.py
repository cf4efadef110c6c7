# SPDX-License-Identifier: Apache-2.0
"""Run commands and wait for conditions."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

WAIT_SECONDS = 20.0


def run(*argv: str | Path) -> str:
    """Run *argv* to its end and return its output; a failure is a failed test that shows what it said."""
    done = subprocess.run([str(arg) for arg in argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, argv))}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def wait_until(condition: Callable[[], object], seconds: float = WAIT_SECONDS) -> bool:
    """Return whether *condition* came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
