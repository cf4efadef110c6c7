# SPDX-License-Identifier: Apache-2.0
"""
`bpf-probe`, which asks a kernel about programs: where it comes from, and what it says.

It is a small static program of our own (loader/probe), so that the same one runs
on this host and as the only program of a virtual machine. Installations carry
it; a checkout makes it from source, for other architectures as well.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from buildtool.checkmodel import Verdict
from buildtool.debfetch import PackageSource
from buildtool.debian import CROSS_PACKAGES, LIBGCC_DEV, find_archive
from buildtool.errors import BuildtoolError, ToolFailedError, ToolMissingError
from buildtool.fsio import make_directory, read_bounded, write_atomic
from buildtool.platforms import Platform
from buildtool.process import Runner
from buildtool.resources import package_directory, resource_path
from buildtool.toolchain import find_toolchain
from buildtool.verifierlog import read_verdict

PROBE_NAME = "bpf-probe"
PROBES_VARIABLE = "BUILDTOOL_PROBES"  # a directory with ARCH/bpf-probe
MAX_PROBE_BYTES = 16 * 1024 * 1024
_SUITE = "trixie"
_SOURCES = ("probe/probe.c", "static_gaps.c")
_HINT = f"installed wheels carry it; otherwise clang and lld make it, or {PROBES_VARIABLE} names a directory"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedProgram:
    """What the kernel said of *program* in file *path*; an empty name: of the object as a whole."""

    path: str
    program: str
    section: str
    duration_us: int
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeOutput:
    """All that a probe said: the kernel's *release*, and its programs."""

    release: str
    programs: tuple[ProbedProgram, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFinder:
    """Finds or makes probes; what is made is kept below *cache*."""

    cache: Path
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    runner: Runner = field(default_factory=Runner)
    on_progress: Callable[[str], None] = lambda _: None

    def find(self, platform: Platform) -> Path:
        """
        Return the probe for *platform*.

        Raises: every BuildtoolError, when there is none and none can be made.
        """
        named = self.environ.get(PROBES_VARIABLE)
        carried = [Path(named)] if named else []
        carried.append(package_directory() / "data/loaders")
        for directory in carried:
            path = directory / platform.arch / PROBE_NAME
            if path.is_file():
                return path.absolute()
        source = resource_path("loader")
        path = self.cache / f"{PROBE_NAME}-{platform.arch}-{_digest(source)[:16]}"
        if not path.is_file():
            self.on_progress(f"make {PROBE_NAME} for {platform.arch}")
            make_directory(self.cache)
            write_atomic(path, self._make(platform, source), mode=0o755)
        return path.absolute()

    def _make(self, platform: Platform, source: Path) -> bytes:
        try:
            clang = find_toolchain(runner=self.runner).clang
            sysroot = self._sysroot(platform)
            with tempfile.TemporaryDirectory(prefix="buildtool-") as work:
                output = Path(work, PROBE_NAME)
                argv = [clang, f"--target={platform.triple}", f"--sysroot={sysroot}", platform.static_option]
                self.runner.run([*argv, *_SOURCES, "@flags.txt", "-o", str(output)], cwd=source)
                return read_bounded(output, MAX_PROBE_BYTES)
        except (ToolMissingError, ToolFailedError) as error:
            message = f"no {PROBE_NAME} for {platform.arch}: {error.message}"
            raise type(error)(message, hint=_HINT, detail=error.detail) from error
        except BuildtoolError as error:
            error.hint = _HINT
            raise

    def _sysroot(self, platform: Platform) -> Path:
        """Return a directory with the static libraries of Debian for *platform*; nothing is installed."""
        place = self.cache / f"sysroot-{_SUITE}-{platform.arch}"
        if place.is_dir():
            return place
        state = self.cache / "apt" / f"{_SUITE}-{platform.debian}"
        packages = [*CROSS_PACKAGES, "linux-libc-dev", LIBGCC_DEV[_SUITE]]
        self.on_progress(f"download Debian's static libraries for {platform.arch}")
        source = PackageSource(
            archive=find_archive(_SUITE, None), architecture=platform.debian, state=state, runner=self.runner
        )
        make_directory(state)
        source.update()
        with tempfile.TemporaryDirectory(prefix=".sysroot-", dir=self.cache) as work:
            tree = Path(work, "tree")
            source.unpack(packages, tree)
            try:
                tree.rename(place)
            except OSError:
                if not place.is_dir():  # else another process was faster
                    raise
        return place


def read_probe(output: str) -> ProbeOutput:
    """
    Return what *output* of a probe says.

    Raises: ToolFailedError, when it is cut off or not a probe's.
    """
    release, programs, ended = "", [], False
    for line in output.splitlines():
        event = _parse(line)
        if event.get("event") == "kernel":
            release = str(event["release"])
        elif event.get("event") in ("program", "object"):
            programs.append(_read_program(event))
        ended = ended or event.get("event") == "end"
    if not ended:
        detail = "\n".join(output.splitlines()[-3:])[-2000:] or None
        raise ToolFailedError(f"{PROBE_NAME} did not come to its end", detail=detail)
    return ProbeOutput(release=release, programs=tuple(programs))


def _parse(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}  # a guest's console may say other things, too
    return event if isinstance(event, dict) else {}


def _read_program(event: Mapping[str, Any]) -> ProbedProgram:
    texts = {key: str(event.get(key, "")) for key in ("error", "log", "warnings")}
    return ProbedProgram(
        path=str(event["object"]),
        program=str(event.get("program", "")),
        section=str(event.get("section", "")),
        duration_us=int(event.get("durationUs", 0)),
        verdict=read_verdict(int(event["errno"]), texts["error"], texts["log"], texts["warnings"]),
    )


def _digest(source: Path) -> str:
    digest = hashlib.sha256()
    for name in (*_SOURCES, "flags.txt"):
        digest.update(read_bounded(source / name, MAX_PROBE_BYTES))
    return digest.hexdigest()
