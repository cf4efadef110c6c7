# SPDX-License-Identifier: Apache-2.0
"""Make directories of headers and flags of a recipe's words, of kinds that a configuration allows."""

from __future__ import annotations

import re
from dataclasses import dataclass

from buildtool.adopt.model import ARCH, AUTOMATIC, UNKNOWN, Found, Recipe
from buildtool.adopt.tree import join
from buildtool.core.errors import UsageError
from buildtool.core.flags import check_flag
from buildtool.core.validate import check_include

# Options with a value in the next word. None of them has a place in a configuration.
_WITH_VALUE = {
    "-o",
    "-MF",
    "-MT",
    "-MQ",
    "-x",
    "-target",
    "--target",
    "-Xclang",
    "-mllvm",
    "-arch",
    "-isysroot",
}
_INCLUDE = ("-I", "-isystem", "-iquote", "-idirafter")
# Always on, replaced by an architecture of the command line, or without an effect on objects.
_DROPPED = re.compile(
    r"-g\d?|-gdwarf.*|-ggdb.*|-O[2g]?|-c|-S|-E|-v|-w|-emit-llvm|-nostd\w+|-nobuiltininc|-M\w*|-pipe|-fPIC|"
    r"--?target=.*|-m(?:little|big)-endian|-march=.*|-m(?:64|32)|-W(?!no-).*|-fno-stack-protector|-fno-ident|"
    r"-fcolor-diagnostics|-fdiagnostics-color.*|-f(?:debug|file|macro)-prefix-map=.*|-fdebug-compilation-dir.*|"
    r"-mcpu=v3|-D__TARGET_ARCH_.*|-fdebug-default-version.*|-ffreestanding|-fno-asynchronous-unwind-tables|"
    r"-Qunused-arguments|-static|-D__BPF__|-D__bpf__|-D_FORTIFY_SOURCE.*|-U_FORTIFY_SOURCE|-f?(?:no-)?pi[ce]|"
    r"-f(?:no-)?P(?:IC|IE)|-D_+|-D_LARGEFILE64_SOURCE|-D_FILE_OFFSET_BITS=64|-D__(?:x86_64|aarch64)__|-l\w+|-L.*|"
    r"-pthread|-xc|-Wl,.*"
)
# A macro with the architecture's name in its own. bpf_tracing.h's comes from --arch.
_ARCH_MACRO = re.compile(rf"-D(?!__TARGET_ARCH_)\w*{ARCH}\w*(?:=\w*)?")
_SYSTEM = re.compile(r"/usr/(?:local/)?include|/usr/lib/(?:gcc|llvm|clang|linux)|/usr/src|/lib/modules")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Directories of headers, which may contain ARCH, flags, and macros whose names contain ARCH."""

    include: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    arch_macros: tuple[str, ...] = ()


def read_settings(recipe: Recipe, found: Found) -> Settings:
    """Return the settings of *recipe*, with a note in *found* for each word that has no equivalent."""
    include: dict[str, None] = {}
    flags: dict[str, None] = {}
    macros: dict[str, None] = {}
    words = list(recipe.words)
    while words:
        word = words.pop(0)
        if word in _WITH_VALUE:
            words[:1] = []
            continue
        option = next((each for each in _INCLUDE if word.startswith(each)), "")
        if option:
            value = word.removeprefix(option)
            if not value and words and not words[0].startswith("-"):
                value = words.pop(0)
            for directory in _directories(value, recipe, found):
                include[directory] = None
        elif word in ("-include", "-imacros"):
            name = words.pop(0) if words else ""
            found.note(
                recipe.place, f"{word} {name}: write #include in the source, or in a header of its own"
            )
        elif word in ("-D", "-U"):
            words[:1] = [word + words[0]] if words else []
        elif _ARCH_MACRO.fullmatch(word):
            macros[word] = None
        elif word.startswith("-") and not _DROPPED.fullmatch(word):
            _add_flag(word, recipe, flags, found)
    return Settings(include=tuple(include), flags=tuple(flags), arch_macros=tuple(macros))


def _directories(value: str, recipe: Recipe, found: Found) -> list[str]:
    result = []
    for part in value.split(":") if ":" in value else [value]:
        if not part or UNKNOWN in part or AUTOMATIC in part or _SYSTEM.match(part):
            continue  # products of the build, and headers that the tool brings itself
        directory = join(recipe.directory, part) or "."
        try:
            check_include(directory.replace(ARCH, "x"))
        except UsageError as error:
            found.note(recipe.place, f"-I {part}: left out: {error.message}")
            continue
        result.append(directory)
    return result


def _add_flag(word: str, recipe: Recipe, flags: dict[str, None], found: Found) -> None:
    shown = word.replace(UNKNOWN, "…").replace(ARCH, "ARCH").replace(AUTOMATIC, "…")
    if any(mark in word for mark in (UNKNOWN, ARCH, AUTOMATIC)):
        found.note(recipe.place, f"{shown}: left out: its value is known only when make runs")
        return
    try:
        flags[check_flag(word)] = None
    except UsageError as error:
        reason = error.message.partition("not a flag for sources: ")[2]
        found.note(recipe.place, f"{shown}: left out: {reason}")
