# SPDX-License-Identifier: Apache-2.0
"""The rules of tests/conftest.py: nothing is skipped silently, and no tier is empty unseen."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from buildtool.compile.headers import HEADERS_VARIABLE

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
    paths = f"{CONFTEST.parent}{os.pathsep}{CONFTEST.parent.parent}"
    environment = {**os.environ, "CI": "true" if ci else "", "PYTHONPATH": paths}
    environment["TEST_HEADERS"] = environment[HEADERS_VARIABLE]
    # Plugins that the rules do not need would take most of the time of these runs.
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
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


@pytest.mark.parametrize(
    ("reason", "ci", "code"),
    [
        ("needs-package: s390x base-files: 404", True, 0),
        ("needs-package: amd64 base-files: 404", True, 1),
        ("needs-package: arm64 base-files: 404", False, 1),
        ("needs-package: 404", True, 1),
    ],
)
def test_a_package_is_a_reason_for_secondary_architectures(
    tmp_path: Path, *, reason: str, ci: bool, code: int
) -> None:
    """The reason names architecture and package; amd64 and arm64 must have theirs, in CI and at a desk."""
    tiers = ("unit", "cli", "vectors", "assurance", "fuzz", "docker", "kernel", "vm")
    body = f"import pytest\ndef test_b(): pytest.skip({reason!r})\n"
    got, output = run_tests(tmp_path, body, ci=ci, tiers=tiers)
    assert got == code, output
    assert ("SKIP NOT ALLOWED" in output) == (code == 1)


LACKING = """\
import pytest
from buildtool.core.errors import PackageUnavailableError, ToolFailedError

def fail(architecture, *packages):
    raise PackageUnavailableError("cannot download", architecture=architecture, packages=packages)

@pytest.fixture(scope="module", params=["s390x", "armhf"])
def parts(request):
    fail(request.param, "libbpf-dev", "base-files")

def test_one(parts): pass
def test_two(parts): pass
def test_call(): fail("riscv64")
"""


@pytest.mark.parametrize("ci", [False, True])
def test_what_a_mirror_lacks_is_left_out_and_counted(tmp_path: Path, *, ci: bool) -> None:
    """A missing package of a secondary architecture skips tests, and a line at the end counts them."""
    tiers = ("unit", "cli", "vectors", "assurance", "fuzz", "docker", "kernel", "vm")
    got, output = run_tests(tmp_path, LACKING, ci=ci, tiers=tiers)
    assert got == 0, output
    (line,) = [line for line in output.splitlines() if line.startswith("LEFT OUT")]
    assert line == (
        "LEFT OUT, for Debian packages that the mirror lacks: armhf: 2 tests (no libbpf-dev, base-files);"
        " riscv64: 1 test (no package lists); s390x: 2 tests (no libbpf-dev, base-files)"
    )


@pytest.mark.parametrize("place", ["fixture", "test"])
def test_packages_of_a_primary_architecture_must_be_there(tmp_path: Path, place: str) -> None:
    """Without arm64 nothing is proved: an error in a fixture, a failure in a test."""
    body = LACKING.replace("s390x", "arm64") if place == "fixture" else LACKING.replace("riscv64", "amd64")
    got, output = run_tests(tmp_path, body, ci=True)
    assert got == 1
    assert "PackageUnavailableError: cannot download" in output
    assert f"{2 if place == 'fixture' else 1} {'error' if place == 'fixture' else 'failed'}" in output


def test_other_errors_are_no_reason_to_skip(tmp_path: Path) -> None:
    """Only PackageUnavailableError skips a test."""
    body = LACKING + "\ndef test_link(): raise ToolFailedError('the linker made no program for s390x')\n"
    got, output = run_tests(tmp_path, body, ci=False)
    assert (got, "1 failed" in output) == (1, True)


def test_a_tier_without_tests_fails_ci_only(tmp_path: Path) -> None:
    """A developer may have half a checkout; CI may not."""
    got, output = run_tests(tmp_path / "ci", PASSING, ci=True, tiers=("unit", "cli"))
    assert got == 1
    assert "NO TESTS RAN in tests/kernel" in output
    assert run_tests(tmp_path / "desk", PASSING, ci=False)[0] == 0
