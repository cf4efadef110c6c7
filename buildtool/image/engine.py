# SPDX-License-Identifier: Apache-2.0
"""Choose the engine of a build: Docker if it answers and can do the build, otherwise the embedded one."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from buildtool.core.errors import EngineError, ToolMissingError
from buildtool.core.platforms import DEBIAN_13, Platform
from buildtool.core.process import Runner
from buildtool.core.validate import LAYOUT_SCHEME
from buildtool.image.docker.builder import find_engine_version
from buildtool.image.docker.buildx import INSTALL_BUILDX, check_buildx

log = logging.getLogger(__name__)

DOCKER, LOCAL = "docker", "local"


def choose_engine(
    wanted: str, environ: Mapping[str, str], *, needs_docker: bool, only_local: str, runner: Runner
) -> str:
    """
    Return docker or local: *wanted*, or for auto the engine that can do the build.

    *needs_docker* is true if only Docker supports the requested options. A missing engine is then
    an error instead of another result. *only_local* is the reason why only the embedded engine can
    do the build, or empty. Choosing local is logged.
    """
    if wanted != "auto":
        return wanted
    if needs_docker:
        return DOCKER
    why = only_local or explain_docker(environ, runner)
    if not why:
        return DOCKER
    before, _, advice = why.partition("; ")
    log.warning("%s: building with the local engine%s", before, f"; {advice}" if advice else "")
    return LOCAL


def why_local(base: str, platforms: Sequence[Platform]) -> str:
    """Return the reason why Docker cannot do a build, or empty text."""
    if base.startswith(LAYOUT_SCHEME):
        return "the base is an OCI layout"
    late = [platform.arch for platform in platforms if platform.arch not in DEBIAN_13]
    return f"the builder image has no libraries for {late[0]}" if late else ""


def explain_docker(environ: Mapping[str, str], runner: Runner) -> str:
    """Return why docker cannot build, perhaps with advice after a semicolon, or empty text if it can."""
    if environ.get("BUILDX_BUILDER"):
        return ""
    try:
        check_buildx(environ, runner)
    except ToolMissingError as error:
        return error.message
    except EngineError as error:
        return f"{error.message}; {INSTALL_BUILDX}"
    return "" if find_engine_version(runner) else "no Docker engine answers"
