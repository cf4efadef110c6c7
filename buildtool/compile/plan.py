# SPDX-License-Identifier: Apache-2.0
"""
Write and read a plan: what each object of one architecture is made of.

A Dockerfile carries a plan for each architecture in place of arguments. So no setting of a source passes
a shell or the syntax of a Dockerfile. `buildtool compile --plan` reads it in the builder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from buildtool.compile.outside import Outside
from buildtool.config.compiling import check_declared, check_unknown_section
from buildtool.config.project import Piece, Unit, check_units
from buildtool.core.errors import FileAccessError, UsageError
from buildtool.core.files import read_bounded
from buildtool.core.flags import check_flag
from buildtool.core.resources import package_directory
from buildtool.core.validate import check_include, check_relative_path, is_inside
from buildtool.objects.types import Declaration

MAX_PLAN_BYTES = 16 * 1024 * 1024
# Where the builder has the headers of directories outside the project, below buildtool's modules.
OUTSIDE_PLACE = "data/outside"
_VERSION = 1
_LINE_LENGTH = 100


def outside_names(include: Sequence[str]) -> tuple[str, ...]:
    """Return the directories of *include* that are outside the project. The place of each is its number."""
    return tuple(name for name in dict.fromkeys(include) if not is_inside(name))


def encode_plan(units: Sequence[Unit], outside: Sequence[str]) -> str:
    """
    Return the plan of *units*, the same text for the same units. *outside* is from `outside_names`.

    Raises: UsageError, for a value that a configuration must not have.
    """
    groups: dict[tuple[tuple[str, ...], tuple[str, ...]], dict[str, str]] = {}
    declared = tuple(dict.fromkeys(item for unit in units for item in unit.declared))
    for unit in units:
        if unit.is_linked:
            continue
        (piece,) = unit.pieces
        include = tuple(map(check_include, piece.include))
        objects = groups.setdefault((include, tuple(map(check_flag, piece.flags))), {})
        objects[check_relative_path(unit.path)] = check_relative_path(piece.source)
    entries = [
        f' {{"include": {_list(include)},\n  "flags": {_list(flags)},\n  "objects": {{\n'
        + ",\n".join(f"   {json.dumps(path)}: {json.dumps(source)}" for path, source in objects.items())
        + "}}"
        for (include, flags), objects in groups.items()
    ]
    programs = "".join(f",\n  {json.dumps(list(item))}" for item in declared).removeprefix(",")
    programs = f'"programs": [{programs}],\n ' if programs else ""
    head = f'{{"version": {_VERSION}, "outside": {_list(outside)}, {programs}"groups": [\n'
    linked = [_encode_linked(unit) for unit in units if unit.is_linked]
    tail = '\n], "linked": {\n' + ",\n".join(linked) + "\n}}\n" if linked else "\n]}\n"
    return head + ",\n".join(entries) + tail


def _encode_linked(unit: Unit) -> str:
    pieces = ",\n".join(
        f'  {{"source": {json.dumps(check_relative_path(piece.source))},'
        f' "include": {_list(tuple(map(check_include, piece.include)))},'
        f'\n   "flags": {_list(tuple(map(check_flag, piece.flags)))}}}'
        for piece in unit.pieces
    )
    return f" {json.dumps(check_relative_path(unit.path))}: [\n{pieces}]"


def _list(words: Sequence[str]) -> str:
    """Return *words* as a list of JSON, broken into lines that a person can read."""
    lines = [""]
    for word in map(json.dumps, words):
        lines[-1] += ", " if lines[-1] else ""
        if len(lines[-1]) + len(word) > _LINE_LENGTH and lines[-1]:
            lines.append("")
        lines[-1] += word
    return "[" + "\n    ".join(line.rstrip() for line in lines) + "]"


def read_plan(path: Path) -> tuple[tuple[Unit, ...], Outside]:
    """
    Return the units of the plan in file *path*, and the places of directories outside the project.

    Raises: FileAccessError; UsageError, for a value that a configuration must not have.
    """
    data = read_bounded(path, MAX_PLAN_BYTES)
    try:
        document = json.loads(data)
        if len(data) > MAX_PLAN_BYTES or document["version"] != _VERSION:
            raise ValueError("version")
        declared = tuple(_read_program(item) for item in document.get("programs", ()))
        units = [unit for group in document["groups"] for unit in _read_units(group, declared)]
        for name, pieces in document.get("linked", {}).items():
            if len(pieces) < 2:
                raise ValueError("linked")
            linked = tuple(map(_read_piece, pieces))
            units.append(Unit(path=check_relative_path(_text(name)), pieces=linked, declared=declared))
        outside = [check_include(_text(name)) for name in document["outside"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FileAccessError(
            f"{path}: not a plan of objects", hint="buildtool render writes plans"
        ) from error
    units = sorted(units, key=lambda unit: unit.name)
    check_units(units)
    place = package_directory() / OUTSIDE_PLACE
    return tuple(units), {name: str(place / str(number)) for number, name in enumerate(outside)}


def _read_program(item: list[Any]) -> Declaration:
    section, loaded_as = item
    return Declaration(check_unknown_section(_text(section)), check_declared(_text(loaded_as)))


def _read_units(group: dict[str, Any], declared: tuple[Declaration, ...]) -> list[Unit]:
    return [
        Unit(
            path=check_relative_path(_text(path)),
            pieces=(_read_piece({**group, "source": source}),),
            declared=declared,
        )
        for path, source in group["objects"].items()
    ]


def _read_piece(value: dict[str, Any]) -> Piece:
    return Piece(
        source=check_relative_path(_text(value["source"])),
        include=tuple(check_include(_text(name)) for name in value["include"]),
        flags=tuple(check_flag(_text(flag)) for flag in value["flags"]),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise UsageError("a plan has a value that is not text", hint="buildtool render writes plans")
    return value
