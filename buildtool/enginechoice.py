# SPDX-License-Identifier: Apache-2.0
"""Which engine makes an image: Docker when it is there and can, else the embedded one."""

from __future__ import annotations

import os
from collections.abc import Mapping

from buildtool.buildx import find_buildx
from buildtool.enginesocket import find_socket, has_buildkit
from buildtool.errors import ToolFailedError, ToolMissingError
from buildtool.process import Runner

DOCKER, LOCAL = "docker", "local"
# A client that waits for an engine on another machine should not hold up a build for long.
TIMEOUT_SECONDS = 10


def choose_engine(wanted: str, environ: Mapping[str, str], *, needs_docker: bool, runner: Runner) -> str:
    """
    Return docker or local: what is *wanted*, or for auto what is there.

    *needs_docker* says that the build asks for what only Docker can do; the
    missing engine is then the error, not another result.
    """
    if wanted != "auto":
        return wanted
    return DOCKER if needs_docker or find_docker(environ, runner) else LOCAL


def find_docker(environ: Mapping[str, str], runner: Runner) -> bool:
    """Say whether an engine with BuildKit, and buildx, are there."""
    if environ.get("BUILDX_BUILDER"):
        return True
    path = find_socket(environ)
    if path is not None:
        return has_buildkit(path) and _has_buildx(runner)
    return _has_buildx(runner) and _succeeds(["docker", "version", "--format", "{{.Server.Version}}"], runner)


def _has_buildx(runner: Runner) -> bool:
    command = find_buildx(os.environ)
    return command[0] != "docker" or _succeeds([*command, "version"], runner)


def _succeeds(argv: list[str], runner: Runner) -> bool:
    try:
        return runner.run(argv, check=False, timeout_seconds=TIMEOUT_SECONDS).returncode == 0
    except (ToolMissingError, ToolFailedError):
        return False
