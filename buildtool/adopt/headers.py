# SPDX-License-Identifier: Apache-2.0
"""Follow the `#include` lines of a source, and find directories of headers that no build file names."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from buildtool.adopt.csource import Include, find_includes
from buildtool.adopt.model import find_architecture
from buildtool.adopt.tree import Tree, folder_of, join

KERNEL_TYPES = "vmlinux.h"
MAX_HEADERS = 3000
MAX_DIRECTORIES = 60
CARRIED = "<carried>"  # the place of a header that the compiler or the tool brings
# Headers that the compiler brings.
COMPILER_HEADERS = {
    "stdint.h", "stddef.h", "stdbool.h", "stdarg.h", "limits.h", "float.h", "stdalign.h", "stdatomic.h",
    "inttypes.h",
}  # fmt: skip
_CARRIED_BPF = {
    "bpf_helpers.h",
    "bpf_helper_defs.h",
    "bpf_tracing.h",
    "bpf_core_read.h",
    "bpf_endian.h",
    "usdt.bpf.h",
}

Place = tuple[str, str]  # a file, and the name that it includes


def is_usually_carried(name: str) -> bool:
    """Return whether header *name* is one that the tool brings, by the folders of Linux's and libbpf's."""
    first, _, rest = name.partition("/")
    if first == "bpf":
        return rest in _CARRIED_BPF
    return name in COMPILER_HEADERS or first in ("linux", "asm", "asm-generic")


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A header that no directory has: the *file* and its *include*."""

    file: str
    include: Include


@dataclass(slots=True)
class Reach:
    """What a source includes, through all headers: places, the directories that have them, missing ones."""

    places: dict[Place, str] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    missing: list[Missing] = field(default_factory=list)


class HeaderFinder:
    """Finds headers in *tree*. *is_carried* tells the headers that the tool brings itself."""

    def __init__(self, tree: Tree, is_carried: Callable[[str], bool]) -> None:
        self._tree = tree
        self._is_carried = is_carried
        self._includes: dict[str, tuple[Include, ...]] = {}

    def reach(self, source: str, directories: Sequence[str]) -> Reach:
        """Return what *source* includes with *directories*, in this order."""
        result = Reach()
        waiting, seen = [source], {source}
        while waiting and len(seen) < MAX_HEADERS:
            file = waiting.pop()
            for include in self._of(file):
                directory, place = self._find(file, include, directories)
                result.directories.add(directory)
                if not place:
                    result.missing.append(Missing(file=file, include=include))
                    continue
                result.places[file, include.name] = place
                if place != CARRIED and place not in seen:
                    seen.add(place)
                    waiting.append(place)
        return result

    def complete(self, source: str, directories: Sequence[str], arch: str) -> tuple[list[str], Reach]:
        """Return *directories* and those of the project with which *source* finds its headers on *arch*."""
        known = [each for each in directories if self._tree.has_folder(each)]
        while True:
            reach = self.reach(source, known)
            added = [
                place
                for each in reach.missing
                if (place := self._search(source, each.include.name, arch)) and place not in known
            ]
            if not added or len(known) >= MAX_DIRECTORIES:
                # A directory that has no header of these finds nothing, and needs no line.
                return [each for each in known if each in reach.directories], reach
            known.append(added[0])

    def _of(self, file: str) -> tuple[Include, ...]:
        if file not in self._includes:
            self._includes[file] = find_includes(self._tree, file)
        return self._includes[file]

    def _find(self, file: str, include: Include, directories: Sequence[str]) -> tuple[str, str]:
        """Return the directory of the search, empty for the file's own, and the place of the header."""
        if include.quotes:
            near = join(folder_of(file), include.name)
            if self._tree.has_file(near):
                return "", near
        for directory in directories:
            place = join(directory, include.name)
            if self._tree.has_file(place):
                return directory, place
        return "", CARRIED if self._is_carried(include.name) else ""

    def _search(self, source: str, name: str, arch: str) -> str:
        """Return the directory from which *name* is found on *arch*, the nearest one to *source*."""
        tail = posixpath.normpath(name)
        if tail.startswith(("/", "..")):
            return ""
        best: tuple[tuple[int, int, int, str], str] | None = None
        for found in self._tree.named(tail.rpartition("/")[2]):
            if found != tail and not found.endswith(f"/{tail}"):
                continue
            directory = found.removesuffix(tail).rstrip("/") or "."
            if any(part.startswith(".") and part != "." for part in directory.split("/")):
                continue
            spelled = find_architecture(directory.split("/"))
            if spelled not in ("", arch):
                continue
            common = len(posixpath.commonprefix([found.split("/"), source.split("/")]))
            rank = (self._tree.is_foreign(found), -common, found.count("/"), found)
            if best is None or rank < best[0]:
                best = (rank, directory)
        return best[1] if best else ""
