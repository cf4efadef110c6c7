# SPDX-License-Identifier: Apache-2.0
"""Name a set of sources by few patterns, which match no other file of the project."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable

from buildtool.adopt.tree import folder_of
from buildtool.config.compiling import fixed_folder, matches

MAX_EXCLUDED = 4
_SUFFIXES = (".bpf.c", "_kern.c", ".ebpf.c", ".kern.c", "_bpf.c", "_prog.c", ".c")


def name_sources(sources: Collection[str], files: Iterable[str]) -> tuple[list[str], list[str]]:
    """
    Return patterns of *sources* and patterns to exclude, so that no other of *files* matches.

    Objects of the patterns have different names: those of equal base names keep their folders.
    """
    wanted = set(sources)
    others = sorted(name for name in files if name.endswith(".c") and name not in wanted)
    patterns: list[str] = []
    excluded: list[str] = []
    rest = set(wanted)
    for suffix in _SUFFIXES:
        part = {name for name in rest if name.endswith(suffix)}
        rest -= part
        if part:
            more, out = _cover(part, suffix, others, wanted)
            patterns += more
            excluded += out
    return _keep_folders(patterns, wanted), list(dict.fromkeys(excluded))


def _cover(part: set[str], suffix: str, others: list[str], wanted: set[str]) -> tuple[list[str], list[str]]:
    """Return patterns of *part*, sources with one *suffix*: one for each folder where one is enough."""
    top = _top(part)
    if len(part) > 1 and (found := _whole(part, suffix, others, wanted)):
        return found
    flat = sorted(name for name in part if folder_of(name) == top)
    pattern = _join(top, f"*{suffix}")
    is_exact = len(flat) > 1 and not any(matches(pattern, each) for each in others)
    patterns = [pattern] if is_exact else list(flat)
    excluded: list[str] = []
    below: dict[str, set[str]] = {}
    for name in part - set(flat):
        below.setdefault(name.removeprefix(f"{top}/" if top else "").partition("/")[0], set()).add(name)
    for _, inner in sorted(below.items()):
        more, out = _cover(inner, suffix, others, wanted)
        patterns += more
        excluded += out
    return patterns, excluded


def _keep_folders(patterns: list[str], wanted: set[str]) -> list[str]:
    """Return *patterns*, with more folders in the names of those objects that would have the same name."""
    top = _top(wanted)
    for _ in range(2):
        paths = object_paths(patterns, sorted(wanted))
        names: dict[str, list[str]] = {}
        for source, path in paths.items():
            names.setdefault(path.replace("/", "."), []).append(source)
        twice = {source for sources in names.values() if len(sources) > 1 for source in sources}
        if not twice:
            break
        patterns = [
            _below(top, pattern) if any(matches(pattern, source) for source in twice) else pattern
            for pattern in patterns
        ]
    return patterns


def _top(names: Collection[str]) -> str:
    """Return the folder that all of *names* are in."""
    top = (
        posixpath.commonpath([folder_of(name) or "." for name in names]) if all(map(folder_of, names)) else ""
    )
    return "" if top == "." else top


def match_sources(sources: Collection[str], others: Collection[str]) -> list[str]:
    """Return patterns that match all of *sources* and none of *others*, which are sources as well."""
    wanted = set(sources)
    top = _top(wanted)
    for pattern in [_join(top, f"{deep}*.c") for deep in ("", "**/")]:
        if all(matches(pattern, name) for name in wanted) and not any(
            matches(pattern, each) for each in others
        ):
            return [pattern]
    return sorted(wanted)


def object_paths(patterns: Iterable[str], sources: Iterable[str]) -> dict[str, str]:
    """Return the path of the object of each source, as `compile.sources` = *patterns* names it."""
    found = {}
    for pattern in patterns:
        for name in sources:
            if name not in found and matches(pattern, name):
                folder = fixed_folder(pattern)
                inside = name.removeprefix(f"{folder}/") if folder else name
                found[name] = inside.removesuffix(".c") + ".o"
    return found


def _whole(
    part: set[str], suffix: str, others: list[str], wanted: set[str]
) -> tuple[list[str], list[str]] | None:
    """Return one pattern for all, if it needs few exclusions."""
    top = _top(part)
    is_flat = all(folder_of(name) == top for name in part)
    pattern = _join(top, f"*{suffix}" if is_flat else f"**/*{suffix}")
    folders = _folders([name for name in others if matches(pattern, name)], wanted)
    return ([pattern], folders) if len(folders) <= MAX_EXCLUDED else None


def _folders(names: list[str], wanted: set[str]) -> list[str]:
    """Return patterns of *names* that match none of *wanted*: whole folders where possible."""
    patterns: list[str] = []
    for name in names:
        if any(matches(pattern, name) for pattern in patterns):
            continue
        parts = name.split("/")
        heads = ["/".join(parts[:count]) + "/**" for count in range(1, len(parts))]
        fitting = (head for head in heads if not any(matches(head, each) for each in wanted))
        patterns.append(next(fitting, name))
    return patterns


def _below(top: str, pattern: str) -> str:
    """Return *pattern* with `**/` behind *top*, so that the objects keep the folders below it."""
    if folder_of(pattern) == top:
        return pattern
    if fixed_folder(pattern) == top:
        return pattern
    return _join(top, "**/" + (pattern.removeprefix(f"{top}/") if top else pattern))


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
