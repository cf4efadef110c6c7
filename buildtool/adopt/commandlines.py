# SPDX-License-Identifier: Apache-2.0
"""Read the lines of Dockerfiles and shell scripts that compile eBPF sources."""

from __future__ import annotations

import posixpath
import re
from itertools import pairwise

from buildtool.adopt.model import ARCH, ARCH_NAMES, UNKNOWN, Found, Recipe, find_architecture
from buildtool.adopt.tree import Tree, folder_of, join
from buildtool.adopt.words import compiles_bpf, sources_of, split_commands, split_words

_ASSIGN = re.compile(r"^\s*(?:export\s+|readonly\s+|local\s+|ENV\s+|ARG\s+)?([A-Za-z_]\w*)=(.*)$")
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::?[-=]([^}]*))?\}|(\w+))")
_ARCH = re.compile(ARCH_NAMES)
_TARGET_DEFINE = re.compile(r"-D__TARGET_ARCH_(\w+)")


def read_command_lines(tree: Tree, found: Found) -> None:
    """Add a recipe for each command in a Dockerfile or a script that compiles for eBPF."""
    for name in sorted(tree.files):
        base = name.rpartition("/")[2]
        if not (base.startswith(("Dockerfile", "Containerfile")) or base.endswith((".sh", ".bash"))):
            continue
        text = tree.read(name)
        if not tree.is_foreign(name) and "clang" in text.lower() and "bpf" in text:
            _read_file(tree, name, text, found)


def _read_file(tree: Tree, name: str, text: str, found: Found) -> None:
    variables: dict[str, str] = {}
    at = 1
    for line in re.sub(r"\\\n", "\x04", text).split("\n"):
        number, at = at, at + 1 + line.count("\x04")
        joined = line.replace("\x04", " ")
        if assigned := _ASSIGN.match(joined):
            words = split_words(assigned[2])
            variables[assigned[1]] = _expand(words[0], variables) if len(words) == 1 else ""
            continue
        whole = _expand(joined.removeprefix("RUN "), variables)
        for command in split_commands(whole):
            words = split_words(command)
            if compiles_bpf(words, whole):
                _add(tree, f"{name}:{number}", folder_of(name), words, found)


def _add(tree: Tree, place: str, directory: str, words: tuple[str, ...], found: Found) -> None:
    sources = [
        join(directory, word.replace(UNKNOWN, "*")) if UNKNOWN in word else _locate(tree, directory, word)
        for word in sources_of(words)
    ]
    known = tuple(each for each in sources if each)
    if not known:
        return
    defined = [macro[1] for word in words if (macro := _TARGET_DEFINE.fullmatch(word))]
    architecture = find_architecture(defined)
    output = next((after for word, after in pairwise(words) if word == "-o"), "")
    stem = posixpath.basename(output).removesuffix(".o")
    for part in defined:
        stem = stem.replace(part, "")
    found.recipes.append(
        Recipe(
            place=place,
            directory=folder_of(known[0]),
            words=words,
            sources=known,
            name=stem,
            architectures=(architecture,) if architecture else (),
        )
    )


def _locate(tree: Tree, directory: str, word: str) -> str:
    """Return the source that a command names by *word*: a script's directory may be any above the source."""
    target = join(directory, word)
    if target in tree.files:
        return target
    tail = word.lstrip("./")
    near = [
        each
        for each in tree.named(posixpath.basename(word))
        if (each == tail or each.endswith(f"/{tail}")) and not tree.is_foreign(each)
    ]
    inside = [each for each in near if not directory or each.startswith(f"{directory}/")]
    return (inside or near or [""])[0] if len(inside or near) == 1 else ""


def _expand(text: str, variables: dict[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1] or match[3]
        if _ARCH.fullmatch(name):
            return ARCH
        return variables.get(name, match[2] if match[2] is not None else UNKNOWN)

    return _VARIABLE.sub(value, re.sub(r"\$\(uname -m[^)]*\)|`uname -m[^`]*`", ARCH, text))
