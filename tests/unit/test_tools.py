# SPDX-License-Identifier: Apache-2.0
"""The checkout's own commands start, and refuse a command line that they do not know."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.mark.parametrize(
    ("argv", "usage"),
    [
        ([sys.executable, TOOLS / "sysroot", "amd64"], "usage: tools/sysroot ARCH DIR"),
        ([sys.executable, TOOLS / "sysroot", "amd64", "/tmp/x", "../etc"], "usage: tools/sysroot ARCH DIR"),
        ([sys.executable, TOOLS / "loaders", "--nothing"], "usage: loaders"),
        (["bash", TOOLS / "setup", "--for", "nothing"], "usage: tools/setup [--for demo|"),
        (["bash", TOOLS / "engine", "nothing"], "usage: tools/engine start|"),
    ],
)
def test_unknown_words_give_the_usage(argv: list[str], usage: str) -> None:
    """Exit code 2 and one line of usage; nothing is fetched or made."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, usage in done.stderr) == (2, True), done.stderr
