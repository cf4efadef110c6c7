# SPDX-License-Identifier: Apache-2.0
"""A policy in an image, the host's policy beside it, and versions recorded in a volume."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from labs.engine import REPOSITORY, read_files, remove_images
from labs.project import CONFIG, Project, make_project

TAG = f"{REPOSITORY}-policy/lab:1"
TRUST = """\
[trust]
keys = ["keys/dev.pub"]
project = "lab"
platforms = ["amd64"]
program-types = ["socket_filter"]
attach-points = ["socket"]
denied-helpers = ["bpf_probe_write_user"]
denied-kfuncs = []
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, prepared_images: object) -> Iterator[Project]:
    """Build a project with rules in its policy."""
    assert prepared_images
    project = make_project(tmp_path_factory.mktemp("lab"))
    (project.root / "buildtool.toml").write_text(CONFIG + TRUST)
    project.build("--arch", "amd64", "--tag", TAG)
    yield project
    remove_images(TAG.partition(":")[0])


def start(*options: str) -> tuple[int, list[dict[str, Any]]]:
    """Run the image's loader with --verify-only; return its exit code and lines."""
    argv = ["docker", "run", "--rm", "--network", "none", "--cap-drop", "ALL", "--read-only"]
    mounts = [option for option in options if option.startswith("--volume")]
    rest = [option for option in options if option not in mounts]
    done = subprocess.run(
        [*argv, *mounts, TAG, "--verify-only", *rest], capture_output=True, text=True, check=False
    )
    return done.returncode, [json.loads(line) for line in done.stderr.splitlines()]


def test_the_image_keeps_its_own_rules(project: Project) -> None:
    """The image's store holds only the policy, and each line has its digest."""
    files = read_files(TAG)
    (name,) = (name for name in files if name.startswith("/etc/buildtool/trust/"))
    assert name == "/etc/buildtool/trust/policy.json"
    policy = json.loads(files[name][1])
    assert (policy["deniedHelpers"], policy["attachPoints"]) == ([36], ["socket"])
    code, lines = start()
    assert code == 0, lines
    assert {line["policy"] for line in lines} == {hashlib.sha256(files[name][1]).hexdigest()}


def test_a_policy_of_the_host_decides(project: Project, tmp_path: Path) -> None:
    """A policy of the host at trust.host takes precedence: here it revokes the key."""
    tmp_path.chmod(0o755)
    policy = tmp_path / "policy.json"
    key_id = project.run("trust", "add", "keys/dev.pub", "--policy", policy).stdout.split()[0]
    mount = f"--volume={tmp_path}:/etc/buildtool/trust.host:ro"
    code, lines = start(mount)
    assert code == 0
    assert lines[0]["policy"] == hashlib.sha256(policy.read_bytes()).hexdigest()
    assert project.run("trust", "revoke", key_id, "--policy", policy).code == 0
    code, lines = start(mount)
    assert (code, lines[0]["reason"]) == (3, "revoked")


def test_a_volume_remembers_versions(project: Project, tmp_path: Path) -> None:
    """Version 3 ran before, and is refused after the volume recorded version 4."""
    tmp_path.chmod(0o755)
    options = (f"--volume={tmp_path}:/var/lib/buildtool/state", "--state=/var/lib/buildtool/state")
    assert start(*options)[0] == 0
    state = tmp_path / "versions.json"
    assert json.loads(state.read_text())["projects"] == {"lab": {"number.bpf.o": 3, "two.bpf.o": 3}}
    state.write_text('{"projects":{"lab":{"two.bpf.o":4}},"stateVersion":1}')
    code, lines = start(*options)
    assert code == 3
    assert [line.get("reason") for line in lines[:2]] == [None, "rolled-back"]


def test_an_image_that_would_refuse_itself_is_not_built(project: Project) -> None:
    """A policy that refuses the image's own objects is exit code 2."""
    path = project.root / "buildtool.toml"
    text = path.read_text()
    try:
        path.write_text(text.replace('project = "lab"', 'project = "other"'))
        done = project.run("build", "--arch", "amd64", "--tag", f"{TAG}-none")
    finally:
        path.write_text(text)
    assert done.code == 2
    assert "trust.project is other, project.name is lab" in done.stderr
