# SPDX-License-Identifier: Apache-2.0
"""The commands in tools/ start, and refuse unknown options."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
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


def describe_package(name: str, architecture: str) -> str:
    """Return what dpkg's database says of an installed package."""
    shared = "foreign" if architecture == "all" else "same"
    return (
        f"Package: {name}\nStatus: install ok installed\nArchitecture: {architecture}\n"
        f"Multi-Arch: {shared}\nMaintainer: x <x@y.z>\nVersion: 1\nDescription: x\n"
    )


def test_setup_sees_packages_of_two_architectures(tmp_path: Path) -> None:
    """A package of two architectures hides no missing one. Another architecture's does not count."""
    if shutil.which("dpkg-query") is None:
        pytest.skip("needs-tool: dpkg-query")
    argv = ["dpkg", "--print-architecture"]
    own = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    other = "s390x" if own != "s390x" else "amd64"
    for name in ("tools", "dpkg/info", "dpkg/updates"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(TOOLS / "setup", tmp_path / "tools/setup")
    (tmp_path / "apt-get").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "apt-get").chmod(0o755)

    def ask(present: Mapping[str, Sequence[str]]) -> str:
        """Return the packages that tools/setup tries to install if *present* is installed."""
        packages = [describe_package(name, each) for name, places in present.items() for each in places]
        (tmp_path / "dpkg/status").write_text("\n".join(packages))
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "DPKG_ADMINDIR": str(tmp_path / "dpkg")}
        argv = ["bash", tmp_path / "tools/setup", "--for", "lint"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 1
        line = next(line for line in done.stderr.splitlines() if " install " in line)
        return line.partition(" install ")[2]

    present = {"python3-venv": (own,), "ca-certificates": ("all",), "shellcheck": (own, other)}
    assert ask(present) == "clang-format-19"
    assert ask({**present, "python3-venv": (other,), "clang-format-19": (own,)}) == "python3-venv"


def test_engine_of_a_linked_directory_is_that_of_its_target(tmp_path: Path) -> None:
    """Checkouts that share a directory share its engine: a second one would wait for its locks."""
    (tmp_path / "engine").mkdir()
    (tmp_path / "link").symlink_to("engine")
    lines = [
        subprocess.run(
            ["bash", TOOLS / "engine", "env"],
            env=os.environ | {"BUILDTOOL_ENGINE_DIR": str(tmp_path / name), "ENGINE_NEWEST": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for name in ("engine", "link")
    ]
    assert lines[0] == lines[1]
    assert "DOCKER_HOST=unix://" in lines[0]
