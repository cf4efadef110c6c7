# SPDX-License-Identifier: Apache-2.0
"""A docker context names the engine for buildx and for the Python library."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from buildtool.core.errors import EngineError
from buildtool.core.process import Runner
from buildtool.image.docker.buildx import BuildxRequest, run_build
from buildtool.image.docker.client import find_engine_image, load_archive
from buildtool.image.docker.store import save_image
from buildtool.image.dockerfile import Dockerfile

TAG = "context-test:1"


def docker(*arguments: str | Path) -> str:
    """Run docker and return its output."""
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture(params=["DOCKER_CONTEXT", "currentContext"])
def context(
    request: pytest.FixtureRequest, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Name the engine by a context instead of DOCKER_HOST; yield the host's value."""
    host, old = os.environ["DOCKER_HOST"], Path(os.environ["DOCKER_CONFIG"])
    settings = tmp_path / "settings"
    settings.mkdir()
    if (old / "cli-plugins").is_dir():
        (settings / "cli-plugins").symlink_to(old / "cli-plugins")
    monkeypatch.setenv("DOCKER_CONFIG", str(settings))
    monkeypatch.delenv("DOCKER_HOST")
    docker("context", "create", "far", "--docker", f"host={host}")
    if request.param == "currentContext":
        docker("context", "use", "far")
    else:
        (settings / "config.json").write_text("{}")
        monkeypatch.setenv("DOCKER_CONTEXT", "far")
    return host


def test_builds_and_the_library_use_the_context(
    context: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Buildx and the library use the same engine, which DOCKER_HOST names directly."""
    (tmp_path / "file").write_text("context")
    build = BuildxRequest(
        dockerfile=lambda: Dockerfile(text="FROM scratch\nCOPY file /\n"),
        context=tmp_path,
        platforms=("linux/amd64",),
        tags=(TAG,),
        output="type=docker",
    )
    digest = run_build(build, runner=Runner())["containerimage.digest"]
    try:
        found = find_engine_image(TAG)
        assert found is not None
        assert found["Id"] == digest
        assert find_engine_image(TAG + "-none") is None
        assert save_image(TAG, tmp_path / "image.tar")
        docker("image", "rm", TAG)
        assert find_engine_image(TAG) is None
        load_archive(tmp_path / "image.tar")
        monkeypatch.setenv("DOCKER_HOST", context)
        assert docker("image", "inspect", "--format", "{{.Id}}", TAG).strip() == digest
    finally:
        subprocess.run(["docker", "image", "rm", TAG], capture_output=True, check=False)


def test_a_file_that_is_no_image_is_one_error(engine: str, tmp_path: Path) -> None:
    """A file that is no image gives the engine's own message on one line."""
    (tmp_path / "x.tar").write_bytes(b"no tar")
    with pytest.raises(EngineError, match=r"^the engine did not load the image: [^\n]+$"):
        load_archive(tmp_path / "x.tar")
