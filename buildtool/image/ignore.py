# SPDX-License-Identifier: Apache-2.0
"""
Reads .dockerignore by BuildKit's rules and decides which files stay out of an archive.

The docker library has a matcher, too, which tests a file and one of its parents only: `**/private`
would leave out the directory and let its files in.
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
# For BuildKit a backslash before a letter is the letter in one step and a class of characters in another.
_ESCAPED = r"\\[ -/:-@\[-`{-~]"
_MEMBER = re.compile(rf"({_ESCAPED}|[^][\\*?-])(?:-({_ESCAPED}|[^][\\*?-]))?", re.DOTALL)
_CLASS = re.compile(rf"\[(\^?+)((?:{_MEMBER.pattern})+)\]", re.DOTALL)
# BuildKit forgets to escape | and ^ in its regular expressions.
_LITERAL = re.compile(rf"{_ESCAPED}|[^\[\\|^]", re.DOTALL)
_PROBLEMS = {
    "[": "[ without a valid ]",
    "\\": "backslash without a punctuation mark after it",
    "|": "unescaped |",
    "^": "unescaped ^",
}


@dataclass(frozen=True, slots=True)
class _Pattern:
    """One line: whether *matches* of a path *excludes* it, or takes it back in."""

    excludes: bool
    matches: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class IgnoreRules:
    """The *patterns* of a .dockerignore, in their order."""

    patterns: tuple[_Pattern, ...] = ()

    def excludes(self, path: PurePosixPath) -> bool:
        """Tell whether the last pattern that matches *path*, or any directory above it, excludes it."""
        names = [str(path), *(str(parent) for parent in path.parents[:-1])]
        for pattern in reversed(self.patterns):
            if any(map(pattern.matches, names)):
                return pattern.excludes
        return False

    def excludes_all_below(self, directory: PurePosixPath) -> bool:
        """Tell whether *directory* is excluded and no pattern can take back what is in it."""
        return all(pattern.excludes for pattern in self.patterns) and self.excludes(directory)


def read_ignore_file(root: Path) -> IgnoreRules:
    """
    Return the rules of .dockerignore in project *root*; without the file nothing is excluded.

    Raises: ConfigError, with the line that is no pattern; FileAccessError.
    """
    path = root / IGNORE_FILE
    if not os.path.lexists(path):
        return IgnoreRules()
    data = read_bounded(path, _MAX_BYTES)
    if len(data) > _MAX_BYTES:
        raise ConfigError(f"{path}: larger than {_MAX_BYTES} bytes", hint="write patterns, not all files")
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
    """Return *pattern* as a path below the project: `/a`, `./a`, `a/` and `b/../a` are all `a`."""
    path = posixpath.normpath(pattern).lstrip("/") if pattern else ""
    if not path:
        raise ValueError("no path")
    return path


def _compile(pattern: str) -> Callable[[str], bool]:
    """Return the function that tells whether *pattern* matches a whole path."""
    # BuildKit compares a pattern without other wildcards as text, so that **x also matches the end of a name.
    rest = pattern.removeprefix("**")
    if rest != pattern and not re.search(r"[*?\[\]\\]", rest):
        return lambda path: path.endswith(rest) or f"/{path}" == rest
    expression = re.compile("".join(_translate(pattern)), re.DOTALL)
    return lambda path: expression.fullmatch(path) is not None


def _translate(pattern: str) -> Iterator[str]:
    """Yield the regular expression of each part of *pattern*; only ** matches slashes."""
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
    """Return one character of a class, or a range."""
    first = member[1][-1]
    last = member[2][-1] if member[2] else first
    if first > last:
        raise ValueError(f"{first}-{last}: a range that ends before its start")
    return f"{re.escape(first)}-{re.escape(last)}"
