# SPDX-License-Identifier: Apache-2.0
"""Catches core dumps of the tests' processes through a pipe, with this machine's `core_pattern`."""

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
# Keeps the core of a process that requested it (CRASH). Other cores, and cores after the end, are dropped.
_CATCHER = """#!/bin/sh
d=${0%/*}
[ -e "$d/want.$1" ] && { cat > "$d/part.$1"; mv "$d/part.$1" "$d/core.$1"; } 2>/dev/null
exec cat >/dev/null
"""
# Python code of a process that requests its core and crashes.
CRASH = """
import os, signal
def crash(directory):
    open(os.path.join(directory, f"want.{os.getpid()}"), "w").close()
    os.kill(os.getpid(), signal.SIGABRT)
"""


@contextmanager
def piped_cores() -> Iterator[Path]:
    """Pipe this machine's cores to a program. Yield the directory where `core.PID` appears."""
    with PATTERN.open() as lock, tempfile.TemporaryDirectory(prefix="bt-core-", dir="/tmp") as work:
        # The pattern is global. A second run at the same time would save and later restore ours.
        fcntl.flock(lock, fcntl.LOCK_EX)
        catcher = Path(work, "catch")
        catcher.write_text(_CATCHER)
        catcher.chmod(0o755)
        before = PATTERN.read_text().rstrip("\n")
        # A run that was killed may have left its pattern.
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
