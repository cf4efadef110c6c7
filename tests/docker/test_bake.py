# SPDX-License-Identifier: Apache-2.0
"""Plain `docker buildx bake` builds what `render --bake` wrote: all projects, a group, another registry."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from labs.peers import distribution_registry
from labs.project import EPOCH, Project, make_project

ARCHITECTURES = ("--platform", "linux/amd64,linux/arm64")
NAMES = ("hall", "plant-a", "plant-b")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run Debian's registry."""
    with distribution_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, prepared_images: object) -> Project:
    """Make three projects with one key, and render them as HCL and as JSON."""
    assert prepared_images
    top = tmp_path_factory.mktemp("bake")
    for name in ("hall", "plant/a", "plant/b"):
        project = make_project(top / "fleet" / name)
        text = (project.root / "buildtool.toml").read_text()
        text = text.replace('name = "lab"', f'name = "{Path(name).name}"').replace(
            "keys/dev.pem", f"{top}/dev.pem"
        )
        (project.root / "buildtool.toml").write_text(text)
    (project.root / "keys/dev.pem").rename(top / "dev.pem")
    (project.root / "keys/dev.pub").rename(top / "dev.pub")
    found = Project(root=top)
    for output in ("hcl", "json/docker-bake.json"):
        done = found.run("render", "--bake", "fleet", *ARCHITECTURES, "--prepared", "-o", output)
        assert done.code == 0, done.stderr
    return found


def bake(directory: Path, *arguments: str, **environment: str) -> dict[str, Any]:
    """Run bake in *directory* and return its metadata."""
    argv = ["docker", "buildx", "bake", f"--allow=fs.read={directory.parent}", *arguments]
    argv += ["--metadata-file", str(directory.parent / "meta.json")]
    done = subprocess.run(
        argv, cwd=directory, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((directory.parent / "meta.json").read_text())
    return found


@pytest.mark.parametrize("form", ["hcl", "json"])
def test_bake_makes_the_images_of_build(form: str, fleet: Project, registry: str) -> None:
    """Each project has its image in the named registry, whose objects verify; the digest is that of build."""
    made = bake(fleet.root / form, PUSH="1", REGISTRY=f"{registry}/{form}/")
    assert set(made) >= set(NAMES)
    for name in NAMES:
        tag = f"{registry}/{form}/{name.rpartition('-')[2]}:1.2.0"
        assert made[name]["image.name"] == tag
        done = fleet.run("verify", tag, "--objects-only", "--trust", "dev.pub", "--json")
        assert done.code == 0, done.stderr
        assert {line["platform"] for line in json.loads(done.stdout)} == {"linux/amd64", "linux/arm64"}
    project = Project(root=fleet.root / "fleet/plant/a")
    built = project.build(*ARCHITECTURES, "--tag", f"{registry}/{form}/again:1", "--push", "--no-sign-image")
    assert built["digest"] == made["plant-a"]["containerimage.digest"]


def test_a_group_is_built_alone(fleet: Project, registry: str) -> None:
    """A directory of projects is a group. Variables name another key's file, and where the bake file is."""
    (fleet.root / "other.pem").write_bytes((fleet.root / "dev.pem").read_bytes())
    made = bake(
        fleet.root,
        *("--file", "hcl/docker-bake.hcl", "plant"),
        PUSH="1",
        FLEET="hcl",
        REGISTRY=f"{registry}/group",
        SIGNING_KEY_FILE=str(fleet.root / "other.pem"),
    )
    assert set(made) & set(NAMES) == {"plant-a", "plant-b"}


def test_key_of_others_ends_the_build(fleet: Project) -> None:
    """The Dockerfile names the key id that must sign what no cache has."""
    assert fleet.run("keygen", "wrong").code == 0
    source = fleet.root / "fleet/hall/bpf/two.bpf.c"
    source.write_text(source.read_text().replace("return 2;", "return 2222;"))
    done = fleet.run("render", "--bake", "fleet", *ARCHITECTURES, "--prepared", "-o", "changed")
    assert done.code == 0, done.stderr
    assert EPOCH in (fleet.root / "changed/docker-bake.hcl").read_text()
    argv = ["docker", "buildx", "bake", f"--allow=fs.read={fleet.root}", "hall"]
    environment = {**os.environ, "SIGNING_KEY_FILE": str(fleet.root / "keys/wrong.pem")}
    place = fleet.root / "changed"
    baked = subprocess.run(argv, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert baked.returncode != 0
    assert "the signing key is" in baked.stderr
