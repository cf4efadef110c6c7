# SPDX-License-Identifier: Apache-2.0
"""Command blocks of the pages in docs/: those that run, their setup, and the values of placeholders."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from labs import TOP

# Generated from the help and the messages by tools/gen-cli-docs and tools/gen-messages.
GENERATED = ("cli.md", "messages.md")
PAGES = tuple(page for page in sorted((TOP / "docs").rglob("*.md")) if page.name not in GENERATED)
_BLOCK = re.compile(
    r"((?:^<!-- (?:not run|setup): [^\n]* -->\n)*)^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
_MARKER = re.compile(r"^<!-- (not run|setup): (.+) -->$", re.MULTILINE)
_INDENTED = re.compile(r"(?:^    \S.*\n)+", re.MULTILINE)
COMMAND = re.compile(
    r"^ *(?:\$ )?(?:sudo )?"
    r"(apt-get|buildtool|curl|docker|ebpf-pins|git|install|make|mount|pip|verify-and-load) \S",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block of commands: its *text*, the *setup* commands before it, and the reason why it is *not_run*."""

    text: str
    setup: tuple[str, ...]
    not_run: str


def read_blocks(page: Path) -> list[Block]:
    """Return the blocks of *page* that are marked as commands (sh), in their order."""
    blocks = []
    for markers, language, text in _BLOCK.findall(page.read_text("utf-8")):
        if language != "sh":
            continue
        found = _MARKER.findall(markers)
        blocks.append(
            Block(
                text=text,
                setup=tuple(said for kind, said in found if kind == "setup"),
                not_run="; ".join(said for kind, said in found if kind == "not run"),
            )
        )
    return blocks


def other_commands(page: Path) -> Iterator[str]:
    """Yield the commands of *page* outside of command blocks."""
    text = page.read_text("utf-8")
    for _, language, body in _BLOCK.findall(text):
        if language == "":
            yield from (found[0] for found in COMMAND.finditer(body))
    rest = _BLOCK.sub("", text)
    for body in _INDENTED.findall(rest):
        yield from (found[0] for found in COMMAND.finditer(body))


def fill(text: str, names: Mapping[str, str]) -> str:
    """Replace the placeholders *names*, which are words of capital letters, by their values."""
    return re.sub(rf"\b({'|'.join(names)})\b", lambda found: names[found[0]], text)
