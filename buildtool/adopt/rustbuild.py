# SPDX-License-Identifier: Apache-2.0
"""Read build.rs files that compile eBPF sources by libbpf-cargo, and find programs in Rust (aya)."""

from __future__ import annotations

import re

from buildtool.adopt.model import ARCH, UNKNOWN, Found, Recipe
from buildtool.adopt.tree import Tree, folder_of, join

_STRING = re.compile(r'"((?:\\.|[^"\\])*)"')
_CONSTANT = re.compile(r'\bconst\s+(\w+)\s*:\s*&(?:\'static\s+)?str\s*=\s*"([^"]*)"')
_BUILDERS = ("SkeletonBuilder", "BpfBuilder")
_ARGUMENTS = re.compile(r"\.clang_args\s*\(")
_FORMATTED = re.compile(r"\{[\w:]*\}")


def read_build_scripts(tree: Tree, found: Found) -> None:
    """Add a recipe for each build.rs with libbpf-cargo's SkeletonBuilder, and notes on programs in Rust."""
    for name in sorted(tree.files):
        base = name.rpartition("/")[2]
        if tree.is_foreign(name):
            continue
        if base == "build.rs" and any(builder in tree.read(name) for builder in _BUILDERS):
            _read_script(tree, name, found)
        elif base == "Cargo.toml" and re.search(r"(?m)^\s*aya-(?:e?bpf)\b", tree.read(name)):
            found.note(
                name,
                "programs in Rust (aya): cargo compiles them; `buildtool sign` signs the objects",
            )


def _read_script(tree: Tree, name: str, found: Found) -> None:
    directory = folder_of(name)
    text = re.sub(r"//[^\n]*", "", tree.read(name))
    constants = dict(_CONSTANT.findall(text))
    literals = [*_STRING.findall(text)]
    sources = [join(directory, each) for each in literals if each.endswith(".c")]
    # A path is often joined of several strings.
    joined = re.findall(r'\.join\(\s*"([^"]*\.c)"', text)
    for tail in joined:
        sources += [each for each in tree.named(tail.rpartition("/")[2]) if each.endswith(f"/{tail}")]
    known = tuple(dict.fromkeys(each for each in sources if each in tree.files))
    words: list[str] = []
    for match in _ARGUMENTS.finditer(text):
        inside = _inside(text, match.end() - 1)
        words += [_fill(each) for each in _STRING.findall(inside)]
        words += [constants[each] for each in re.findall(r"\b[A-Z_]+\b", inside) if each in constants]
    split = [each for word in words for each in word.split()]
    found.recipes.append(Recipe(place=f"{name}:1", directory=directory, words=tuple(split), sources=known))


def _fill(word: str) -> str:
    return _FORMATTED.sub(ARCH if "arch" in word.lower() else UNKNOWN, word)


def _inside(text: str, start: int) -> str:
    depth = 0
    for at in range(start, len(text)):
        depth += (text[at] in "([") - (text[at] in ")]")
        if depth == 0:
            return text[start : at + 1]
    return text[start:]
