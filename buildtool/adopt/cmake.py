# SPDX-License-Identifier: Apache-2.0
"""Read the commands of CMakeLists.txt that compile eBPF sources."""

from __future__ import annotations

import re
from collections.abc import Iterator

from buildtool.adopt.model import ARCH, ARCH_NAMES, AUTOMATIC, UNKNOWN, Found, Recipe
from buildtool.adopt.tree import Tree, folder_of, join
from buildtool.adopt.words import compiles_bpf, sources_of

_COMMAND = re.compile(r"([A-Za-z_]\w*)\s*\(")
_TOKEN = re.compile(r'"((?:\\.|[^"\\])*)"|([^\s()"]+)|[()]')
_VARIABLE = re.compile(r"\$\{([\w./-]+)\}")
_ARCH = re.compile(f"{ARCH_NAMES}|\\w*(?:TARGET_ARCH|_ARCH)")
_KEYWORDS = {
    "COMMAND",
    "OUTPUT",
    "DEPENDS",
    "COMMENT",
    "VERBATIM",
    "WORKING_DIRECTORY",
    "BYPRODUCTS",
    "MAIN_DEPENDENCY",
    "COMMAND_EXPAND_LISTS",
    "DEPFILE",
    "IMPLICIT_DEPENDS",
    "ARGS",
}
_MAX_VALUE = 64 * 1024
_MAX_WORDS = 2000


def read_cmake(tree: Tree, found: Found) -> None:
    """Add the recipes of the project's CMake files to *found*."""
    files = [
        name
        for name in sorted(tree.files)
        if (name.rpartition("/")[2] == "CMakeLists.txt" or name.endswith(".cmake"))
        and not tree.is_foreign(name)
    ]
    for name in files:
        if "bpf" not in tree.read(name):
            continue
        _read_file(tree, name, found)


def _read_file(tree: Tree, name: str, found: Found) -> None:
    variables: dict[str, list[str]] = {}
    loops: dict[str, str] = {}
    for line, command, words in _commands(tree.read(name)):
        lowered = command.lower()
        if lowered in ("add_custom_command", "add_custom_target", "execute_process"):
            for part in _parts(words):
                _add(tree, f"{name}:{line}", tuple(_expand(part, variables, loops)), found)
        elif words:
            _assign(lowered, words, variables, loops)


def _assign(command: str, words: list[str], variables: dict[str, list[str]], loops: dict[str, str]) -> None:
    if command == "set":
        variables[words[0]] = _expand(_until_cache(words[1:]), variables, loops)[:_MAX_WORDS]
    elif command == "list" and len(words) > 1 and words[0].upper() in ("APPEND", "PREPEND"):
        old = variables.get(words[1], [])
        if sum(map(len, old)) < _MAX_VALUE:
            variables[words[1]] = old + _expand(words[2:], variables, loops)
    elif command == "foreach":
        loops[words[0]] = AUTOMATIC
    elif command in ("file", "get_filename_component") and len(words) > 1:
        variables.setdefault(words[1], [AUTOMATIC])


def _add(tree: Tree, place: str, words: tuple[str, ...], found: Found) -> None:
    directory = folder_of(place)
    if compiles_bpf(words, " ".join(words)):
        named = [join(directory, word) for word in sources_of(words)]
        sources = tuple(each for each in named if each in tree.files)
        found.recipes.append(Recipe(place=place, directory=directory, words=words, sources=sources))


def _until_cache(words: list[str]) -> list[str]:
    for at, word in enumerate(words):
        if word in ("CACHE", "PARENT_SCOPE"):
            return words[:at]
    return words


def _parts(words: list[str]) -> Iterator[list[str]]:
    """Yield the words behind each COMMAND."""
    part: list[str] | None = None
    for word in [*words, "COMMAND"]:
        if word in _KEYWORDS:
            if part:
                yield part
            part = [] if word in ("COMMAND", "ARGS") else None
        elif part is not None:
            part.append(word)


def _expand(words: list[str], variables: dict[str, list[str]], loops: dict[str, str]) -> list[str]:
    result: list[str] = []
    for word in words:
        whole = _VARIABLE.fullmatch(word)
        if whole and whole[1] in variables and not _ARCH.fullmatch(whole[1]):
            result += variables[whole[1]]
            continue
        text = word
        for _ in range(8):
            changed = _VARIABLE.sub(lambda match: _value(match[1], variables, loops), text)
            if changed == text or len(changed) > _MAX_VALUE:
                break
            text = changed
        # A list, or flags in one text, which COMMAND_EXPAND_LISTS or a shell separates.
        pieces = [piece for piece in re.split(r";", text) if piece]
        result += [each for piece in pieces for each in re.split(r"\s+(?=-)", piece)]
    return result


def _value(name: str, variables: dict[str, list[str]], loops: dict[str, str]) -> str:
    if name in loops or "BINARY_DIR" in name:
        return AUTOMATIC
    if name in ("CMAKE_CURRENT_SOURCE_DIR", "CMAKE_CURRENT_LIST_DIR"):
        return "."
    if _ARCH.fullmatch(name):
        return ARCH
    if name in variables:
        return ";".join(variables[name])
    usual = {"CMAKE_SOURCE_DIR": ".", "PROJECT_SOURCE_DIR": "."}
    return usual.get(name, "clang" if "CLANG" in name.upper() else UNKNOWN)


def _commands(text: str) -> Iterator[tuple[int, str, list[str]]]:
    """Yield line, name and words of each command in *text*."""
    plain = re.sub(r"#\[(=*)\[.*?\]\1\]", " ", text, flags=re.DOTALL)
    plain = re.sub(r"(?m)(^|\s)#[^\n]*", r"\1", plain)
    at = 0
    while match := _COMMAND.search(plain, at):
        depth, words, at = 1, list[str](), match.end()
        while depth and (token := _TOKEN.search(plain, at)):
            at = token.end()
            depth += (token[0] == "(") - (token[0] == ")")
            if token[0] not in ("(", ")"):
                words.append(re.sub(r"\\(.)", r"\1", token[1]) if token[1] is not None else token[2])
        yield plain.count("\n", 0, match.start()) + 1, match[1], words
