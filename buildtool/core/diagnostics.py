# SPDX-License-Identifier: Apache-2.0
"""Lines of sources that messages are about: read from a compiler's output, and placed in a repository."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ERROR, WARNING = "error", "warning"
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# clang's form of a message. A note belongs to the message above it.
_MESSAGE = re.compile(
    r"(?P<file>[^\s:][^:\n]*):(?P<line>\d{1,9}):(?:(?P<column>\d{1,9}):)? "
    r"(?P<level>fatal error|error|warning): (?P<text>.*)"
)
_INCLUDED = re.compile(r"(?:In file included from|\s+from) (?P<file>[^\s:][^:\n]*):(?P<line>\d{1,9})[:,]")
# Of buildtool: a mistake in a configuration file.
_CONFIGURED = re.compile(r"(?P<file>[^\s:][^:\n]*):(?P<line>\d{1,9}): (?P<text>.*)", re.DOTALL)
# The directory of a repository, in GitHub Actions and in GitLab CI.
_WORKSPACES = ("GITHUB_WORKSPACE", "CI_PROJECT_DIR")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePlace:
    """Line *line* of *file*, an absolute path. The first *column* is 1; 0 means the whole line."""

    file: Path
    line: int
    column: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostic:
    """
    A *message* of *level* error or warning about the first of *places*.

    The other places are the lines that include its file, the nearest one first. *source* names what found it:
    a compiler, or a rule of `check`.
    """

    level: str
    message: str
    places: tuple[SourcePlace, ...] = ()
    source: str = "clang"

    def locate(self, repository: Path) -> tuple[str, SourcePlace] | None:
        """Return the first place in *repository*, with its file relative to *repository*, or None."""
        for place in self.places:
            if place.file.is_relative_to(repository) and place.file.is_file():
                return place.file.relative_to(repository).as_posix(), place
        return None


def parse_diagnostics(text: str, root: Path) -> tuple[Diagnostic, ...]:
    """
    Return the errors and warnings in *text*, the output of compilers that ran in directory *root*.

    A message of compilers for several architectures is returned once.
    """
    return tuple(dict.fromkeys(_parse(text, root.resolve())))


def _parse(text: str, root: Path) -> Iterator[Diagnostic]:
    includes: list[SourcePlace] = []
    for line in _ESCAPES.sub("", text).splitlines():
        if found := _INCLUDED.match(line):
            includes.append(_place(found, root))
        elif found := _MESSAGE.match(line):
            level = WARNING if found["level"] == WARNING else ERROR
            here = _place(found, root, int(found["column"] or 0))
            yield Diagnostic(level=level, message=found["text"].strip(), places=(here, *includes))
            includes = []


def locate_message(message: str, directory: Path) -> Diagnostic | None:
    """Return *message* of buildtool as a diagnostic if it begins with FILE:LINE, as seen from *directory*."""
    found = _CONFIGURED.match(message)
    if found is None:
        return None
    place = _place(found, directory.resolve())
    return Diagnostic(level=ERROR, message=found["text"], places=(place,), source="buildtool")


def _place(found: re.Match[str], root: Path, column: int = 0) -> SourcePlace:
    # Without following links: a link in the repository has a line there, its target may be anywhere.
    file = Path(os.path.normpath(root / found["file"]))
    return SourcePlace(file=file, line=int(found["line"]), column=column)


def find_repository(directory: Path, environ: Mapping[str, str]) -> Path:
    """
    Return the repository that *directory* is in, from which CI systems count paths.

    Without a directory .git above, it is the workspace that the CI system names, or *directory* itself.
    """
    start = directory.resolve()
    for parent in (start, *start.parents):
        if (parent / ".git").exists():
            return parent
    for name in _WORKSPACES:
        if value := environ.get(name):
            workspace = Path(value).resolve()
            if start.is_relative_to(workspace):
                return workspace
    return start
