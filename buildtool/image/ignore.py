# SPDX-License-Identifier: Apache-2.0
"""
Read .dockerignore by BuildKit's rules, and decide which files an archive leaves out.

The docker library's matcher tests a file and only one of its parents. With it, `**/private` would
leave out the directory and include its files.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from buildtool.core.errors import ConfigError
from buildtool.core.files import read_bounded

IGNORE_FILE = ".dockerignore"
_MAX_BYTES = 1024 * 1024
# BuildKit reads a backslash before a letter as the letter in one step, and as a class of characters in
# another. Refuse it.
_ESCAPED = r"\\[ -/:-@\[-`{-~]"
_MEMBER = re.compile(rf"({_ESCAPED}|[^][\\*?-])(?:-({_ESCAPED}|[^][\\*?-]))?", re.DOTALL)
_CLASS = re.compile(rf"\[(\^?+)((?:{_MEMBER.pattern})+)\]", re.DOTALL)
# BuildKit does not escape | and ^ in its regular expressions, so refuse them unescaped.
_LITERAL = re.compile(rf"{_ESCAPED}|[^\[\\|^]", re.DOTALL)
_PROBLEMS = {
    "[": "[ without a valid ]",
    "\\": "backslash without a punctuation mark after it",
    "|": "unescaped |",
    "^": "unescaped ^",
}


@dataclass(frozen=True, slots=True)
class _Pattern:
    """A line: the function that *matches* paths, and whether it *excludes* them or includes them again."""

    excludes: bool
    matches: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class IgnoreRules:
    """The *patterns* of a .dockerignore, in their order."""

    patterns: tuple[_Pattern, ...] = ()

    def excludes(self, path: PurePosixPath) -> bool:
        """Return whether the last pattern that matches *path* or a directory above it excludes it."""
        names = [str(path), *(str(parent) for parent in path.parents[:-1])]
        for pattern in reversed(self.patterns):
            if any(map(pattern.matches, names)):
                return pattern.excludes
        return False

    def excludes_all_below(self, directory: PurePosixPath) -> bool:
        """Return whether *directory* is excluded, and no pattern can include a file in it again."""
        return all(pattern.excludes for pattern in self.patterns) and self.excludes(directory)


def read_ignore_file(root: Path) -> IgnoreRules:
    """
    Return the rules of .dockerignore in project *root*. Without the file, nothing is excluded.

    Raises: ConfigError, with the number of an invalid line; FileAccessError.
    """
    path = root / IGNORE_FILE
    if not os.path.lexists(path):
        return IgnoreRules()
    data = read_bounded(path, _MAX_BYTES)
    if len(data) > _MAX_BYTES:
        raise ConfigError(
            f"{path}: larger than {_MAX_BYTES} bytes",
            hint="write patterns such as build/** instead of names of files",
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8", hint="save the file as UTF-8") from error
    return IgnoreRules(tuple(_parse(path, text)))


def _parse(path: Path, text: str) -> Iterator[_Pattern]:
    for number, line in enumerate(text.split("\n"), start=1):
        words = line.strip()
        if line.startswith("#") or not words:
            continue
        excludes = not words.startswith("!")
        try:
            pattern = _clean(_clean(words).strip() if excludes else words[1:].strip())
            if excludes and pattern.startswith("!"):
                raise ValueError("BuildKit reads ./! as !")
            yield _Pattern(excludes, _compile(pattern))
        except ValueError as error:
            raise ConfigError(
                f"{path}:{number}: not a pattern: {error}",
                hint="write a backslash before a bracket, backslash, | or ^ that belongs to a name",
            ) from error


def _clean(pattern: str) -> str:
    """Return *pattern* as a path in the project: `a` for `/a`, `./a`, `a/`, `b/../a`. Raises: ValueError."""
    path = posixpath.normpath(pattern).lstrip("/") if pattern else ""
    if not path:
        raise ValueError("no path")
    return path


def _compile(pattern: str) -> Callable[[str], bool]:
    """Return a function that tests whether *pattern* matches a whole path."""
    # BuildKit compares **TEXT without other wildcards as text, so it also matches the end of a name.
    rest = pattern.removeprefix("**")
    if rest != pattern and not re.search(r"[*?\[\]\\]", rest):
        return lambda path: path.endswith(rest) or f"/{path}" == rest
    expression = re.compile("".join(_translate(pattern)), re.DOTALL)
    return lambda path: expression.fullmatch(path) is not None


def _translate(pattern: str) -> Iterator[str]:
    """Yield the regular expression of each part of *pattern*. Only ** matches slashes."""
    at = 0
    while at < len(pattern):
        if pattern.startswith("**", at):
            at += 3 if pattern.startswith("/", at + 2) else 2
            yield "(?:.*/)?" if at < len(pattern) else ".*"
        elif pattern[at] in "*?":
            yield "[^/]*" if pattern[at] == "*" else "[^/]"
            at += 1
        elif found := _LITERAL.match(pattern, at):
            yield re.escape(found[0][-1])
            at = found.end()
        elif found := _CLASS.match(pattern, at):
            yield f"[{found[1]}{''.join(map(_translate_member, _MEMBER.finditer(found[2])))}]"
            at = found.end()
        else:
            raise ValueError(f"{_PROBLEMS[pattern[at]]}: {pattern}")


def _translate_member(member: re.Match[str]) -> str:
    """Return the regular expression of one character or range in a class. Raises: ValueError."""
    first = member[1][-1]
    last = member[2][-1] if member[2] else first
    if first > last:
        raise ValueError(f"{first}-{last}: a range that ends before its start")
    return f"{re.escape(first)}-{re.escape(last)}"
