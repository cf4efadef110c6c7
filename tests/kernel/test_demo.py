# SPDX-License-Identifier: Apache-2.0
"""`make demo` runs the whole chain."""

from __future__ import annotations

import subprocess
import sys

import pytest
from labs import TOP


@pytest.mark.usefixtures("as_root", "prepared_images")
def test_the_demo_passes() -> None:
    """The demo ends with 0, prints each result and removes its interface."""
    argv = [sys.executable, str(TOP / "tools/demo")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    shown = done.stdout
    for fact in ("refused digest-mismatch", "refused unsigned", "UADP PubSub over UDP", "all of it held"):
        assert fact in shown
    assert shown.count("exit code 3, workload not started") == 2
    links = subprocess.run(["ip", "link", "show", "btdemo0"], capture_output=True, check=False)
    assert links.returncode != 0, "the demo left its interface"
