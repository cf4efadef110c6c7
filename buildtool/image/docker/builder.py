# SPDX-License-Identifier: Apache-2.0
"""What a buildx builder is: its driver, whether it answers, and what its BuildKit can do."""

from __future__ import annotations

import re
from dataclasses import dataclass

from buildtool.core.errors import ToolFailedError, ToolMissingError
from buildtool.core.process import Completed, Runner

# A client that waits for an engine on another machine should not hold up a build for long.
TIMEOUT_SECONDS = 10
# The first that know `# check=error=true` and compare a base image's architecture with the wanted one.
_BUILDKIT_WITH_CHECKS, _DOCKER_WITH_CHECKS = (0, 14), 27
# The engine's own builder, and how it says that the engine keeps images with containerd.
_ENGINE_DRIVER, _CONTAINERD_LABEL = "docker", "org.mobyproject.buildkit.worker.containerd.uuid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Builder:
    """
    A builder: its *driver*, whether it *answers*, and the *versions* of BuildKit of its nodes.

    *has_containerd* says that its images are containerd's.
    """

    driver: str
    answers: bool
    versions: tuple[tuple[int, int], ...]
    has_containerd: bool

    @property
    def push_option(self) -> str:
        """
        The field of buildx's --output that pushes once.

        For BuildKit an empty value is true as well. buildx before 0.22 would push again by the engine, which
        has no such image in its store.
        """
        return "push=" if self.driver == _ENGINE_DRIVER and self.has_containerd else "push=true"


def find_builder(name: str, runner: Runner) -> Builder | None:
    """Return what builder *name* is (empty: the one in use), or None without buildx or such a builder."""
    done = _ask(["docker", "buildx", "inspect", *filter(None, [name])], runner)
    if done is None or done.returncode != 0:
        return None
    text = done.stdout.decode(errors="replace")
    lines = (line.partition(":") for line in text.splitlines())
    fields = {key.strip(): value.strip() for key, _, value in lines}
    found = re.findall(r"^(?:BuildKit version|Buildkit):\s+v?(\d+)\.(\d+)", text, re.MULTILINE)
    return Builder(
        driver=fields.get("Driver", ""),
        answers="Error" not in fields,
        versions=tuple((int(major), int(minor)) for major, minor in found),
        has_containerd=_CONTAINERD_LABEL in fields,
    )


def checks_bases(builder: Builder, runner: Runner) -> bool:
    """Tell whether *builder* itself refuses a base image of another architecture."""
    known = [version for version in builder.versions if version > (0, 0)]
    if known or builder.driver != _ENGINE_DRIVER:
        return bool(known) and min(known) >= _BUILDKIT_WITH_CHECKS
    # Debian's engines do not know the version of their BuildKit.
    done = _ask(["docker", "version", "--format", "{{.Server.Version}}"], runner)
    found = re.match(rb"\d+", done.stdout) if done else None
    return found is not None and int(found[0]) >= _DOCKER_WITH_CHECKS


def _ask(argv: list[str], runner: Runner) -> Completed | None:
    try:
        return runner.run(argv, check=False, timeout_seconds=TIMEOUT_SECONDS)
    except (ToolMissingError, ToolFailedError):
        return None
