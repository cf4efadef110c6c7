# SPDX-License-Identifier: Apache-2.0
"""The README's commands work as printed, in a new clone, with the packages of `pip install .`."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from labs import TOP

from buildtool.core.platforms import host_platform

BLOCK = re.compile(r"<!-- test: (\w+) -->\n```sh\n(.*?)```", re.DOTALL)
MARKERS = {"project", "run", "make"}
HERE = host_platform(platform.machine()) or pytest.fail("this machine is not in the platform table")


def read_blocks() -> dict[str, str]:
    """Return the marked blocks of the README by their marker."""
    return dict(BLOCK.findall((TOP / "README.md").read_text("utf-8")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Readme:
    """The commands of the README for a project *name* in *root*, run with *env*."""

    name: str
    root: Path
    env: dict[str, str]

    def commands(self, marker: str) -> str:
        """Return the commands of block *name*, with a project name of this test alone."""
        return re.sub(r"\bdemo\b", self.name, read_blocks()[marker])


@pytest.fixture(scope="module")
def readme(prepared_images: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Readme]:
    """Copy the committed files, and make an empty virtual environment for them."""
    assert prepared_images
    root = tmp_path_factory.mktemp("readme")
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(argv, cwd=TOP, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (TOP / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TOP / name, root / name)
    environment = root.with_name("readme-venv")
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    env = {key: value for key, value in os.environ.items() if not key.startswith(("BUILDTOOL_", "PYTHON"))}
    env |= {"PATH": f"{environment}/bin:{os.environ['PATH']}", "VIRTUAL_ENV": str(environment)}
    project = Readme(name=f"readme{os.getpid()}", root=root, env=env)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", project.commands("project")],
        cwd=root,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    yield project
    subprocess.run(["docker", "image", "rm", f"{project.name}:0.1.0"], capture_output=True, check=False)


def test_the_markers_are_known() -> None:
    """Each marked block has a test."""
    assert set(read_blocks()) == MARKERS


def test_sixty_seconds_give_a_signed_image(readme: Readme) -> None:
    """The first block makes an image for this machine, and the new public key verifies its objects."""
    argv = ["docker", "image", "inspect", "--format", "{{.Architecture}}", f"{readme.name}:0.1.0"]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip() == HERE.arch
    shown = ["buildtool", "inspect", f"{readme.name}:0.1.0", "--json"]
    done = subprocess.run(shown, cwd=readme.root, env=readme.env, capture_output=True, text=True, check=True)
    assert readme.name in done.stdout


@pytest.mark.usefixtures("as_root")
def test_the_container_runs_as_printed(readme: Readme) -> None:
    """The second block's container is ready on its own interface, and stops with exit code 0."""
    argv = shlex.split(readme.commands("run"))
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as container:
        assert container.stderr
        lines = []
        for line in container.stderr:
            if not line.startswith("{"):
                continue  # without the engine's own warnings
            lines.append(json.loads(line))
            if lines[-1]["event"] in ("ready", "refuse", "error"):
                break
        container.terminate()
        lines += map(json.loads, container.stderr)
        code = container.wait(30)
    assert [line["event"] for line in lines] == ["verify", "load", "attach", "ready", "detach"], lines
    assert code == 0


def test_make_has_the_targets() -> None:
    """The README's commands for a machine without Docker are targets of the Makefile."""
    makefile = (TOP / "Makefile").read_text("utf-8")
    lines = read_blocks()["make"].splitlines()
    for line in lines:
        words = shlex.split(line, comments=True)
        assert words[0] == "make"
        assert re.search(rf"^{words[1]}:.* ## ", makefile, re.MULTILINE), line
    assert len(lines) == 2
