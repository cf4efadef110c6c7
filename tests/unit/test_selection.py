# SPDX-License-Identifier: Apache-2.0
"""The marks of tests/labs/selection.py, and the guard against connections that no mark allows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from labs import TOP
from labs.selection import NEEDS

MARKS = (*NEEDS, "architectures", "xdist_group")
# The address is one for documentation (RFC 5737): nobody answers.
CONNECT = """
import socket
import pytest
@pytest.mark.{mark}
def test_connect():
    with socket.socket() as client:
        client.settimeout(0.01)
        assert client.connect_ex(("192.0.2.1", 9)) != 0
"""
RESOLVE = """
import socket
def test_resolve():
    with pytest.raises(OSError):
        socket.getaddrinfo("host.invalid", 9)
"""
LOCAL = """
import socket
def test_local():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(("localhost", server.getsockname()[1])).close()
"""
FIXTURES = """
import pytest
@pytest.fixture
def clang(): pass
def test_compiled(clang): pass
def test_plain(): pass
"""


def run_tests(
    directory: Path, body: str, *options: str, tier: str = "unit"
) -> subprocess.CompletedProcess[str]:
    """Run pytest with the marks and the guard over one test file of *tier*."""
    path = directory / "tests" / tier / "test_sample.py"
    path.parent.mkdir(parents=True)
    path.write_text(body)
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "labs.selection"]
    (directory / "pytest.ini").write_text(
        "[pytest]\nmarkers =\n" + "".join(f"    {name}\n" for name in MARKS)
    )
    environment = {**os.environ, "PYTHONPATH": str(TOP / "tests"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(
        [*argv, *options, path], env=environment, cwd=directory, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("mark", ["network", "docker", "vm", "root"])
def test_a_mark_allows_connections(tmp_path: Path, mark: str) -> None:
    """A test with a mark may use a network."""
    done = run_tests(tmp_path, CONNECT.format(mark=mark))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("body", [CONNECT.format(mark="tools"), RESOLVE])
def test_a_connection_without_a_mark_fails(tmp_path: Path, body: str) -> None:
    """A test that `make quick` may select can neither connect to another machine nor look up its name."""
    done = run_tests(tmp_path, "import pytest\n" + body)
    assert done.returncode == 1, done.stdout
    assert "the test has no mark that allows a network" in done.stdout


def test_this_machine_is_no_network(tmp_path: Path) -> None:
    """Tests of registries and mirrors serve on the loopback."""
    done = run_tests(tmp_path, LOCAL)
    assert done.returncode == 0, done.stdout


def test_fixtures_and_tiers_mark_tests(tmp_path: Path) -> None:
    """Tests with a compiler, and all kernel tests, have marks that `make quick` leaves out."""
    done = run_tests(tmp_path / "unit", FIXTURES, "-m", "not tools", "--collect-only")
    assert "test_plain" in done.stdout
    assert "test_compiled" not in done.stdout
    done = run_tests(tmp_path / "kernel", FIXTURES, "-m", "not root", "--collect-only", tier="kernel")
    assert "2 deselected" in done.stdout


def test_tests_of_one_file_run_in_one_process(tmp_path: Path) -> None:
    """The groups are known before xdist reads them. Tests with the engine remove images."""
    body = "import os\n" + "".join(f"def test_{n}(): print(f'process {{os.getpid()}}')\n" for n in range(8))
    done = run_tests(tmp_path, body, "-p", "xdist", "-n", "2", "--dist", "loadgroup", "-rP")
    found = [line for line in done.stdout.splitlines() if line.startswith("process ")]
    assert (len(found), len(set(found))) == (8, 1), done.stdout
