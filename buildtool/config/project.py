# SPDX-License-Identifier: Apache-2.0
"""Find the sources of a project, what each object is made of, and the project's platforms."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from buildtool.config.compiling import OBJECT_SUFFIX, CompileObject, CompileSettings, fixed_folder, matches
from buildtool.config.file import CONFIG_NAME, CompileConfig, Config
from buildtool.core.errors import ConfigError, UsageError
from buildtool.core.files import read_bounded
from buildtool.core.platforms import PLATFORMS, Platform, find_platform, host_platform
from buildtool.core.process import check_operand
from buildtool.core.validate import check_object_name
from buildtool.objects.types import Declaration

SOURCE_SUFFIX = ".c"
NO_PROJECT_HINT = "buildtool init makes a project; go to the directory of one, or name its file by --config"


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """
    A *source* of an object, relative to the root, with its settings.

    *include* are directories of headers, in the order of the search. *flags* follow those of all objects.
    """

    source: str
    include: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """
    An object to compile, at *path* below the directory of objects, of one piece or linked from several.

    *declared* are the types of sections that libbpf does not know.
    """

    path: str
    pieces: tuple[Piece, ...]
    declared: tuple[Declaration, ...] = ()

    @property
    def name(self) -> str:
        """The object's name in statements, policies and images."""
        return flat_name(self.path)

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources of the object, in the order in which they are linked."""
        return tuple(piece.source for piece in self.pieces)

    @property
    def is_linked(self) -> bool:
        """True if the object is linked from several sources."""
        return len(self.pieces) > 1


# The sources and the path of an object, and its entry in [[compile.object]], if it has one.
_Found = tuple[tuple[str, ...], str, CompileObject | None]


def find_sources(config: Config) -> tuple[str, ...]:
    """
    Return the sources of *config*, relative to its root, sorted.

    Raises: UsageError, if no file matches, or two objects have one name.
    """
    return tuple(sorted({source for sources, _, _ in _find_objects(config) for source in sources}))


def plan_units(config: Config, target: Platform) -> tuple[Unit, ...]:
    """
    Return the objects of *config* for *target*, with their own settings, sorted by name.

    Raises: UsageError, as `find_sources`, and if a generated file is missing.
    """
    for entry in config.compile.generate:
        if not (config.root / entry.output).exists():
            raise UsageError(f"{entry.output}: not generated yet", hint="buildtool generate makes it")
    settings = config.compile.arch.get(target.arch)
    excluded = settings.exclude if settings else ()

    def kept(sources: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(source for source in sources if not any(matches(each, source) for each in excluded))

    found = [(kept(sources), path, entry) for sources, path, entry in _find_objects(config)]
    if not any(sources for sources, _, _ in found):
        raise UsageError(
            f"no sources for {target.arch}: compile.{target.arch}.exclude matches all of them",
            hint=f"remove a pattern, or {target.arch} from build.arch",
        )
    return tuple(
        _make_unit(config.compile, each, target.arch)
        for each in sorted(found, key=lambda each: flat_name(each[1]))
        if each[0]
    )


def name_objects(config: Config) -> dict[str, str]:
    """
    Return the names of the objects of *config*, sorted, with the source of each, or its sources with commas.

    Raises: UsageError, as `find_sources`.
    """
    return dict(sorted((flat_name(path), ", ".join(sources)) for sources, path, _ in _find_objects(config)))


def links_objects(config: Config) -> bool:
    """
    Return whether *config* has an object of several sources.

    Raises: UsageError, as `find_sources`.
    """
    return any(len(sources) > 1 for sources, _, _ in _find_objects(config))


def check_settable_names(config: Config, objects: Collection[str]) -> None:
    """
    Check that load.settable of *config* names only *objects* of the project.

    Raises: ConfigError.
    """
    for name in config.load.settable:
        if name not in objects:
            raise ConfigError(
                f"load.settable: {name}: the project makes no such object",
                hint="objects: " + ", ".join(objects),
            )


def choose_units(
    config: Config, target: Platform, sources: Sequence[str], include: Sequence[str], flags: Sequence[str]
) -> tuple[Unit, ...]:
    """
    Return the units of *sources* (empty: all of *config*) for *target*.

    A source that the configuration finds has its name and its settings there, others those of [compile].
    One of several that are linked stands for their object. *include* and *flags* replace those of all units,
    unless they are empty.

    Raises: FileAccessError, if a source cannot be read; UsageError, as `find_sources`.
    """
    for source in sources:
        read_bounded(Path(check_operand(source)), 0)  # a mistake in a name shows here, before its suffix
    units = plan_units(config, target) if not sources or _is_here(config) else ()
    if sources:
        wanted = {os.path.normpath(source) for source in sources}
        known = [unit for unit in units if not wanted.isdisjoint(unit.sources)]
        found = {source for unit in known for source in unit.sources}
        rest = [each for each in sources if os.path.normpath(each) not in found]
        units = (*known, *make_units(rest, config.compile.include, config.compile.flags))
        check_units(units)
    return tuple(
        replace(
            unit,
            pieces=tuple(_replace_settings(piece, include, flags) for piece in unit.pieces),
            declared=config.compile.declared,
        )
        for unit in units
    )


def _replace_settings(piece: Piece, include: Sequence[str], flags: Sequence[str]) -> Piece:
    return replace(piece, include=tuple(include) or piece.include, flags=tuple(flags) or piece.flags)


def _is_here(config: Config) -> bool:
    """Return whether the working directory is the project's, and the project has sources."""
    return config.root.resolve() == Path.cwd() and any(
        any(config.root.glob(pattern)) for pattern in config.compile.sources
    )


def make_units(
    sources: Iterable[str], include: Sequence[str] = (), flags: Sequence[str] = ()
) -> tuple[Unit, ...]:
    """
    Return units of *sources* with the same settings and the names of their files: x.bpf.o for bpf/x.bpf.c.

    Raises: UsageError, if a name does not end in .c, or two objects have one name.
    """
    units = tuple(
        Unit(
            path=_object_path(source, None),
            pieces=(Piece(source=source, include=tuple(include), flags=tuple(flags)),),
        )
        for source in sources
    )
    check_units(units)
    return units


def check_units(units: Sequence[Unit]) -> None:
    """
    Check that the names of *units* are valid and different.

    Raises: UsageError.
    """
    _check_names([(unit.sources, unit.path) for unit in units])


def flat_name(path: str) -> str:
    """Return the object name of the object at *path* below build/ARCH: one.x.bpf.o for one/x.bpf.o."""
    return path.replace("/", ".")


def _find_objects(config: Config) -> list[_Found]:
    """Return sources, path and entry of each object."""
    settings, found = config.compile, dict[str, str]()
    for pattern in settings.sources:
        for path in config.root.glob(pattern):
            source = path.relative_to(config.root).as_posix()
            if not any(matches(each, source) for each in settings.exclude):
                # The first pattern that finds a source names its object.
                found.setdefault(source, _object_path(source, fixed_folder(pattern)))
    entries = [(_match_sources(config, entry), entry) for entry in settings.object]
    named = {source for sources, _ in entries for source in sources}
    objects: list[_Found]
    objects = [((source,), path, None) for source, path in sorted(found.items()) if source not in named]
    objects += [(sources, entry.name, entry) for sources, entry in entries]
    if not objects:
        raise _no_sources(config)
    _check_names([(sources, path) for sources, path, _ in objects])
    return objects


def _match_sources(config: Config, entry: CompileObject) -> tuple[str, ...]:
    """
    Return the sources of *entry*, each once: those of a pattern sorted, in the order of the patterns.

    Raises: UsageError, if nothing matches a pattern.
    """
    sources: list[str] = []
    for pattern in entry.patterns:
        if "*" not in pattern and "?" not in pattern:
            sources.append(os.path.normpath(pattern))  # the compiler says if there is no such file
            continue
        paths = sorted(path.relative_to(config.root).as_posix() for path in config.root.glob(pattern))
        paths = [path for path in paths if not any(matches(each, path) for each in config.compile.exclude)]
        if not paths:
            raise UsageError(
                f"{entry.name}: no sources: nothing matches {pattern}",
                hint="sources in [[compile.object]] are C files, or patterns such as bpf/agent/*.bpf.c",
            )
        sources += paths
    return tuple(dict.fromkeys(sources))


def _no_sources(config: Config) -> UsageError:
    patterns = ", ".join(config.compile.sources)
    if not config.has_file:
        return UsageError(
            f"{config.root / CONFIG_NAME}: no such file, and no sources: nothing matches {patterns}",
            hint=NO_PROJECT_HINT,
        )
    excluded = " without those of compile.exclude" if config.compile.exclude else ""
    return UsageError(
        f"no sources: nothing matches {patterns}{excluded}",
        hint="write the pattern of your sources into compile.sources, for example src/*.bpf.c",
    )


def _object_path(source: str, folder: str | None) -> str:
    """Return the path of the object of *source*, relative to *folder*, or its name alone without one."""
    if not source.endswith(SOURCE_SUFFIX):
        raise UsageError(
            f"{source}: not a source: the name does not end in {SOURCE_SUFFIX}",
            hint="compile.sources and SOURCE name C files",
        )
    path = PurePosixPath(source)
    inside = (
        str(path.relative_to(folder)) if folder is not None and path.is_relative_to(folder) else path.name
    )
    return inside.removesuffix(SOURCE_SUFFIX) + OBJECT_SUFFIX


def _check_names(objects: Iterable[tuple[Sequence[str], str]]) -> None:
    owners: dict[str, str] = {}
    for sources, path in objects:
        name, source = flat_name(path), ", ".join(sources)
        try:
            check_object_name(name)
        except UsageError as error:
            raise UsageError(
                f"{source}: {error.message}", hint="rename it, or name its object by [[compile.object]]"
            ) from error
        if name in owners:
            raise UsageError(
                f"{name}: made from two sources: {owners[name]}, {source}",
                hint="use one pattern for both folders, which keeps the folders (bpf/**/*.c),"
                " or name each object by [[compile.object]]",
            )
        owners[name] = source


def _make_unit(settings: CompileConfig, found: _Found, arch: str) -> Unit:
    sources, path, entry = found
    pieces = tuple(_make_piece(settings, source, entry, arch) for source in sources)
    return Unit(path=path, pieces=pieces, declared=settings.declared)


def _make_piece(settings: CompileConfig, source: str, entry: CompileObject | None, arch: str) -> Piece:
    layers: list[CompileSettings] = [each for name, each in settings.arch.items() if name == arch]
    layers += [rule for rule in settings.rule if rule.applies(source, arch)]
    layers += [entry] if entry else []
    include = [name for layer in reversed(layers) for name in layer.include]
    flags = [flag for layer in layers for flag in layer.flags]
    return Piece(
        source=source,
        include=tuple(dict.fromkeys([*include, *settings.include])),
        flags=(*settings.flags, *flags),
    )


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
