# SPDX-License-Identifier: Apache-2.0
"""Read the custom targets of meson.build that compile eBPF sources."""

from __future__ import annotations

import re
from collections.abc import Iterator

from buildtool.adopt.model import ARCH, ARCH_NAMES, AUTOMATIC, UNKNOWN, Found, Recipe
from buildtool.adopt.tree import Tree, folder_of, join
from buildtool.adopt.words import compiles_bpf

_STATEMENT = re.compile(r"^[ \t]*(\w+)[ \t]*(\+?=)[ \t]*(?![=])", re.MULTILINE)
_TARGET = re.compile(r"\b(?:custom_target|generator|run_command)\s*\(")
_ITEM = re.compile(r"'((?:\\.|[^'\\])*)'(?:\s*\.format\(([^)]*)\))?|([A-Za-z_][\w.]*(?:\([^()]*\))?)")
_ARCH = re.compile(f"{ARCH_NAMES}|\\w*_?arch(?:\\(\\))?|.*cpu_family\\(\\)", re.IGNORECASE)


def read_meson(tree: Tree, found: Found) -> None:
    """Add the recipes of the project's meson.build files to *found*."""
    names = [name for name in tree.files if name.rpartition("/")[2] == "meson.build"]
    values: dict[str, list[str]] = {}  # those of upper folders are visible below
    for name in sorted(names, key=lambda name: (name.count("/"), name)):
        if tree.is_foreign(name):
            continue
        text = re.sub(r"(?m)#[^\n']*$", "", tree.read(name))
        for match in _STATEMENT.finditer(text):
            items = _items(_value_text(text, match.end()), values)
            old = values.get(match[1], []) if match[2] == "+=" else []
            values[match[1]] = (old + items)[:1000]
        for match in _TARGET.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            _read_target(tree, f"{name}:{line}", _value_text(text, match.end() - 1), values, found)


def _read_target(tree: Tree, place: str, text: str, values: dict[str, list[str]], found: Found) -> None:
    directory = folder_of(place)
    command = re.search(r"\b(?:command|arguments)\s*:\s*", text)
    if command is None:
        return
    words = _items(_value_text(text, command.end()), values)
    if "generator" not in text and not compiles_bpf(words, " ".join(words)):
        return
    given = re.search(r"\binput\s*:\s*", text)
    inputs = _items(_value_text(text, given.end()), values) if given else []
    sources = [join(directory, each) for each in inputs if each.endswith(".c")]
    found.recipes.append(
        Recipe(
            place=place,
            directory=directory,
            words=tuple(words),
            sources=tuple(each for each in sources if each in tree.files),
        )
    )


def _value_text(text: str, start: int) -> str:
    """Return the text of the value at *start*: up to the bracket that closes it, or the end of the line."""
    depth, quoted = 0, False
    for at in range(start, len(text)):
        character = text[at]
        if character == "'" and text[at - 1] != "\\":
            quoted = not quoted
        elif not quoted:
            depth += (character in "([{") - (character in ")]}")
            if (depth == 0 and character in ")]}") or (depth <= 0 and character in "\n,"):
                return text[start : at + 1]
            if depth < 0:
                return text[start:at]
    return text[start:]


def _items(text: str, values: dict[str, list[str]]) -> list[str]:
    return [word for match in _ITEM.finditer(text) for word in _item(match, values)]


def _item(match: re.Match[str], values: dict[str, list[str]]) -> Iterator[str]:
    literal, arguments, name = match.groups()
    if literal is not None:
        filled = re.sub(r"@\d+@", ARCH if _ARCH.search(arguments or "") else UNKNOWN, literal)
        filled = re.sub(
            r"@(?:INPUT|OUTPUT|DEPFILE|PLAINNAME|BASENAME|OUTDIR|BUILD_ROOT)\d*@", AUTOMATIC, filled
        )
        yield re.sub(r"@(?:CURRENT_SOURCE_DIR|SOURCE_DIR)@", ".", filled).replace("\\'", "'")
    elif name.startswith("include_directories("):
        for folder in re.findall(r"'([^']*)'", name):
            yield f"-I{folder}"
    elif name.endswith(("source_dir()", "source_root()")):
        yield "."
    elif _ARCH.fullmatch(name):
        yield ARCH
    elif name in values:
        yield from values[name]
    elif "clang" in name or "find_program" in name:
        yield "clang"
