# SPDX-License-Identifier: Apache-2.0
"""The project and the registry that the peers' tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from labs.formats import Published, add_formats
from labs.peers import distribution_registry
from labs.project import make_local_project
from labs.registry import write_certificate

from buildtool.cli.main import run


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory, clang: Path) -> Iterator[Published]:
    """Build images of all formats for two architectures, push and sign them, and write them as archives."""
    assert clang.exists()
    work = tmp_path_factory.mktemp("peers")
    authority = write_certificate(work / "server.pem", "127.0.0.1", (-1, 30))
    with (
        pytest.MonkeyPatch.context() as patch,
        distribution_registry(work / "registry") as plain,
        distribution_registry(work / "registry", work / "server.pem") as secure,
    ):
        project = make_local_project(work, patch)
        add_formats(project)
        assert run(["keygen", "other"]) == 0
        assert run(["keygen", "release"]) == 0
        build = [
            "build",
            "--engine",
            "local",
            "--arch",
            "amd64",
            "--arch",
            "arm64",
            "--key",
            "keys/release.pem",
        ]
        assert run([*build, "--push", "--tag", f"{plain}/plant/agent:1"]) == 0
        assert run([*build, "--push", "--tag", f"{plain}/plant/bare:1", "--no-sign-image"]) == 0
        assert run([*build, "--output", "out.tar", "--tag", f"{plain}/plant/agent:1"]) == 0
        yield Published(
            project=project,
            registries=(plain, secure),
            authority=authority,
        )
