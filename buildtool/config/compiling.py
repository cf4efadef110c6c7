# SPDX-License-Identifier: Apache-2.0
"""The tables below [compile]: settings of an architecture, of sources by pattern, and of single objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from buildtool.config.values import as_text, as_texts, declare, expect, list_keys
from buildtool.core import validate
from buildtool.core.errors import UsageError
from buildtool.core.flags import check_flag
from buildtool.core.platforms import PLATFORMS, find_platform
from buildtool.objects.types import SECTION_TYPES, UNKNOWN_PROGRAM, declared_type, section_type

OBJECT_SUFFIX = ".o"
Table = TypeVar("Table", bound="CompileSettings | CompileProgram | CompileGenerate")


def check_object_file(value: str) -> str:
    """
    Return *value* if it can name an object's file: an object name that ends in .o.

    Raises: UsageError.
    """
    validate.check_object_name(value)
    if not value.endswith(OBJECT_SUFFIX) or value == OBJECT_SUFFIX:
        raise UsageError(f"{value!a} does not end in {OBJECT_SUFFIX}", hint="for example monitor-debug.bpf.o")
    return value


def _check_argument(value: str) -> str:
    """Return *value* if it can be an argument of a command: text without control characters."""
    if not value or not value.isprintable():
        raise UsageError(
            f"{value!a} is not an argument of a command", hint="a list of the program and its words"
        )
    return value


def check_unknown_section(value: str) -> str:
    """Return *value* if it is a section that libbpf does not know, or a beginning with a * at its end."""
    if not value.isprintable() or "*" in value[:-1] or value in ("", "*") or value.startswith("?"):
        raise UsageError(f"{value!a} is not a section name", hint="for example classifier/x or classifier/*")
    if section_type(value) != UNKNOWN_PROGRAM:
        raise UsageError(
            f"libbpf loads section {value} as {section_type(value)}",
            hint="remove the table; declare only sections that libbpf does not know",
        )
    return value


def check_declared(value: str) -> str:
    """Return *value* if it is a section of libbpf that names no target."""
    if declared_type(value) is None:
        examples = [name for name, kind in SECTION_TYPES.items() if kind == value and not name.endswith("+")]
        hint = f"for example {' or '.join(examples[:3] or ['tc', 'xdp', 'socket'])}"
        raise UsageError(f"{value!a} is not a section of libbpf without a target", hint=hint)
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileSettings:
    """Settings below [compile]: directories to *include* before its own, and *flags* after its flags."""

    include: tuple[str, ...] = declare(as_texts(validate.check_include), ())
    flags: tuple[str, ...] = declare(as_texts(check_flag), ())


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileArch(CompileSettings):
    """[compile.ARCH]: settings of an architecture, and patterns of sources to *exclude* there."""

    exclude: tuple[str, ...] = declare(as_texts(validate.check_path_pattern), ())


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileRule(CompileSettings):
    """[[compile.rule]]: settings of sources that a pattern of *match* matches, on *arch* (empty: on all)."""

    match: tuple[str, ...] = declare(as_texts(validate.check_path_pattern), ())
    arch: tuple[str, ...] = declare(as_texts(lambda text: find_platform(text).arch), ())

    def applies(self, source: str, arch: str) -> bool:
        """Return whether the rule is for *source*, a path inside the project, on *arch*."""
        return (not self.arch or arch in self.arch) and any(matches(each, source) for each in self.match)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileObject(CompileSettings):
    """
    [[compile.object]]: an object called *name* of *source*, in place of the object with its own name.

    *sources* are paths and patterns in its place: the object is linked from all sources that they match.
    """

    name: str = declare(as_text(check_object_file), "")
    source: str = declare(as_text(validate.check_relative_path), "")
    sources: tuple[str, ...] = declare(as_texts(validate.check_path_pattern), ())

    @property
    def patterns(self) -> tuple[str, ...]:
        """The paths and patterns of its sources."""
        return self.sources or (self.source,)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileProgram:
    """[[compile.program]]: programs of *section*, unknown to libbpf, are *loaded_as* another section."""

    section: str = declare(as_text(check_unknown_section), "")
    loaded_as: str = declare(as_text(check_declared), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileGenerate:
    """[[compile.generate]]: the *output* file in the project, and the *command* that prints its contents."""

    output: str = declare(as_text(validate.check_relative_path), "")
    command: tuple[str, ...] = declare(as_texts(_check_argument), ())


def as_tables(
    kind: type[Table], required: tuple[str, ...], *, either: tuple[str, ...] = ()
) -> Callable[[Any, Path], tuple[Table, ...]]:
    """
    Return a parser of an array of tables of *kind*, each of which has the *required* keys.

    If there are names in *either*, each table has exactly one of them.
    """

    def parse(value: Any, root: Path) -> tuple[Table, ...]:
        tables = expect(
            value, list, "an array of tables", hint="write [[compile.NAME]] above the keys of each"
        )
        found = []
        for number, item in enumerate(tables, start=1):
            try:
                found.append(parse_settings(kind, item, root))
                needs = [*required, *([" or ".join(either)] if either else [])]
                missing = [key for key in required if not item.get(key)]
                if missing:
                    raise UsageError(
                        f"the key {missing[0]} is missing",
                        hint=f"it needs {', '.join(needs)}",
                    )
                if either and sum(bool(item.get(key)) for key in either) != 1:
                    raise UsageError(
                        f"not exactly one of the keys {', '.join(either)}",
                        hint=f"write either {' or '.join(either)}",
                    )
            except UsageError as error:
                raise UsageError(f"table {number}: {error.message}", hint=error.hint) from error
        return tuple(found)

    return parse


def parse_settings(kind: type[Table], value: Any, root: Path) -> Table:
    """
    Return the table *value* as *kind*.

    Raises: UsageError.
    """
    table = expect(value, dict, "a table")
    keys = {item.name.replace("_", "-"): item for item in fields(kind)}
    for key in table:
        if key not in keys:
            raise UsageError(f"unknown key {key!a}", hint=f"it has the keys {list_keys(keys)}")
    parsed = {}
    for key, given in table.items():
        try:
            parsed[keys[key].name] = keys[key].metadata["parse"](given, root)
        except UsageError as error:
            raise UsageError(f"{key}: {error.message}", hint=error.hint) from error
    return kind(**parsed)


def parse_architectures(value: Mapping[str, Any], root: Path) -> dict[str, CompileArch]:
    """
    Return the settings of each architecture in *value*, tables by name.

    Raises: UsageError, which names the architecture.
    """
    found = {}
    for arch, table in value.items():
        try:
            found[arch] = parse_settings(CompileArch, table, root)
        except UsageError as error:
            raise UsageError(f"{arch}: {error.message}", hint=error.hint) from error
    return {arch: found[arch] for arch in PLATFORMS if arch in found}


def fixed_folder(pattern: str) -> str:
    """Return the folder of *pattern* before its first wildcard, or empty text: bpf for bpf/*/x.c."""
    parts = PurePosixPath(pattern).parts[:-1]
    end = next((at for at, part in enumerate(parts) if "*" in part or "?" in part), len(parts))
    return "/".join(parts[:end])


def matches(pattern: str, path: str) -> bool:
    """Return whether *path* matches *pattern*. ** stands for any number of folders, * and ? for no slash."""
    return _expression(pattern).fullmatch(path) is not None


@lru_cache(maxsize=256)
def _expression(pattern: str) -> re.Pattern[str]:
    words = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern.removeprefix("./"))
    return re.compile("".join(words.get(part) or re.escape(part) for part in parts))
