# SPDX-License-Identifier: Apache-2.0
"""A build by a BuildKit elsewhere, over TLS with certificates of both sides, without any Docker engine."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from labs.buildkit import BuildKit, run_buildkitd
from labs.peers import distribution_registry
from labs.project import Project, make_project

ARCHITECTURES = ("--arch", "amd64", "--arch", "arm64")
NO_ENGINE = "unix:///nonexistent/engine.sock"

pytestmark = pytest.mark.weekly


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run Debian's registry."""
    with distribution_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture(scope="module")
def buildkit(tmp_path_factory: pytest.TempPathFactory, registry: str) -> Iterator[BuildKit]:
    """Run buildkitd."""
    with run_buildkitd(tmp_path_factory.mktemp("buildkit"), registry) as found:
        yield found


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory, engine: str, registry: str, buildkit: BuildKit
) -> Iterator[Project]:
    """
    Make a project without an engine: its images come from the registry, its builder is elsewhere.

    buildx remembers the builders `far`, and `stranger` with a certificate of another authority.
    """
    assert engine  # for its client
    root = tmp_path_factory.mktemp("remote")
    environment = {"DOCKER_HOST": NO_ENGINE, "BUILDX_CONFIG": str(root / "buildx")}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        for name, client in (("far", "client"), ("stranger", "stranger")):
            argv = ["docker", "buildx", "create", "--name", name, *buildkit.options(client=client)]
            subprocess.run(argv, check=True, capture_output=True)
        argv = ["docker", "buildx", "create", "--name", "gone", "--driver", "remote"]
        subprocess.run([*argv, "tcp://127.0.0.1:9"], check=True, capture_output=True)
        project = make_project(root / "lab")
        done = project.run("images", "prepare", "--push", f"{registry}/tools", "--json")
        assert done.code == 0, done.stderr
        images = json.loads(done.stdout)
        text = (project.root / "buildtool.toml").read_text()
        text += f'[images]\nbuilder = "{images["builder"]}@{images["builder_digest"]}"\n'
        text += f'base = "{images["base"]}@{images["base_digest"]}"\n'
        (project.root / "buildtool.toml").write_text(text)
        yield project


def test_prepared_images_are_pushed_once(project: Project, registry: str) -> None:
    """The second run finds both by their recipe, without an engine; the lines are those of buildtool.toml."""
    done = project.run("images", "prepare", "--push", f"{registry}/tools")
    assert done.code == 0, done.stderr
    assert "nothing to do, the registry has them" in done.stderr
    for line in (project.root / "buildtool.toml").read_text().splitlines()[-2:]:
        assert line in done.stderr.splitlines()


@pytest.mark.parametrize("place", ["builder", "host"])
def test_build_elsewhere(project: Project, registry: str, tmp_path: Path, place: str) -> None:
    """Both platforms are built, signed there or here, pushed, signed in the registry, and verify."""
    tag, meta = f"{registry}/plant/{place}:1", tmp_path / "meta.json"
    options = ("--builder", "far", "--sign-on", place, "--metadata-file", str(meta))
    built = project.build(*ARCHITECTURES, *options, "--tag", tag, "--push")
    assert json.loads(meta.read_text())["containerimage.digest"] == built["digest"]
    done = project.run("verify", tag, "--trust", "keys/dev.pub", "--json")
    assert done.code == 0, done.stderr
    lines = json.loads(done.stdout)
    assert lines[0]["digest"] == built["digest"]
    assert {line["platform"] for line in lines[1:]} == {"linux/amd64", "linux/arm64"}


def test_archive_from_elsewhere_has_the_same_digest(project: Project, registry: str, tmp_path: Path) -> None:
    """The archive arrives on this machine; the image in it is the one that was pushed."""
    pushed = project.build(*ARCHITECTURES, "--builder", "far", "--tag", f"{registry}/same:1", "--push")
    output = tmp_path / "image.tar"
    built = project.build(*ARCHITECTURES, "--builder", "far", "--output", str(output))
    assert built["digest"] == pushed["digest"]
    assert output.is_file()


def test_cache_elsewhere(project: Project, registry: str, tmp_path: Path) -> None:
    """A builder elsewhere reads and writes caches of a registry and of a directory of this machine."""
    reference, place = f"{registry}/cache/agent:1", tmp_path / "cache"
    target = ("--builder", "far", "--tag", f"{registry}/cached:1", "--push", "--no-sign-image")
    stores = (
        "--cache-to",
        f"type=registry,ref={reference},mode=max",
        "--cache-to",
        f"type=local,dest={place}",
    )
    project.build(*target, *stores)
    assert (place / "index.json").is_file()
    done = project.run("build", *target, "--cache-from", reference, "--cache-from", f"type=local,src={place}")
    assert done.code == 0, done.stderr
    assert f"importing cache manifest from {reference}" in done.stderr


@pytest.mark.parametrize(
    ("builder", "cause"), [("gone", "connection refused"), ("stranger", "alert unknown ca")]
)
def test_builder_that_does_not_answer(project: Project, builder: str, cause: str) -> None:
    """The error names the builder and the cause; the hint has the command that shows more."""
    done = project.run("build", "--builder", builder, "--tag", "x:1", "--output", "never.tar")
    assert done.code == 1
    *_, error, hint = done.stderr.splitlines()
    assert error.startswith(f"buildtool: error: builder {builder!r} does not answer: ")
    assert cause in error
    assert hint == f"buildtool: hint: docker buildx inspect --bootstrap {builder} shows its state"
    assert not (project.root / "never.tar").exists()


def test_images_that_the_builder_cannot_pull(project: Project, tmp_path: Path) -> None:
    """Without an engine, the prepared images are in a registry or nowhere; the hint says how to push them."""
    done = project.run(
        "build",
        "--builder",
        "far",
        "--tag",
        "x:1",
        "--output",
        str(tmp_path / "x.tar"),
        BUILDTOOL_BUILDER_IMAGE="127.0.0.1:9/builder:trixie",
        BUILDTOOL_BASE_IMAGE="127.0.0.1:9/base:trixie",
    )
    assert done.code == 1
    *_, error, hint = done.stderr.splitlines()
    assert "the build failed" in error
    assert "buildtool images prepare --push REGISTRY/NAME" in hint
