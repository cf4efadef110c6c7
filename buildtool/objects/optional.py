# SPDX-License-Identifier: Apache-2.0
"""
Which programs of an object the loader loads: an optional one (`SEC("?...")`) only if a setting names it.

loader/load/select.c decides when the container starts, where options of the command line count too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """
    The settings that turn optional programs on: *load* ([OBJECT:]PROGRAM) and *attach* (…=TARGET).

    With *everything*, each program counts: nobody knows yet which of them are loaded.
    """

    load: tuple[str, ...] = ()
    attach: tuple[str, ...] = ()
    everything: bool = False

    def loads(self, program: str, section: str, owner: str = "") -> bool:
        """Return whether *program* of *section* is loaded; *owner* is its object, or empty if unknown."""
        if self.everything or not section.startswith("?"):
            return True
        names = [*self.load, *(text.partition("=")[0] for text in self.attach)]
        return any(_is_meant(name, program, PurePosixPath(owner).name) for name in names)


EVERYTHING = Selection(everything=True)


def _is_meant(name: str, program: str, owner: str) -> bool:
    left, colon, right = name.rpartition(":")
    return right == program and (not colon or owner in ("", left))
