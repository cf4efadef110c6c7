# SPDX-License-Identifier: Apache-2.0
"""Read the `//go:generate` lines that run bpf2go of cilium/ebpf."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from buildtool.adopt.model import ARCH, ARCH_NAMES, UNKNOWN, Found, Recipe
from buildtool.adopt.tree import Tree, folder_of, join
from buildtool.adopt.words import split_words
from buildtool.core.platforms import PLATFORMS

_LINE = re.compile(r"^//go:generate\s+(.*\bbpf2go(?:@\S+)?\b.*)$", re.MULTILINE)
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_ARCH = re.compile(f"{ARCH_NAMES}|TARGET|BPF_TARGET")
_SWITCHES = {"no-strip", "no-global-types", "makebase-only", "h", "help"}


def read_generate_lines(tree: Tree, variables: Mapping[str, str], found: Found) -> None:
    """Add a recipe for each bpf2go line. *variables* are those of the Makefiles, which export them."""
    for name in sorted(tree.files):
        if not name.endswith(".go") or tree.is_foreign(name) or "bpf2go" not in tree.read(name):
            continue
        text = tree.read(name)
        for match in _LINE.finditer(text):
            place = f"{name}:{text.count(chr(10), 0, match.start()) + 1}"
            _read_line(tree, place, match[1], variables, found)


@dataclass(slots=True)
class _Line:
    """The arguments of bpf2go: an identifier and a source in *operands*, C *flags*, *targets*."""

    operands: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)


def _read_line(tree: Tree, place: str, line: str, variables: Mapping[str, str], found: Found) -> None:
    given = split_words(line)
    words = [_expand(word, variables) for word in given]
    start = next(at for at, word in enumerate(words) if re.search(r"bpf2go(?:@\S+)?$", word))
    parsed = _parse(words[start + 1 :])
    if len(parsed.operands) < 2:
        found.note(place, "bpf2go without a source")
        return
    directory = folder_of(place)
    source = join(directory, parsed.operands[1])
    if source not in tree.files:
        found.note(place, f"{parsed.operands[1]}: no such source")
        return
    if any(UNKNOWN in flag for flag in parsed.flags):
        unknown = next(word for word, value in zip(given, words, strict=True) if UNKNOWN in value)
        found.note(place, f"{unknown}: no Makefile sets this variable; add its flags to compile.flags")
    found.recipes.append(
        Recipe(
            place=place,
            directory=directory,
            words=tuple(word for flag in parsed.flags if flag != UNKNOWN for word in split_words(flag)),
            sources=(source,),
            name=parsed.operands[0],
            architectures=tuple(target for target in parsed.targets if target in PLATFORMS),
        )
    )


def _parse(rest: list[str]) -> _Line:
    """Return the arguments *rest*. bpf2go reads options at any place, and C flags behind the source too."""
    result = _Line()
    while rest:
        word = rest.pop(0)
        if word == "--":
            result.flags += rest
            break
        if not word.startswith("-"):
            if word and word != UNKNOWN:
                result.operands.append(word)
            continue
        option, has_value, value = word.lstrip("-").partition("=")
        if option in _SWITCHES:
            continue
        value = value if has_value else (rest.pop(0) if rest else "")
        if option == "cflags":
            result.flags.append(value)
        elif option == "target":
            result.targets += value.split(",")
    result.flags += result.operands[2:]
    return result


def _expand(word: str, variables: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if _ARCH.fullmatch(name):
            return ARCH
        return variables.get(name, UNKNOWN)

    return _VARIABLE.sub(value, word)
