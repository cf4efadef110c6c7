# SPDX-License-Identifier: Apache-2.0
"""What the readers of build files return: recipes and notes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from buildtool.core.platforms import PLATFORMS, Platform

# Stands in a word for the name of the architecture, in a spelling of the project's.
ARCH = "\x02"
# Stands for a value that the reader cannot tell: output of a shell, or a variable that nothing sets.
UNKNOWN = "\x01"
# Stands for values that vary with the target of a rule, and for directories of build products.
AUTOMATIC = "\x03"
# Names of variables that hold the architecture, whatever a file sets them to on this machine.
ARCH_NAMES = (
    "ARCH|GOARCH|GO_ARCH|LINUX_ARCH|BPF_ARCH|TARGET_ARCH|TARGETARCH|TARGET_GOARCH|BPF_TARGET_ARCH|SRCARCH|"
    "NATIVE_ARCH|UNAME_M|UNAME_ARCH|HOST_ARCH|BPFARCH|KARCH|CMAKE_SYSTEM_PROCESSOR|CMAKE_HOST_SYSTEM_PROCESSOR"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A line that a person must know: its *place* (file and line, or a file) and *text*."""

    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """
    A command that compiles eBPF sources: its *words*, and the *directory* where relative names start.

    *sources* are patterns of the sources, relative to the project; empty means the sources below the
    directory. *name* is what the build file calls the product. *architectures* is empty for all.
    """

    place: str
    directory: str
    words: tuple[str, ...]
    sources: tuple[str, ...] = ()
    name: str = ""
    architectures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """A rule that writes the output of *command* to the header *output*; empty for other commands."""

    place: str
    output: str
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Linked:
    """A command that links the objects of *sources* to one object, *name*."""

    place: str
    name: str
    sources: tuple[str, ...]


@dataclass(slots=True)
class Found:
    """What the readers of build files found."""

    recipes: list[Recipe] = field(default_factory=list)
    generated: list[Generated] = field(default_factory=list)
    linked: list[Linked] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    def note(self, place: str, text: str) -> None:
        """Add a note once."""
        entry = Note(place=place, text=text)
        if entry not in self.notes:
            self.notes.append(entry)


def spellings(platform: Platform) -> tuple[str, ...]:
    """Return the names that projects use for *platform*."""
    names = (platform.arch, platform.target_arch, *platform.uname, platform.debian)
    return tuple(dict.fromkeys((*names, platform.triple.partition("-")[0])))


def find_architecture(parts: Iterable[str]) -> str:
    """Return the architecture that one of *parts*, names of folders, spells, or empty text."""
    for part in parts:
        word = part.strip("_.-").lower()
        for platform in PLATFORMS.values():
            if word in spellings(platform):
                return platform.arch
    return ""
