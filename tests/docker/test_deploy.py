# SPDX-License-Identifier: Apache-2.0
"""What `deploy` writes, started for real: a script, and a file of Compose by Docker's own plugin."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from labs.engine import REPOSITORY, docker, remove_images
from labs.kernel import program_ids
from labs.peers import unpack
from labs.project import Project, make_project
from labs.run import let_others_read, wait_until

TAG = f"{REPOSITORY}-deploy/lab:1"
NAME = f"lab-deploy-{os.getpid()}"
SOURCE = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("raw_tp/sys_enter") int dep_seen(void *c) { return 0; }
SEC("xdp") int dep_xdp(void *c) { return 2; }
char LICENSE[] SEC("license") = "GPL";
"""
CONFIG = """\
[project]
name = "deploy"
version = 4
[sign]
key = "keys/dev.pem"
[loader]
state = "/state"
"""
ATTACH = ("--attach", "dep_xdp=none")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, prepared_images: object) -> Iterator[Project]:
    """Build an image with a tracing and an XDP program that remembers versions."""
    assert prepared_images
    project = make_project(tmp_path_factory.mktemp("lab"))
    for path in (project.root / "bpf").iterdir():
        path.unlink()
    (project.root / "bpf/dep.bpf.c").write_text(SOURCE)
    (project.root / "buildtool.toml").write_text(CONFIG)
    project.build("--arch", "amd64", "--tag", TAG)
    yield project
    remove_images(TAG.partition(":")[0])


@pytest.fixture
def state() -> Iterator[Path]:
    """Give the directory of the host that the deployment names, as it must be, and remove it."""
    directory = Path("/var/lib", NAME)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def lines(container: str) -> list[dict[str, Any]]:
    """Return the decision lines of *container*."""
    text = subprocess.run(["docker", "logs", container], capture_output=True, text=True, check=True).stderr
    return [json.loads(line) for line in text.splitlines()]


def is_ready(container: str) -> bool:
    """Return whether the loader of *container* has attached everything."""
    return "ready" in [line["event"] for line in lines(container)]


def check_running(container: str, state: Path) -> None:
    """Check that the loader of *container* attached as nobody, gains nothing and remembers the version."""
    assert wait_until(lambda: is_ready(container)), lines(container)
    assert program_ids("dep_seen")
    assert [line["object"] for line in lines(container) if line["event"] == "load"] == ["dep.bpf.o"]
    settings = json.loads(docker("inspect", container))[0]
    assert settings["Config"]["User"] == "65532:65532"
    host = settings["HostConfig"]
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["Privileged"]) == (True, ["ALL"], False)
    assert [option.partition(":")[0] for option in host["SecurityOpt"]] == ["no-new-privileges"]
    assert (host["NetworkMode"], host["RestartPolicy"]["Name"]) == ("none", "unless-stopped")
    assert list(state.iterdir())


def test_script(project: Project, state: Path, tmp_path: Path) -> None:
    """It makes the directory of the state, and starts the container."""
    done = project.run("deploy", "run", TAG, *ATTACH, "--name", NAME, "-o", str(tmp_path / "start.sh"))
    assert f"next: sh {tmp_path}/start.sh" in done.stderr
    try:
        subprocess.run(["sh", tmp_path / "start.sh"], check=True)
        check_running(NAME, state)
    finally:
        docker("rm", "--force", NAME)


def test_compose(project: Project, state: Path, tmp_path: Path) -> None:
    """Docker's plugin starts and ends it; keys of the host that did not sign refuse it."""
    plugin = next(unpack("trixie", ["docker-compose"]).glob("usr/libexec/docker/cli-plugins/docker-compose"))
    file = tmp_path / "compose.yaml"
    project.run("deploy", "compose", TAG, *ATTACH, "--name", NAME, "-o", str(file))
    compose = [str(plugin), "--file", str(file)]
    container = f"{NAME}-{NAME}-1"
    subprocess.run(["install", "-d", "-m", "0700", "-o", "65532", "-g", "65532", state], check=True)
    try:
        subprocess.run([*compose, "up", "--detach"], check=True, capture_output=True)
        check_running(container, state)
        subprocess.run([*compose, "down"], check=True, capture_output=True)
        assert wait_until(lambda: not program_ids("dep_seen"))
        keys = tmp_path / "trust"
        project.run("keygen", "other", "--dir", str(keys))
        (keys / "other.pem").unlink()
        let_others_read(keys)
        options = (*ATTACH, "--name", NAME, "--trust", str(keys), "-o", str(file), "--force")
        project.run("deploy", "compose", TAG, *options)
        subprocess.run([*compose, "up", "--detach"], check=True, capture_output=True)
        refused = ("refused", "unknown-key")
        assert wait_until(
            lambda: refused in [(each.get("decision"), each.get("reason")) for each in lines(container)]
        )
        assert wait_until(lambda: not program_ids("dep_seen"))
    finally:
        subprocess.run([*compose, "down", "--timeout", "1"], check=False, capture_output=True)
