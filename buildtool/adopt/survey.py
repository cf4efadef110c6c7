# SPDX-License-Identifier: Apache-2.0
"""Look at a project, and decide what its `buildtool.toml` says."""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from buildtool.adopt.cmake import read_cmake
from buildtool.adopt.commandlines import read_command_lines
from buildtool.adopt.csource import find_programs, is_test
from buildtool.adopt.gogenerate import read_generate_lines
from buildtool.adopt.headers import CARRIED, KERNEL_TYPES, HeaderFinder, Reach, is_usually_carried
from buildtool.adopt.makefile import read_makefiles, read_variables
from buildtool.adopt.meson import read_meson
from buildtool.adopt.model import ARCH, Found, Generated, Note, Recipe, spellings
from buildtool.adopt.patterns import match_sources, name_sources, object_paths
from buildtool.adopt.rustbuild import read_build_scripts
from buildtool.adopt.sections import Declared, declare_sections
from buildtool.adopt.settings import Settings, read_settings
from buildtool.adopt.tree import MAX_ENTRIES, Tree, folder_of
from buildtool.config.compiling import matches
from buildtool.config.project import flat_name
from buildtool.core.errors import UsageError
from buildtool.core.platforms import EM_BPF, PLATFORMS
from buildtool.core.validate import check_object_name, check_relative_path

DEFAULT_ARCHITECTURES = ("amd64", "arm64")
MAX_NOTES = 60
_READERS = (read_makefiles, read_cmake, read_meson, read_build_scripts, read_command_lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRule:
    """Settings of some sources: patterns in *match*."""

    match: tuple[str, ...]
    include: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """An object *name* of *source* with its own *flags*, or linked from *sources*."""

    name: str
    source: str = ""
    sources: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class Survey:
    """The values of a project's `buildtool.toml`, and *notes* on what a person must still decide."""

    sources: list[str] = field(default_factory=list)
    exclude: list[str] = field(default_factory=list)
    include: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    arch_include: dict[str, list[str]] = field(default_factory=dict)
    arch_exclude: dict[str, list[str]] = field(default_factory=dict)
    arch_flags: dict[str, list[str]] = field(default_factory=dict)
    rules: list[SourceRule] = field(default_factory=list)
    objects: list[Variant] = field(default_factory=list)
    generate: list[Generated] = field(default_factory=list)
    programs: list[Declared] = field(default_factory=list)
    architectures: list[str] = field(default_factory=lambda: list(DEFAULT_ARCHITECTURES))
    files: list[str] = field(default_factory=list)
    prebuilt: list[str] = field(default_factory=list)
    needs_types: list[str] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class _Source:
    """A source while its settings are decided: directories by architecture, flags, and recipes by name."""

    name: str
    settings: Settings = field(default_factory=Settings)
    variants: list[tuple[str, Settings]] = field(default_factory=list)
    architectures: tuple[str, ...] = ()
    given: frozenset[str] = frozenset()  # flags with those that the source does not use
    directories: dict[str, list[str]] = field(default_factory=dict)
    reaches: dict[str, Reach] = field(default_factory=dict)


def survey_project(root: Path, *, is_carried: Callable[[str], bool] = is_usually_carried) -> Survey:
    """
    Return what the build files and sources below *root* say. *is_carried* tells headers that the tool brings.

    Raises: FileAccessError, UsageError.
    """
    tree = Tree(root)
    found = Found()
    if not tree.is_complete:
        found.note(str(root), f"more than {MAX_ENTRIES} files; those below the other folders were not read")
    for reader in _READERS:
        reader(tree, found)
    read_generate_lines(tree, read_variables(tree), found)
    result = Survey()
    names = _choose_sources(tree, found)
    result.prebuilt = [] if names else _find_prebuilt(tree)
    if not names:
        _explain_nothing(tree, result, found)
        result.notes = found.notes
        return result
    sources = [_Source(name=name) for name in names]
    _give_settings(sources, found)
    result.architectures = _choose_architectures(tree, sources, found)
    for arch in result.architectures:
        lacking = [each.name for each in sources if each.architectures and arch not in each.architectures]
        if lacking:
            result.arch_exclude[arch] = match_sources(
                lacking, [each for each in names if each not in lacking]
            )
    _find_headers(tree, sources, result, found, is_carried)
    _spell_macros(tree, sources, result)
    _drop_unused_macros(tree, sources)
    _merge_headers(tree, sources, result, is_carried)
    _merge_flags(sources, result)
    result.files = names
    result.sources, result.exclude = name_sources(names, tree.files)
    _name_variants(sources, result, found)
    _link_objects(result, found)
    result.programs = declare_sections(tree, names, found)
    _check_names(result, found)
    result.notes = found.notes
    return result


def _choose_sources(tree: Tree, found: Found) -> list[str]:
    """Return the sources that the contents show, and those that bpf2go or a builder names."""
    named = {each for recipe in found.recipes for each in recipe.sources}
    explicit = {each for each in named if each in tree.files and not tree.is_foreign(each)}
    names = find_programs(tree, explicit)
    tests = [name for name in names if is_test(name)]
    if tests and len(tests) < len(names):
        found.note(folder_of(tests[0]) or ".", f"{len(tests)} sources in folders of tests are left out")
        names = [name for name in names if name not in tests]
    usable = []
    for name in names:
        if _is_forgotten(name, explicit, found.recipes):
            found.note(name, "left out: no build file names it, unlike other sources of its folder")
            continue
        try:
            usable.append(check_relative_path(name))
        except UsageError as error:
            found.note(name, f"left out: {error.message}")
    return usable


def _is_forgotten(name: str, explicit: set[str], recipes: Iterable[Recipe]) -> bool:
    """Return whether the build files name other sources in the folder of source *name*, and not this one."""
    folder = folder_of(name)
    return any(folder_of(each) == folder for each in explicit) and not any(
        _covers(recipe, name) for recipe in recipes
    )


def _find_prebuilt(tree: Tree) -> list[str]:
    return [
        name for name in sorted(tree.files) if name.endswith(".o") and _is_bpf_object(tree.head(name, 20))
    ]


def _is_bpf_object(data: bytes) -> bool:
    if len(data) < 20 or data[:4] != b"\x7fELF" or data[4] != 2 or data[5] not in (1, 2):
        return False
    (machine,) = struct.unpack_from("<H" if data[5] == 1 else ">H", data, 18)
    return bool(machine == EM_BPF)


def _explain_nothing(tree: Tree, result: Survey, found: Found) -> None:
    if result.prebuilt:
        found.note(
            result.prebuilt[0],
            f"{len(result.prebuilt)} compiled objects and no source: `buildtool sign FILE` signs each",
        )
        return
    for name in sorted(tree.files):
        if name.endswith(".py") and "from bcc import" in tree.read(name):
            found.note(name, "BCC compiles at run time: write the program into a C file, and load its object")
            return
    if not found.notes:
        found.note(".", "no eBPF source: no C file has SEC(…) programs or maps")


def _give_settings(sources: Sequence[_Source], found: Found) -> None:
    """Give each source the settings of the recipe that compiles it, or several as variants."""
    names = [source.name for source in sources]
    recipes = [
        (recipe, read_settings(recipe, found), any(_covers(recipe, name) for name in names))
        for recipe in list(found.recipes)
    ]
    for source in sources:
        exact = [(recipe, settings) for recipe, settings, _ in recipes if _covers(recipe, source.name)]
        named = [(recipe, settings) for recipe, settings in exact if recipe.name]
        if named:
            exact = named
        else:
            exact.sort(key=lambda item: (source.name not in item[0].sources, -item[0].directory.count("/")))
        if not exact:
            near = [
                (recipe, settings)
                for recipe, settings, is_used in recipes
                if not is_used and _is_above(recipe.directory, source.name)
            ]
            exact = sorted(near, key=lambda item: -len(item[0].directory))[:1]
        if not exact:
            continue
        source.settings = exact[0][1]
        if all(recipe.architectures for recipe, _ in exact):
            source.architectures = tuple({arch for recipe, _ in exact for arch in recipe.architectures})
        include = dict.fromkeys(name for _, settings in exact for name in settings.include)
        if named:
            source.variants = [(recipe.name, settings) for recipe, settings in named]
            source.settings = replace(source.settings, include=tuple(include))


def _covers(recipe: Recipe, name: str) -> bool:
    return any(matches(pattern, name) for pattern in recipe.sources)


def _is_above(directory: str, name: str) -> bool:
    return not directory or name.startswith(f"{directory}/")


def _choose_architectures(tree: Tree, sources: Sequence[_Source], found: Found) -> list[str]:
    """Return the architectures that build files name, or that have folders of headers, or the usual two."""
    names = {source.name for source in sources}
    used = [recipe for recipe in found.recipes if names & set(recipe.sources)]
    stated = {arch for recipe in used for arch in recipe.architectures}
    if used and all(recipe.architectures for recipe in used):
        return [arch for arch in PLATFORMS if arch in stated]
    folders = {name for source in sources for name in source.settings.include if ARCH in name}
    shown = {arch for name in folders for arch in PLATFORMS if _spell(tree, name, arch)}
    usual = shown & set(DEFAULT_ARCHITECTURES) or shown or set(DEFAULT_ARCHITECTURES)
    if more := shown - usual - stated:
        found.note(
            min(folders).replace(ARCH, "ARCH"),
            f"has headers of {', '.join(sorted(more))} too: add each to build.arch and as ARCH.include",
        )
    return [arch for arch in PLATFORMS if arch in usual | stated]


def _spell(tree: Tree, name: str, arch: str) -> str:
    """Return directory *name* with the spelling of *arch* that the project has, or empty text."""
    places = (name.replace(ARCH, each) for each in spellings(PLATFORMS[arch]))
    return next((place for place in places if tree.has_folder(place)), "")


def _find_headers(
    tree: Tree, sources: Sequence[_Source], result: Survey, found: Found, is_carried: Callable[[str], bool]
) -> None:
    finder = HeaderFinder(tree, is_carried)
    missing: dict[str, list[str]] = {}
    for source in sources:
        for arch in result.architectures:
            given = [_spell(tree, each, arch) if ARCH in each else each for each in source.settings.include]
            directories, reach = finder.complete(source.name, [each for each in given if each], arch)
            source.directories[arch], source.reaches[arch] = directories, reach
            needed = [each for each in reach.missing if not each.include.conditional]
            if any(each.include.name == KERNEL_TYPES for each in needed):
                directories.append(f"vmlinux/{arch}")
                result.needs_types = list(dict.fromkeys([*result.needs_types, arch]))
            for each in needed:
                if each.include.name != KERNEL_TYPES:
                    missing.setdefault(each.include.name, []).append(f"{each.file}:{each.include.line}")
    for name, places in missing.items():
        _explain_missing(tree, name, places[0], result, found)


def _explain_missing(tree: Tree, name: str, place: str, result: Survey, found: Found) -> None:
    made = next((each for each in found.generated if f"/{each.output}".endswith(f"/{name}")), None)
    template = next((each for each in tree.named(f"{name.rpartition('/')[2]}.in")), "")
    if made is not None and made.command:
        result.generate.append(made)
        found.note(made.place, f"{made.output}: `buildtool generate` makes it; read the command first")
    elif made is not None:
        found.note(made.place, f"{made.output}: made by this rule; make it, or write [[compile.generate]]")
    elif template:
        found.note(place, f"{name}: made of {template}; configure the project, or write [[compile.generate]]")
    else:
        found.note(place, f"{name}: no directory of the project has this header")


def _merge_headers(
    tree: Tree, sources: Sequence[_Source], result: Survey, is_carried: Callable[[str], bool]
) -> None:
    """Put directories of all sources into one list, and those that would find other headers into rules."""
    finder = HeaderFinder(tree, is_carried)
    groups: dict[tuple[tuple[str, ...], ...], list[_Source]] = {}
    for source in sources:
        groups.setdefault(tuple(tuple(each) for each in source.directories.values()), []).append(source)
    common: list[str] = []
    own: dict[str, list[str]] = {arch: [] for arch in result.architectures}
    accepted: list[_Source] = []
    for group in sorted(groups.values(), key=len, reverse=True):
        lists = group[0].directories
        shared = [name for name in next(iter(lists.values())) if all(name in each for each in lists.values())]
        new_common = [*common, *(name for name in shared if name not in common)]
        new_own = {
            arch: [*own[arch], *(name for name in names if name not in new_common and name not in own[arch])]
            for arch, names in lists.items()
        }
        members = [*accepted, *group]
        if all(
            _same(finder, source, arch, [*new_own[arch], *new_common]) for source in members for arch in lists
        ):
            common, own, accepted = new_common, new_own, members
        else:
            rest = [source.name for source in sources if source not in group]
            union = dict.fromkeys(name for names in lists.values() for name in names)
            if not union:
                continue
            match = tuple(match_sources([source.name for source in group], rest))
            result.rules.append(SourceRule(match=match, include=tuple(union)))
    result.include = common
    result.arch_include = {arch: names for arch, names in own.items() if names}


def _same(finder: HeaderFinder, source: _Source, arch: str, directories: list[str]) -> bool:
    """Return whether *source* finds the same headers with *directories* as with its own."""
    wanted = source.reaches[arch]
    got = finder.reach(source.name, directories)
    return all(got.places.get(place) == file for place, file in wanted.places.items())


def _spell_macros(tree: Tree, sources: Sequence[_Source], result: Survey) -> None:
    """Write macros named after the architecture in the spelling that the sources have."""
    for source in sources:
        for arch in result.architectures if source.settings.arch_macros else ():
            files = {source.name} | set(source.reaches[arch].places.values()) - {CARRIED}
            words = {word for file in files for word in re.findall(r"\w+", tree.read(file))}
            flags = result.arch_flags.setdefault(arch, [])
            for macro in source.settings.arch_macros:
                spelled = [macro.replace(ARCH, each) for each in spellings(PLATFORMS[arch])]
                used = [each for each in spelled if each[2:].partition("=")[0] in words]
                flags += [each for each in used if each not in flags]
    result.arch_flags = {arch: flags for arch, flags in result.arch_flags.items() if flags}


def _drop_unused_macros(tree: Tree, sources: Sequence[_Source]) -> None:
    """Leave out macros that no file of a source names: flags of user space are often those of programs."""
    texts: dict[str, set[str]] = {}
    for source in sources:
        reaches = source.reaches.values()
        files = {source.name} | {place for each in reaches for place in each.places.values()} - {CARRIED}
        for file in files - set(texts):
            texts[file] = set(re.findall(r"\w+", tree.read(file)))
        words = set().union(*(texts[file] for file in files))

        def keep(settings: Settings, words: set[str] = words) -> Settings:
            flags = [
                flag
                for flag in settings.flags
                if not flag.startswith(("-D", "-U")) or re.split(r"[(=]", flag[2:])[0] in words
            ]
            return replace(settings, flags=tuple(flags))

        source.given = frozenset(source.settings.flags)
        source.settings = keep(source.settings)
        kinds: dict[tuple[str, ...], tuple[str, Settings]] = {}
        for name, settings in source.variants:
            kept = keep(settings)
            kinds.setdefault(kept.flags, (name, kept))
        source.variants = list(kinds.values()) if len(kinds) > 1 else []


def _merge_flags(sources: Sequence[_Source], result: Survey) -> None:
    """Put flags that all sources have into [compile], warnings as well, and others into rules."""
    quiet = dict.fromkeys(
        flag for source in sources for flag in source.settings.flags if flag.startswith("-Wno-")
    )
    lists = {source.name: [each for each in source.settings.flags if each not in quiet] for source in sources}
    single = [source for source in sources if not source.variants]
    # A flag of all sources counts for all, even if some do not use it.
    used = dict.fromkeys(flag for source in single for flag in lists[source.name])
    shared = [flag for flag in used if all(flag in source.given for source in sources)]
    result.flags = [*shared, *quiet]
    groups: dict[tuple[str, ...], list[str]] = {}
    for source in single:
        rest = tuple(flag for flag in lists[source.name] if flag not in shared)
        if rest:
            groups.setdefault(rest, []).append(source.name)
    for flags, names in groups.items():
        others = [source.name for source in sources if source.name not in names]
        match = tuple(match_sources(names, others))
        old = next((rule for rule in result.rules if rule.match == match), None)
        if old:
            result.rules.remove(old)
        result.rules.append(SourceRule(match=match, include=old.include if old else (), flags=flags))


def _name_variants(sources: Sequence[_Source], result: Survey, found: Found) -> None:
    """Write an object for each variant of a source that is compiled several times with different flags."""
    paths = object_paths(result.sources, [source.name for source in sources])
    for source in sources:
        stem = flat_name(paths[source.name]).removesuffix(".o")
        for name, settings in source.variants:
            flags = tuple(flag for flag in settings.flags if flag not in result.flags)
            variant = f"{stem}-{name}.o"
            try:
                result.objects.append(
                    Variant(name=check_object_name(variant), source=source.name, flags=flags)
                )
            except UsageError as error:
                found.note(source.name, f"{error.message}: name this object by [[compile.object]]")
    result.rules = [
        rule
        for rule in result.rules
        if rule.include or not all(each in {item.source for item in result.objects} for each in rule.match)
    ]


def _link_objects(result: Survey, found: Found) -> None:
    """Write an entry for each object that the project links from several sources."""
    own = {each.source for each in result.objects}
    for linked in found.linked:
        if not set(linked.sources) <= set(result.files) or own & set(linked.sources):
            continue
        try:
            result.objects.append(Variant(name=check_object_name(linked.name), sources=linked.sources))
        except UsageError as error:
            found.note(linked.place, f"{error.message}: name this object by [[compile.object]]")


def _check_names(result: Survey, found: Found) -> None:
    paths = object_paths(result.sources, result.files)
    variants = {name for each in result.objects for name in (each.source, *each.sources)}
    counts = Counter(flat_name(path) for name, path in paths.items() if name not in variants)
    for name, path in paths.items():
        if counts[flat_name(path)] > 1 and name not in variants:
            found.note(name, f"{flat_name(path)}: two sources would have this object name")
