# SPDX-License-Identifier: Apache-2.0
"""Commands of shells, as text: cut them into words, and recognise those that compile eBPF sources."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from buildtool.adopt.model import ARCH, AUTOMATIC, UNKNOWN

_SEPARATOR = re.compile(r"\s*(?:&&|\|\||[;|\n])\s*")
_QUOTED = re.compile(r"'[^']*'|\"(?:\\.|[^\"\\])*\"")
_TARGET = re.compile(r"bpf(?:el|eb)?(?:-[\w-]+)?")
_COMPILER = re.compile(r"(?:^|[/_-])(?:clang|bpf-gcc|bpf-unknown-none-gcc)(?:$|[\d.-])|^clang", re.IGNORECASE)
_SOURCE = re.compile(rf"[^\s{ARCH}{AUTOMATIC}]*\.c")


def split_words(text: str) -> tuple[str, ...]:
    """Return the words of *text* by the rules of a shell, by blanks alone if its quotes do not fit."""
    try:
        return tuple(shlex.split(text, comments=False))
    except ValueError:
        return tuple(text.split())


def split_commands(text: str) -> list[str]:
    """Return the single commands of *text*. A separator inside quotes does not count."""
    kept: list[str] = []

    def keep(found: re.Match[str]) -> str:
        kept.append(found[0])
        return f"\x04{len(kept) - 1}\x04"

    parts = _SEPARATOR.split(_QUOTED.sub(keep, text))
    whole = (re.sub(r"\x04(\d+)\x04", lambda found: kept[int(found[1])], part) for part in parts)
    return [part for part in whole if part.strip()]


def compiles_bpf(words: Sequence[str], whole: str) -> bool:
    """Return whether *words* compile for eBPF. *whole* is the pipeline that they are part of, as text."""
    if not any(word in ("-c", "-S", "-emit-llvm") for word in words):
        return False
    for word, after in zip(words, [*words[1:], ""], strict=True):
        if word in ("-target", "--target") and (_TARGET.fullmatch(after) or UNKNOWN in after):
            return _TARGET.fullmatch(after) is not None or _names_compiler(words)
        if word.startswith(("--target=", "-target=")) and _TARGET.fullmatch(word.partition("=")[2]):
            return True
    return "-emit-llvm" in words and re.search(r"-march=bpf|-mtriple=?\s*bpf", whole) is not None


def _names_compiler(words: Sequence[str]) -> bool:
    return any(_COMPILER.search(word) for word in words[:4])


def sources_of(words: Sequence[str]) -> list[str]:
    """Return the words that name C files."""
    after_output = False
    found = []
    for word in words:
        if not after_output and not word.startswith("-") and _SOURCE.fullmatch(word):
            found.append(word)
        after_output = word == "-o"
    return found
