# SPDX-License-Identifier: Apache-2.0
"""Tests that commands without an engine or a registry import no client library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from labs.project import make_local_project

# Their import costs a third of a second.
CLIENTS = {"docker", "requests", "urllib3"}
SCRIPT = f"""\
import sys
from buildtool.cli.main import run
code = run(sys.argv[1:])
print(code, len(sys.modules), *sorted(sys.modules.keys() & {CLIENTS}), file=sys.stderr)
"""
OBJECT = "build/amd64/answer.bpf.o"
COMMANDS = (
    "keygen other",
    "compile --arch amd64",
    f"inspect {OBJECT}",
    f"sign {OBJECT} --key keys/other.pem --arch amd64",
    f"verify {OBJECT} --trust keys/other.pub",
    f"inspect {OBJECT} --json --trust keys/other.pub",
    f"inspect {OBJECT} --capabilities",
    f"check {OBJECT}",
    "trust add keys/other.pub --policy policy.json",
    "trust check --policy policy.json",
    "render --arch amd64 --prepared --key keys/other.pub -o image",
    "init new",
    "build --engine local --arch amd64 --key keys/other.pem",
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clang: Path) -> Path:
    """Return the root of a new project that needs neither engine nor registry."""
    root = make_local_project(tmp_path, monkeypatch)
    monkeypatch.setenv("BUILDTOOL_CLANG", str(clang))
    return root


def _run(root: Path, command: str) -> list[str]:
    """Run *command*. Return its exit code, the number of its modules, and the imported clients."""
    argv = [sys.executable, "-c", SCRIPT, *command.split()]
    done = subprocess.run(argv, cwd=root, capture_output=True, text=True, check=True)
    return done.stderr.splitlines()[-1].split()


def test_commands_without_an_engine_import_no_client(project: Path) -> None:
    """Each command succeeds in its own process and imports no client. Later commands use earlier results."""
    for command in COMMANDS:
        code, count, *clients = _run(project, command)
        assert (code, clients) == ("0", []), command
        # The maximum was 443 when this was written. The clients would add 230.
        assert int(count) < 460, command


def test_a_command_that_asks_an_engine_imports_one(project: Path) -> None:
    """The check of the test above finds the clients of a command with an engine."""
    code, _, *clients = _run(project, "inspect example.org/image:1")
    assert (code, set(clients)) == ("1", CLIENTS)
