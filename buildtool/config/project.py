# SPDX-License-Identifier: Apache-2.0
"""Find the sources of a project, the names of their objects, and its platforms."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

from buildtool.config.file import CONFIG_NAME, Config
from buildtool.core.errors import UsageError
from buildtool.core.platforms import PLATFORMS, Platform, find_platform, host_platform
from buildtool.core.validate import check_object_name

SOURCE_SUFFIX = ".bpf.c"
OBJECT_SUFFIX = ".bpf.o"
NO_PROJECT_HINT = "buildtool init makes a project; go to the directory of one, or name its file by --config"


def find_sources(config: Config) -> tuple[str, ...]:
    """
    Return the sources of *config*, relative to its root, sorted.

    Raises: UsageError, if no file matches, or two sources have one object.
    """
    found = {
        path.relative_to(config.root).as_posix()
        for pattern in config.compile.sources
        for path in config.root.glob(pattern)
    }
    if not found:
        patterns = ", ".join(config.compile.sources)
        if not config.has_file:
            raise UsageError(
                f"{config.root / CONFIG_NAME}: no such file, and no sources: nothing matches {patterns}",
                hint=NO_PROJECT_HINT,
            )
        raise UsageError(
            f"no sources: nothing matches {patterns}",
            hint="write the pattern of your sources into compile.sources, for example src/*.bpf.c",
        )
    name_objects(tuple(sorted(found)))
    return tuple(sorted(found))


def has_project(config: Config) -> bool:
    """Say whether the directory of *config* is a project: it has the file, or sources."""
    return config.has_file or any(any(config.root.glob(pattern)) for pattern in config.compile.sources)


def choose_platforms(names: Sequence[str], config: Config) -> tuple[Platform, ...]:
    """
    Return the platforms of *names*, or of the configuration, or of this machine.

    A name may be several, with commas. The result is in the order of the platform table, without duplicates.

    Raises: UsageError.
    """
    local = host_platform(platform.machine())
    named = tuple(word for name in names for word in (name.split(",") if "," in name else (name,)))
    chosen = named or config.build.arch or ((local.arch,) if local else ())
    if not chosen:
        raise UsageError(
            f"{platform.machine()}: this machine's architecture is not supported",
            hint="choose --arch from " + ", ".join(PLATFORMS),
        )
    wanted = {find_platform(name).arch for name in chosen}
    return tuple(found for arch, found in PLATFORMS.items() if arch in wanted)


def name_objects(sources: tuple[str, ...]) -> dict[str, str]:
    """
    Return the file name of the object of each of *sources*: x.bpf.o for x.bpf.c.

    Raises: UsageError, if a name does not end in .bpf.c, or two sources have one name.
    """
    names: dict[str, str] = {}
    owners: dict[str, str] = {}
    for source in sources:
        base = Path(source).name
        if not base.endswith(SOURCE_SUFFIX):
            raise UsageError(f"{source}: not a source", hint=f"rename it to NAME{SOURCE_SUFFIX}")
        name = check_object_name(base.removesuffix(SOURCE_SUFFIX) + OBJECT_SUFFIX)
        if name in owners:
            raise UsageError(
                f"{name}: made from two sources: {owners[name]}, {source}", hint="rename one of them"
            )
        names[source], owners[name] = name, source
    return names
