# SPDX-License-Identifier: Apache-2.0
"""Tests the reading of `docker buildx inspect`, with the output of several releases of buildx."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from buildtool.core.process import Completed, Runner
from buildtool.image.docker.builder import checks_bases, find_builder

DEBIAN = """\
Name:   default
Driver: docker

Nodes:
Name:             default
Endpoint:         default
Status:           running
BuildKit version: v0.0.0+unknown
Platforms:        linux/amd64, linux/amd64/v2
Labels:
 org.mobyproject.buildkit.worker.containerd.namespace: moby
 org.mobyproject.buildkit.worker.containerd.uuid:      def56520-f9eb-4e2c-8f4c-0b171db8e64d
"""
GRAPHDRIVER = """\
Name:   default
Driver: docker

Nodes:
Name:             default
Endpoint:         default
Status:           running
BuildKit version: v0.13.2
Labels:
 org.mobyproject.buildkit.worker.moby.host-gateway-ip: 172.17.0.1
"""
NODES = """\
Name:          fleet
Driver:        docker-container
Last Activity: 2026-11-30 17:40:00 +0000 UTC

Nodes:
Name:             fleet0
Endpoint:         unix:///var/run/docker.sock
Status:           running
BuildKit version: v0.16.0
Labels:
 org.mobyproject.buildkit.worker.containerd.uuid: 1

Name:      fleet1
Endpoint:  ssh://arm
Status:    running
Buildkit:  {version}
"""
NO_ENGINE = """\
Name:   default
Driver:
Error:  Cannot connect to the Docker daemon at unix:///nonexistent. Is the docker daemon running?
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client(Runner):
    """Answers `buildx inspect` with *text*, and `version` with *server*."""

    text: str
    server: str = ""
    code: int = 0

    def run(self, argv: Sequence[str], **_: Any) -> Completed:
        """Answer."""
        said = self.server if argv[1] == "version" else self.text
        return Completed(returncode=self.code, stdout=said.encode(), stderr=b"")


@pytest.mark.parametrize(
    ("text", "option"), [(DEBIAN, "push="), (GRAPHDRIVER, "push=true"), (NODES, "push=true")]
)
def test_builder_of_the_engine_pushes_once(text: str, option: str) -> None:
    """The option `push=` is used only for the engine's own builder with images in containerd."""
    builder = find_builder("", Client(text=text))
    assert builder is not None
    assert builder.push_option == option


@pytest.mark.parametrize(
    ("text", "server", "checks"),
    [
        (DEBIAN, "26.1.5+dfsg1\n", False),
        (DEBIAN, "28.5.2+dfsg4\n", True),
        (DEBIAN, "", False),
        (GRAPHDRIVER, "28.0", False),
        (GRAPHDRIVER.replace("v0.13.2", "v0.14.0"), "", True),
        (NODES.format(version="v0.14.1"), "26.0", True),
        (NODES.format(version="v0.13.2"), "28.0", False),
    ],
)
def test_oldest_node_decides_what_is_checked(text: str, server: str, checks: bool) -> None:  # noqa: FBT001
    """The oldest BuildKit of the nodes counts. If it is unknown (Debian), the engine's version counts."""
    client = Client(text=text, server=server)
    builder = find_builder("fleet", client)
    assert builder is not None
    assert checks_bases(builder, client) is checks


def test_builder_that_cannot_build() -> None:
    """Without an engine nothing is assumed of a builder. A failed `buildx inspect` is no builder."""
    builder = find_builder("", Client(text=NO_ENGINE))
    assert builder is not None
    assert builder.push_option == "push=true"
    assert not checks_bases(builder, Client(text=NO_ENGINE, code=1))
    assert find_builder("none", Client(text="", code=1)) is None
