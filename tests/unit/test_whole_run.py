# SPDX-License-Identifier: Apache-2.0
"""A few failures of a whole run are tried once more, alone: `tools/test`, on a project of three tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent.parent
CONFTEST = """
import pytest
def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.xdist_group("tests/test_few.py"))
"""
# Fails in a worker of a parallel run, as a test does that another one disturbs.
DISTURBED = "import os\ndef test_disturbed():\n    assert 'PYTEST_XDIST_WORKER' not in os.environ\n"
BROKEN = "def test_broken():\n    assert False\n"


def run_whole(directory: Path, tests: str) -> tuple[int, str, str]:
    """Run `tools/test` on *tests*; return exit code, output, and the names that it wrote down for CI."""
    (directory / "tools").mkdir()
    shutil.copy(TOP / "tools/test", directory / "tools/test")
    (directory / "tests").mkdir()
    (directory / "tests/conftest.py").write_text(CONFTEST)
    (directory / "tests/test_few.py").write_text(tests)
    (directory / "pytest.ini").write_text("[pytest]\nmarkers =\n    vm\n    weekly\n    architectures\n")
    (directory / ".venv/bin").mkdir(parents=True)
    (directory / ".venv/bin/python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (directory / ".venv/bin/python").chmod(0o755)
    subprocess.run(["git", "init", "-q"], cwd=directory, check=True)
    written = directory / "passed-alone"
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_", "FULL"))
    }
    done = subprocess.run(
        ["tools/test"],
        cwd=directory,
        env={**kept, "PASSED_ALONE_FILE": str(written), "LEFT_OUT_FILE": str(directory / "left-out")},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr, written.read_text() if written.exists() else ""


def test_disturbed_test_is_named_and_fails_nothing(tmp_path: Path) -> None:
    """It ran twice, and both the run and CI say so at their ends."""
    code, said, written = run_whole(tmp_path, DISTURBED)
    assert (code, written) == (0, "tests/test_few.py::test_disturbed\n"), said
    assert "test: failed beside other tests, passed alone: tests/test_few.py::test_disturbed\n" in said


def test_failure_that_comes_again_fails(tmp_path: Path) -> None:
    """A disturbed neighbour does not hide it."""
    code, said, written = run_whole(tmp_path, DISTURBED + BROKEN)
    assert (code, written) == (1, ""), said


@pytest.mark.parametrize("count", [3, 4])
def test_many_failures_are_no_disturbance(tmp_path: Path, count: int) -> None:
    """More than three failures fail the run at once."""
    tests = "".join(DISTURBED.replace("test_disturbed", f"test_{number}") for number in range(count))
    code, said, _ = run_whole(tmp_path, tests)
    assert code == (0 if count == 3 else 1), said
    assert ("once more, alone" in said) == (count == 3)
