# SPDX-License-Identifier: Apache-2.0
"""Write files for people: lines with their reasons."""

from __future__ import annotations

from dataclasses import dataclass, field

_STEP = "  "


@dataclass(slots=True, kw_only=True)
class YamlText:
    """Lines of a file with comments in `#`. With *explains*, each line with a reason has it as a comment."""

    explains: bool
    lines: list[str] = field(default_factory=list)

    def add(self, depth: int, text: str, why: str = "") -> None:
        """Add line *text*, indented by *depth* steps, and *why* it is there."""
        if why and self.explains:
            self.lines.append(f"{_STEP * depth}# {_one_line(why)}")
        self.lines.append(f"{_STEP * depth}{text}")

    def remark(self, depth: int, text: str) -> None:
        """Add comment *text*, whether or not lines are explained."""
        self.lines.append(f"{_STEP * depth}# {_one_line(text)}")

    def text(self) -> str:
        """Return the file."""
        return "\n".join(self.lines) + "\n"


def _one_line(text: str) -> str:
    """Return *text* without characters that end a comment or act on a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
