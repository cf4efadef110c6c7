# SPDX-License-Identifier: Apache-2.0
"""The rules of tests/conftest.py: nothing is skipped silently, and no tier is empty unseen."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).resolve().parent.parent / "conftest.py"
PASSING = "def test_a(): pass\n"


def run_tests(directory: Path, body: str, *, ci: bool, tiers: tuple[str, ...] = ("unit",)) -> tuple[int, str]:
    """Run pytest over *tiers* with *body* as one more unit test; return its exit code and output."""
    tests = directory / "tests"
    for tier in tiers:
        (tests / tier).mkdir(parents=True)
        (tests / tier / f"test_{tier}.py").write_text(PASSING)
    (tests / "unit" / "test_more.py").write_text(body)
    shutil.copy(CONFTEST, tests / "conftest.py")
    (directory / "pytest.ini").write_text("[pytest]\ntestpaths = tests\n")
    environment = {**os.environ, "CI": "true" if ci else ""}
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(argv, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("reason", "ci", "code"),
    [
        ("no time today", False, 1),
        ("no time today", True, 1),
        ("needs-root: bpf", False, 0),
        ("needs-root: bpf", True, 1),
        ("needs-kernel-feature: lsm", True, 0),
    ],
)
@pytest.mark.parametrize("form", ["call", "mark", "module"])
def test_a_skip_needs_a_reason_that_is_allowed_here(
    tmp_path: Path, *, form: str, reason: str, ci: bool, code: int
) -> None:
    """However a test is skipped, the reason decides."""
    body = {
        "call": f"import pytest\ndef test_b(): pytest.skip({reason!r})\n",
        "mark": f"import pytest\n@pytest.mark.skip(reason={reason!r})\ndef test_b(): pass\n",
        "module": f"import pytest\npytest.skip({reason!r}, allow_module_level=True)\n",
    }[form]
    tiers = ("unit", "cli", "vectors", "assurance", "fuzz", "docker", "kernel", "vm")
    got, output = run_tests(tmp_path, body, ci=ci, tiers=tiers)
    assert got == code, output
    assert ("SKIP NOT ALLOWED" in output) == (code == 1)


def test_a_tier_without_tests_fails_ci_only(tmp_path: Path) -> None:
    """A developer may have half a checkout; CI may not."""
    got, output = run_tests(tmp_path / "ci", PASSING, ci=True, tiers=("unit", "cli"))
    assert got == 1
    assert "NO TESTS RAN in tests/kernel" in output
    assert run_tests(tmp_path / "desk", PASSING, ci=False)[0] == 0
