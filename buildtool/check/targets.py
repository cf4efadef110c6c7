# SPDX-License-Identifier: Apache-2.0
"""Choose the objects of `buildtool check` and their architectures."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from buildtool.check.run import CheckTarget
from buildtool.config.compiling import OBJECT_SUFFIX
from buildtool.config.file import Config
from buildtool.config.project import (
    NO_PROJECT_HINT,
    choose_platforms,
    flat_name,
    has_project,
    name_objects,
)
from buildtool.core.errors import (
    BuildtoolError,
    FileAccessError,
    ObjectFormatError,
    UsageError,
    system_reason,
)
from buildtool.core.files import read_bounded
from buildtool.core.platforms import PLATFORMS, find_platform
from buildtool.objects.describe import describe_object
from buildtool.objects.elf import MAX_OBJECT_BYTES, has_signature_section, parse_object
from buildtool.objects.kernelbtf import TYPES_SUFFIX
from buildtool.objects.settable import Settable
from buildtool.signing.bounds import make_settable
from buildtool.signing.settings import LoadSettings, choose_settings
from buildtool.signing.stale import StaleFinder
from buildtool.signing.statement import read_statement

log = logging.getLogger(__name__)


def find_targets(paths: Sequence[Path], arch: Sequence[str], config: Config) -> list[CheckTarget]:
    """
    Return the objects in *paths* (files or directories), or those in build/ of the project.

    A directory may contain a directory for each architecture, as build/ does. *arch* restricts the
    result to these architectures. The default is those that were compiled.

    Raises: UsageError, FileAccessError, ConfigError.
    """
    wanted = {find_platform(name).arch for name in arch}
    if paths:
        targets = [target for path in paths for target in _read(path, wanted)]
    else:
        targets = [target for name in _choose_built(arch, config) for target in _read_built(config, name)]
        _report_missing(targets, config)
    targets = _without_types(targets)
    targets = [replace(target, declared=config.compile.declared) for target in targets]
    finder = StaleFinder(config=config)
    targets = [replace(target, stale=finder.explain(target.path, target.data)) for target in targets]
    targets = _tell_apart(targets)
    if wanted and (other := next((t for t in targets if t.arch and t.arch not in wanted), None)):
        raise UsageError(
            f"{other.path}: compiled for {other.arch}, which --arch does not name",
            hint=f"add --arch {other.arch}, or leave the object out",
        )
    return targets


def apply_settings(
    targets: Sequence[CheckTarget], constants: Sequence[str], entries: Sequence[str], config: Config
) -> list[CheckTarget]:
    """
    Return *targets* with the settings *constants* and *entries*, of --set and --map-entries.

    The bounds are those of a signed object's statement, else those of load.settable.

    Raises: UsageError, for a setting that means no object or is outside of the bounds, and for a rule of
    load.settable that its object does not fit: signing would refuse it.
    """
    if not constants and not entries and not config.load.settable:
        return list(targets)
    chosen: dict[tuple[str, str], LoadSettings] = {}
    for arch in dict.fromkeys(target.arch for target in targets):
        settable = {target.name: _read_settable(target, config) for target in targets if target.arch == arch}
        found = choose_settings(constants, entries, settable)
        chosen |= {(arch, name): settings for name, settings in found.items()}
    return [replace(target, settings=chosen[target.arch, target.name]) for target in targets]


def _read_settable(target: CheckTarget, config: Config) -> Settable | None:
    try:
        obj = parse_object(target.data)
        if has_signature_section(obj):
            return read_statement(obj).settable
        maps = describe_object(obj).maps
    except ObjectFormatError:
        return None  # the rules of check say what is wrong with the object
    try:
        return make_settable(obj, maps, config.load.settable.get(target.name, ()))
    except UsageError as error:
        raise UsageError(f"{target.path}: {error.message}", hint=error.hint) from error


def _choose_built(arch: Sequence[str], config: Config) -> list[str]:
    """
    Return *arch*, else the compiled architectures among the project's, else all that are compiled.

    Report each architecture of the project that is left out.
    """
    names = [platform.arch for platform in choose_platforms(arch, config)]
    if arch:
        return names
    built = [name for name in PLATFORMS if any((config.root / "build" / name).rglob(f"*{OBJECT_SUFFIX}"))]
    chosen = [name for name in names if name in built] or built
    for name in names if chosen else ():
        if name not in chosen:
            where = os.path.relpath(config.root / "build" / name)
            log.warning(
                "%s: no objects: %s is not checked; buildtool compile --arch %s makes them", where, name, name
            )
    return chosen or names


def _report_missing(targets: Sequence[CheckTarget], config: Config) -> None:
    """Report each source of the project that has no object among *targets*, the project's objects."""
    try:
        names = name_objects(config)
    except UsageError:
        return  # objects without sources are checked alone
    found = {(target.arch, target.name) for target in targets}
    for arch in dict.fromkeys(target.arch for target in targets):
        for name, source in names.items():
            if (arch, name) not in found:
                log.warning(
                    "%s: not compiled for %s, so it is not checked; buildtool compile makes its object",
                    source,
                    arch,
                )


def _without_types(targets: Sequence[CheckTarget]) -> list[CheckTarget]:
    """
    Return *targets* without files of `buildtool btf`, which hold types and no program.

    Raises: UsageError, if there is nothing else.
    """
    found = [target for target in targets if not _is_types(target)]
    if targets and not found:
        raise UsageError(
            f"{targets[0].path}: holds types of a kernel, and no program to check",
            hint="buildtool verify checks its signature",
        )
    return found


def _is_types(target: CheckTarget) -> bool:
    if not target.path.name.endswith(TYPES_SUFFIX):
        return False
    try:
        sections = {section.name for section in parse_object(target.data).sections}
    except BuildtoolError:
        return False
    return b".BTF" in sections and sections <= {b"", b".BTF", b".shstrtab", b".strtab", b".sig"}


def _tell_apart(targets: Sequence[CheckTarget]) -> list[CheckTarget]:
    """Return each file once. Targets with the same name and architecture are named by their paths."""
    once = list({(target.arch, target.path.resolve()): target for target in targets}.values())
    number = Counter((target.arch, target.name) for target in once)
    return [
        replace(target, name=str(target.path)) if number[target.arch, target.name] > 1 else target
        for target in once
    ]


def choose_arches(targets: Sequence[CheckTarget], arch: Sequence[str], config: Config) -> tuple[str, ...]:
    """
    Return *arch*, or the architectures of *targets*, or those of the project.

    Raises: UsageError.
    """
    if arch:
        return tuple(dict.fromkeys(find_platform(name).arch for name in arch))
    found = {target.arch for target in targets if target.arch}
    if found:
        return tuple(name for name in PLATFORMS if name in found)
    return tuple(platform.arch for platform in choose_platforms((), config))


def _read_built(config: Config, arch: str) -> Iterator[CheckTarget]:
    directory = config.root / "build" / arch
    if not directory.is_dir():
        where = os.path.relpath(directory)
        is_ours = has_project(config) or directory.parent.is_dir()
        hint = f"buildtool compile --arch {arch} makes it" if is_ours else NO_PROJECT_HINT
        raise FileAccessError(f"{where}: no such directory", hint=hint)
    yield from _read_directory(directory, arch)


def _read(path: Path, wanted: set[str]) -> Iterator[CheckTarget]:
    if not path.is_dir():
        yield _read_file(path, _arch_of(path.parent))
        return
    divided = [name for name in PLATFORMS if any((path / name).rglob(f"*{OBJECT_SUFFIX}"))]
    if not divided:
        yield from _read_directory(path, _arch_of(path))
        return
    for name in divided:
        if not wanted or name in wanted:
            yield from _read_directory(path / name, name)


def _arch_of(directory: Path) -> str:
    """Return the architecture of the objects in *directory* (build/arm64), or empty text if unknown."""
    name = directory.resolve().name
    return name if name in PLATFORMS else ""


def _read_directory(directory: Path, arch: str) -> Iterator[CheckTarget]:
    try:
        found = _list_objects(directory)
    except OSError as error:
        raise FileAccessError(f"{directory}: cannot read: {system_reason(error)}") from error
    if not found:
        raise UsageError(
            f"{directory}: no objects", hint=f"buildtool compile makes objects, which end in {OBJECT_SUFFIX}"
        )
    for path in found:
        yield _read_file(path, arch, flat_name(path.relative_to(directory).as_posix()))


def _list_objects(directory: Path) -> list[Path]:
    """Return the objects in *directory* and its folders, sorted by name. Hidden files are no objects."""
    found = []
    for path in directory.iterdir():
        if path.name.endswith(OBJECT_SUFFIX) and not path.name.startswith("."):
            found.append(path)
        elif path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
            found += _list_objects(path)
    return sorted(found)


def _read_file(path: Path, arch: str, name: str = "") -> CheckTarget:
    # The result may be one byte too long. Rule BT002 reports that.
    data = read_bounded(path, MAX_OBJECT_BYTES)
    size = path.stat().st_size if len(data) > MAX_OBJECT_BYTES else 0
    return CheckTarget(
        path=path, name=name or path.name, data=data, arch=_signed_arch(data) or arch, size=size
    )


def _signed_arch(data: bytes) -> str:
    """Return the architecture in the object's statement, or empty text. Rule BT042 reports malformed ones."""
    try:
        obj = parse_object(data)
        if not has_signature_section(obj):
            return ""
        return find_platform(read_statement(obj).platform).arch
    except BuildtoolError:
        return ""
