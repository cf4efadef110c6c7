# SPDX-License-Identifier: Apache-2.0
"""
Every command block of every page in docs/ runs as printed, in order, in a new project with its default image.

A block that cannot run here has a marker with the reason. `<!-- setup: COMMAND -->` prepares what a page
assumes.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from labs import TOP
from labs.net import veth
from labs.pages import GENERATED, PAGES, fill, other_commands, read_blocks

RUNNING = [page for page in PAGES if any(not block.not_run for block in read_blocks(page))]
# Places outside of the project that pages write to. They are removed afterwards if they are new.
PLACES = (
    "/etc/fleet",
    "/var/lib/agent-state",
    "/var/lib/node_exporter",
    "/sys/fs/bpf/agent",
    "/sys/fs/bpf/shared",
)
# A background container is ready before the next line of the page runs, and is removed after the page.
DOCKER = """\
#!{python}
import json, os, subprocess, sys, tempfile
argv = ["{docker}", *sys.argv[1:]]
stays = sys.argv[1:2] == ["run"]
if stays:
    place = tempfile.mktemp(dir="{containers}")
    argv[2:2] = ["--cidfile", place]
if not stays or "--verify-only" in argv:
    os.execv(argv[0], argv)
if "--detach" in argv:
    done = subprocess.run(argv, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    argv = ["{docker}", "logs", "--follow", open(place).read()]
nowhere = subprocess.DEVNULL
with subprocess.Popen(argv, stdout=nowhere, stderr=subprocess.PIPE, text=True) as child:
    for line in child.stderr:
        sys.stderr.write(line)
        if line.startswith("{{") and json.loads(line)["event"] == "ready":
            subprocess.Popen(["cat"], stdin=child.stderr, stdout=nowhere, stderr=nowhere)
            os._exit(0)
    sys.exit(child.wait())
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """
    Runs the commands of pages with *tools* on the path, and *names* replaced.

    Each page has its own copy of *project*. *containers* has the ids of its containers.
    """

    project: Path
    tools: Path
    names: dict[str, str]
    containers: Path

    def types(self, text: str, directory: Path) -> None:
        """Run *text* in *directory*; each command must succeed."""
        path = f"{self.tools}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", fill(text, self.names)],
            cwd=directory,
            env={**os.environ, "PATH": path, "PYTHONPATH": str(TOP)},
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"

    def forget(self) -> None:
        """Remove the containers of the page."""
        for place in self.containers.iterdir():
            subprocess.run(["docker", "rm", "--force", place.read_text()], capture_output=True, check=False)
            place.unlink()


@pytest.fixture(scope="module")
def reader(prepared_images: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Return a reader with a project of `buildtool init` and its default image with ebpf-pins."""
    assert prepared_images
    if os.geteuid() != 0:
        pytest.skip("needs-root: the pages mount and make directories for other users")
    root = tmp_path_factory.mktemp("docs")
    tools, containers = root / "bin", root / "containers"
    tools.mkdir()
    containers.mkdir()
    text = DOCKER.format(python=sys.executable, docker=shutil.which("docker"), containers=containers)
    for name, script in (("docker", text), ("sudo", '#!/bin/sh\nexec "$@"\n')):
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)
    tag = f"agent{os.getpid()}"
    with veth() as (left, _):
        names = {"IMAGE": f"{tag}:1", "CONTAINER": f"{tag}-container", "INTERFACE": left, "KEYID": ""}
        made = Reader(project=root / "agent", tools=tools, names=names, containers=containers)
        made.types("buildtool init agent", root)
        made.types("buildtool keygen release", made.project)
        config = made.project / "buildtool.toml"
        config.write_text(config.read_text().replace("[image]\n", "[image]\ntools = true\n"))
        made.types("buildtool build --tag IMAGE", made.project)
        shown = subprocess.run(
            [sys.executable, "-m", "buildtool", "trust", "list", "--policy", "keys/release.pub"],
            cwd=made.project,
            env={**os.environ, "PYTHONPATH": str(TOP)},
            capture_output=True,
            text=True,
            check=True,
        )
        names["KEYID"] = shown.stdout.split("\t")[0]
        yield made
        made.forget()
    subprocess.run(["docker", "image", "rm", "--force", f"{tag}:1"], capture_output=True, check=False)


@pytest.fixture
def _places() -> Iterator[None]:
    """Remove the files that the pages made outside of their project."""
    before = {place for place in PLACES if Path(place).exists()}
    yield
    for place in set(PLACES) - before:
        if place.startswith("/sys/") and Path(place).exists():
            for entry in sorted(Path(place).rglob("*"), reverse=True):
                entry.rmdir() if stat.S_ISDIR(entry.lstat().st_mode) else entry.unlink()
            Path(place).rmdir()
        else:
            shutil.rmtree(place, ignore_errors=True)


def test_all_commands_are_in_command_blocks() -> None:
    """Every command is in a block of commands, and every marker has a reason."""
    for page in PAGES:
        assert not [*other_commands(page)], f"{page.name}: mark the block as sh"
        for block in read_blocks(page):
            assert len(block.not_run) != 1, page.name
            assert not (block.setup and block.not_run), page.name
    assert len(GENERATED) == 2
    assert len(RUNNING) >= 10


@pytest.mark.usefixtures("_places")
@pytest.mark.parametrize("page", RUNNING, ids=lambda page: page.stem)
def test_commands_run_as_printed(page: Path, reader: Reader, tmp_path: Path) -> None:
    """The blocks of a page run in order, and each command ends with exit code 0."""
    project = tmp_path / "agent"
    shutil.copytree(reader.project, project)
    try:
        for block in read_blocks(page):
            for command in () if block.not_run else (*block.setup, block.text):
                reader.types(command, project)
    finally:
        reader.forget()
