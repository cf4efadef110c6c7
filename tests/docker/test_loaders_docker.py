# SPDX-License-Identifier: Apache-2.0
"""Both engines ship the same programs, and BuildKit makes the same image from any copy of the project."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from labs import TOP
from labs.engine import REPOSITORY, docker, remove_images
from labs.image import flat, read_image
from labs.project import Project, make_project, render_folder
from labs.vectors.maps import Btf, plain

from buildtool.core.platforms import PLATFORMS
from buildtool.runtime.carried import find_loader, find_tini


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, prepared_images: object) -> Iterator[Project]:
    """Return a project to build."""
    assert prepared_images
    yield make_project(tmp_path_factory.mktemp("loaders"))
    remove_images(f"{REPOSITORY}/loaders")


@pytest.mark.architectures
@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_make_loaders_gives_the_bytes_of_the_builder(project: Project, arch: str, tmp_path: Path) -> None:
    """Loader and tini of BuildKit's stages have the bytes of the carried ones."""
    subprocess.run([sys.executable, TOP / "tools/loaders", "--arch", arch], check=True, capture_output=True)
    platform = PLATFORMS[arch]
    folder = render_folder(project, tmp_path / "rendered", "--arch", arch)
    for stage, name, part in (
        ("loader", "verify-and-load", find_loader(platform)),
        ("tini", "tini", find_tini(platform)),
    ):
        argv = ["buildx", "build", "--target", stage, "--platform", platform.oci, "--file"]
        argv += [str(folder / "Dockerfile"), "--output", f"type=local,dest={tmp_path / stage}"]
        docker(*argv, str(folder))
        assert (tmp_path / stage / name).read_bytes() == part.data


def add_types(project: Project, root: Path) -> Project:
    """Return a copy of *project* whose image holds the types of a kernel for each architecture."""
    typed = Project(root=root)
    shutil.copytree(project.root, root)
    (root / "5.4.0.btf").write_bytes(plain(Btf()).part().data)
    for arch in ("amd64", "arm64"):
        for words in (("btf", "--whole", "5.4.0.btf"), ("sign", f"btf/{arch}/5.4.0.btf.o")):
            done = typed.run(*words, "--arch", arch)
            assert done.code == 0, done.stderr
    with (root / "buildtool.toml").open("a") as file:
        file.write('\n[load]\nbtf = "btf"\n')
    return typed


@pytest.mark.timeout(600)
def test_images_of_what_is_carried_are_those_of_what_is_prepared(project: Project, tmp_path: Path) -> None:
    """Without a named base or builder, both engines make the same image, which holds types of a kernel."""
    arch = ("--arch", "amd64", "--arch", "arm64")
    subprocess.run([sys.executable, TOP / "tools/loaders", *arch], check=True, capture_output=True)
    project = add_types(project, tmp_path / "typed")
    made = {}
    for engine in ("docker", "local"):
        path = tmp_path / f"{engine}.tar"
        # The builder's version of the compiler, because another one would make other objects.
        project.build("--engine", engine, *arch, "-o", f"type=oci,dest={path}", BUILDTOOL_CLANG="clang-19")
        made[engine] = read_image(path)
    for platform, (theirs, their_tree) in made["docker"].items():
        ours, our_tree = made["local"][platform]
        assert flat(our_tree) == flat(their_tree)
        assert our_tree["usr/lib/buildtool/btf/5.4.0.btf.o"].is_file
        assert ours.diff_ids == theirs.diff_ids
        assert ours.config["config"] == theirs.config["config"]


def test_a_copy_of_the_project_builds_the_same_archive(project: Project, tmp_path: Path) -> None:
    """Another directory, umask, time zone, locale and file times, without a cache, give one digest."""
    copy = Project(root=tmp_path / "elsewhere/lab")
    shutil.copytree(project.root, copy.root)
    for path in copy.root.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
        os.utime(path, (1, 10**9))
    first, second = tmp_path / "first.tar", tmp_path / "second.tar"
    built = project.build(
        "--engine", "docker", "--arch", "arm64", "--no-cache", "-o", f"type=oci,dest={first}"
    )
    before = os.umask(0o077)
    try:
        again = copy.build(
            *("--engine", "docker", "--arch", "arm64", "--no-cache", "-o", f"type=oci,dest={second}"),
            TZ="Asia/Tokyo",
            LC_ALL="C",
            PYTHONHASHSEED="7",
        )
    finally:
        os.umask(before)
    assert built["digest"] == again["digest"]
    assert first.read_bytes() == second.read_bytes()


def object_facts(directory: Path) -> Any:
    """Return the compile record of *directory* without the place of the project and the way to it."""
    record = json.loads((directory / ".compile.json").read_text())
    entries = record["objects"]
    for entry in entries.values():
        for name in ("root", "inputs", "configured"):
            entry.pop(name, None)
    return record


def test_objects_of_the_host_are_those_of_the_builder(project: Project, tmp_path: Path, clang: Path) -> None:
    """`compile` on a host with the builder's version of clang gives the builder's bytes."""
    version = subprocess.run([clang, "--version"], capture_output=True, text=True, check=True).stdout
    if "clang version 19." not in version:
        pytest.skip("needs-tool: clang 19, which the builder image has")
    made = project.run("compile", "--arch", "s390x", "--arch", "amd64", BUILDTOOL_CLANG=str(clang))
    assert made.code == 0, made.stderr
    folder = render_folder(project, tmp_path / "rendered", "--arch", "amd64")
    argv = ["buildx", "build", "--target", "objects-unsigned", "--platform", "linux/amd64", "--file"]
    argv += [str(folder / "Dockerfile"), "--output", f"type=local,dest={tmp_path / 'out'}"]
    docker(*argv, str(folder))
    here, there = project.root / "build/amd64", tmp_path / "out"
    for name in ("number.bpf.o", "two.bpf.o"):
        assert (here / name).read_bytes() == (there / name).read_bytes(), name
    assert object_facts(here) == object_facts(there)
