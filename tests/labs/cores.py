# SPDX-License-Identifier: Apache-2.0
"""Core dumps through a pipe: `core_pattern` of this machine, for a short time and for our processes alone."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PATTERN = Path("/proc/sys/kernel/core_pattern")
_PREFIX = "|/tmp/bt-core-"
# The core of a process that asked for it; those of others are dropped, as is what comes too late.
_CATCHER = """#!/bin/sh
d=${0%/*}
[ -e "$d/want.$1" ] && { cat > "$d/part.$1"; mv "$d/part.$1" "$d/core.$1"; } 2>/dev/null
exec cat >/dev/null
"""
# What a process runs to ask for its core and to end with one.
CRASH = """
import os, signal
def crash(directory):
    open(os.path.join(directory, f"want.{os.getpid()}"), "w").close()
    os.kill(os.getpid(), signal.SIGABRT)
"""


@contextmanager
def piped_cores() -> Iterator[Path]:
    """Let the kernel pipe cores to a program of ours; gives the directory where `core.PID` appears."""
    with PATTERN.open() as lock, tempfile.TemporaryDirectory(prefix="bt-core-", dir="/tmp") as work:
        # One at a time on this machine: the pattern is everybody's, and who comes second would keep ours.
        fcntl.flock(lock, fcntl.LOCK_EX)
        catcher = Path(work, "catch")
        catcher.write_text(_CATCHER)
        catcher.chmod(0o755)
        before = PATTERN.read_text().rstrip("\n")
        # A run that was killed may have left one.
        before = "core" if before.startswith(_PREFIX) else before
        try:
            PATTERN.write_text(f"|{catcher} %P\n")
        except OSError as error:
            pytest.skip(
                f"needs-kernel-feature: core_pattern cannot be changed: {os.strerror(error.errno or 0)}"
            )
        try:
            yield Path(work)
        finally:
            PATTERN.write_text(f"{before}\n")
