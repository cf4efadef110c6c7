# SPDX-License-Identifier: Apache-2.0
"""
Find or build `bpf-probe`, which opens, loads and links objects on the machine that builds.

`bpf-probe` is a small static program (loader/probe), which runs on this host and as the only program
of a virtual machine. Wheels carry it. A checkout builds it from source for each architecture.
"""

from __future__ import annotations

import os
import platform as host
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from buildtool.core.cache import tools_directory
from buildtool.core.errors import BuildtoolError, ConfigError, FileAccessError, UsageError
from buildtool.core.platforms import Platform, host_platform
from buildtool.core.process import Runner
from buildtool.runtime.carried import PROBE_NAME, Part, find_probe
from buildtool.runtime.link import PartsRequest, make_parts

PROBES_VARIABLE = "BUILDTOOL_PROBES"  # a directory with ARCH/bpf-probe
_HINT = "install a release, whose wheel carries it"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFinder:
    """Finds or builds probes. Built probes are kept in *cache*, by default in this user's cache."""

    cache: Path | None
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    runner: Runner = field(default_factory=Runner)
    on_progress: Callable[[str], None] = lambda _: None

    def find(self, platform: Platform) -> Path:
        """
        Return the path of the probe for *platform*.

        Raises: any BuildtoolError, if no probe is found and none can be built.
        """
        if named := self.environ.get(PROBES_VARIABLE):
            path = Path(named, platform.arch, PROBE_NAME).absolute()
            if not path.is_file():
                raise ConfigError(
                    f"{PROBES_VARIABLE}: {path}: no such file",
                    hint=f"name a directory with ARCH/{PROBE_NAME}, or unset {PROBES_VARIABLE}",
                )
            return path
        try:
            return find_probe(platform).path
        except FileAccessError:
            return self._make(platform).path

    def find_made(self, platform: Platform) -> Path | None:
        """Return a probe for *platform* that exists (the variable's, carried, or built before), or None."""
        if named := self.environ.get(PROBES_VARIABLE):
            path = Path(named, platform.arch, PROBE_NAME).absolute()
            return path if path.is_file() else None
        for data in (None, self._parts):
            with suppress(FileAccessError):
                return find_probe(platform, data).path
        return None

    @property
    def _parts(self) -> Path:
        return (self.cache or tools_directory()) / "parts"

    def _make(self, platform: Platform) -> Part:
        """Build the probe as `make loaders` does, but into the cache."""
        kept, data = self.cache or tools_directory(self.environ), self._parts
        request = PartsRequest(
            platforms=(platform,), data=data, cache=kept / "packages", report=self.on_progress
        )
        try:
            make_parts(request, runner=self.runner)
            return find_probe(platform, data)
        except BuildtoolError as error:
            error.message = f"no {PROBE_NAME} for {platform.arch}: {error.message}"
            error.hint = f"{error.hint}; {_HINT}" if error.hint else _HINT
            raise


def find_object_linker(environ: Mapping[str, str], *, report: Callable[[str], None], runner: Runner) -> Path:
    """
    Return the probe of this machine, which links objects of several sources.

    Raises: UsageError, on a machine without one; the errors of `ProbeFinder.find`.
    """
    own = host_platform(host.machine())
    if own is None or sys.platform != "linux":
        raise UsageError(
            "an object of several sources: cannot link it here: bpf-probe is a program for Linux",
            hint="buildtool build --engine docker links in the builder",
        )
    return ProbeFinder(cache=None, environ=environ, runner=runner, on_progress=report).find(own)
