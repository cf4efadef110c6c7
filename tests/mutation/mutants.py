# SPDX-License-Identifier: Apache-2.0
"""A mutant: one small change of a source file that some test must notice."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SHOWN_LENGTH = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """
    A change of *file*: the characters from *start* to *end* of its text *source* become *new*.

    *in_function* is False for code that runs when its module is imported.
    """

    file: str
    source: str
    start: int
    end: int
    new: str
    in_function: bool = True

    @property
    def line(self) -> int:
        """The number of the first changed line, from 1."""
        return self.source.count("\n", 0, self.start) + 1

    @property
    def last_line(self) -> int:
        """The number of the last changed line, from 1."""
        return self.source.count("\n", 0, max(self.start, self.end - 1)) + 1

    @property
    def text(self) -> str:
        """The file's text with the change."""
        return self.source[: self.start] + self.new + self.source[self.end :]

    @property
    def key(self) -> str:
        """A name that stays the same while the file does not change: 16 hex digits of a SHA-256."""
        parts = (self.file, self.source, str(self.start), str(self.end), self.new)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    def describe(self) -> str:
        """Return `file:line: old -> new`, with the whole changed lines."""
        first = self.source.rfind("\n", 0, self.start) + 1
        last = self.source.find("\n", self.end)
        last = len(self.source) if last < 0 else last
        old = self.source[first:last]
        new = self.source[first : self.start] + self.new + self.source[self.end : last]
        return f"{self.file}:{self.line}: {_one_line(old)} -> {_one_line(new)}"


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_LENGTH else line[:SHOWN_LENGTH] + "…"


def choose_sample(mutants: Sequence[Mutant], count: int | None, seed: int = 0) -> list[Mutant]:
    """
    Return *count* of *mutants*, in the order of files and lines; all of them for None.

    Each file has its share, rounded up, so that no file is left out. The same seed chooses the same mutants
    of an unchanged file.
    """
    if count is None or count >= len(mutants):
        return list(mutants)
    by_file: dict[str, list[Mutant]] = {}
    for mutant in mutants:
        by_file.setdefault(mutant.file, []).append(mutant)
    return [one for group in by_file.values() for one in _choose_share(group, count, len(mutants), seed)]


def _choose_share(group: Sequence[Mutant], count: int, total: int, seed: int) -> Iterable[Mutant]:
    share = -(-len(group) * count // total)
    chosen = random.Random(f"{seed} {group[0].file}").sample(range(len(group)), share)  # noqa: S311 - no secret
    return (group[index] for index in sorted(chosen))
