# SPDX-License-Identifier: Apache-2.0
"""Read the properties of a buildx builder, and the version of the engine, from the docker command."""

from __future__ import annotations

import re
from dataclasses import dataclass

from buildtool.core.errors import ToolFailedError, ToolMissingError
from buildtool.core.process import Completed, Runner

# A client may wait for an engine on another machine. Limit that time.
TIMEOUT_SECONDS = 10
# The first versions with `# check=error=true`, which compares a base image's architecture with the target.
_BUILDKIT_WITH_CHECKS, _DOCKER_WITH_CHECKS = (0, 14), 27
# The driver of the engine's own builder, and a label that it has if the engine stores images in containerd.
_ENGINE_DRIVER, _CONTAINERD_LABEL = "docker", "org.mobyproject.buildkit.worker.containerd.uuid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Builder:
    """
    A builder: its *driver*, and the BuildKit *versions* of its nodes.

    *has_containerd* is true if its images are stored in containerd.
    """

    driver: str
    versions: tuple[tuple[int, int], ...]
    has_containerd: bool

    @property
    def push_option(self) -> str:
        """
        The field of buildx's --output that pushes once.

        With push=true, buildx before 0.22 would push again by the engine, which has no such image in its
        store. BuildKit reads an empty value as true.
        """
        return "push=" if self.driver == _ENGINE_DRIVER and self.has_containerd else "push=true"


def find_builder(name: str, runner: Runner) -> Builder | None:
    """Return builder *name* (empty: the one in use), or None without buildx or without such a builder."""
    done = _ask(["docker", "buildx", "inspect", *filter(None, [name])], runner)
    if done is None or done.returncode != 0:
        return None
    text = done.stdout.decode(errors="replace")
    lines = (line.partition(":") for line in text.splitlines())
    fields = {key.strip(): value.strip() for key, _, value in lines}
    found = re.findall(r"^(?:BuildKit version|Buildkit):\s+v?(\d+)\.(\d+)", text, re.MULTILINE)
    return Builder(
        driver=fields.get("Driver", ""),
        versions=tuple((int(major), int(minor)) for major, minor in found),
        has_containerd=_CONTAINERD_LABEL in fields,
    )


def checks_bases(builder: Builder, runner: Runner) -> bool:
    """Return whether *builder* itself refuses a base image of another architecture."""
    known = [version for version in builder.versions if version > (0, 0)]
    if known or builder.driver != _ENGINE_DRIVER:
        return bool(known) and min(known) >= _BUILDKIT_WITH_CHECKS
    # Debian's engines report no version of their BuildKit.
    found = re.match(r"\d+", find_engine_version(runner))
    return found is not None and int(found[0]) >= _DOCKER_WITH_CHECKS


def find_engine_version(runner: Runner) -> str:
    """Return the version of the engine that the docker command uses, or empty text if none answers."""
    done = _ask(["docker", "version", "--format", "{{.Server.Version}}"], runner)
    return done.stdout.decode(errors="replace").strip() if done and done.returncode == 0 else ""


def _ask(argv: list[str], runner: Runner) -> Completed | None:
    try:
        return runner.run(argv, check=False, timeout_seconds=TIMEOUT_SECONDS)
    except (ToolMissingError, ToolFailedError):
        return None
