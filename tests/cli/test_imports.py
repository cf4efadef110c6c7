# SPDX-License-Identifier: Apache-2.0
"""Which libraries a command imports: one that asks no engine and no registry loads no client of theirs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from labs.project import make_local_project

# A third of a second together, which people would wait for at each command.
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
    "render --arch amd64 --key keys/other.pub -o image",
    "init new",
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clang: Path) -> Path:
    """Make a project that needs no engine, with a base that a Dockerfile can name."""
    root = make_local_project(tmp_path, monkeypatch)
    monkeypatch.setenv("BUILDTOOL_BASE_IMAGE", "example.org/base:1")
    monkeypatch.setenv("BUILDTOOL_CLANG", str(clang))
    return root


def _run(root: Path, command: str) -> list[str]:
    """Run *command* to its end; return its exit code, how many modules it has, and which of the clients."""
    argv = [sys.executable, "-c", SCRIPT, *command.split()]
    done = subprocess.run(argv, cwd=root, capture_output=True, text=True, check=True)
    return done.stderr.splitlines()[-1].split()


def test_commands_without_an_engine_import_no_client(project: Path) -> None:
    """In the order of work, each in a process of its own that does its work."""
    for command in COMMANDS:
        code, count, *clients = _run(project, command)
        assert (code, clients) == ("0", []), command
        # 345 was the most when this was written; the clients are 230 more.
        assert int(count) < 420, command


def test_a_command_that_asks_an_engine_imports_one(project: Path) -> None:
    """Otherwise the test above would prove nothing."""
    code, _, *clients = _run(project, "inspect example.org/image:1")
    assert (code, set(clients)) == ("1", CLIENTS)
