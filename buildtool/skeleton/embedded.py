# SPDX-License-Identifier: Apache-2.0
"""Read what a skeleton declares from a signed object: programs, maps, variables and their types."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from buildtool.core.errors import ObjectFormatError, UsageError
from buildtool.core.platforms import Platform, oci_platform
from buildtool.objects.btf import Btf
from buildtool.objects.describe import describe_object
from buildtool.objects.elf import (
    find_signature_section,
    has_signature_section,
    parse_object,
    read_object_file,
    subject_digest,
)
from buildtool.signing.statement import read_statement
from buildtool.skeleton.names import check_c_name

_AGAIN = "buildtool sign OBJECT signs it"
_DATA = re.compile(rb"\.(?:data|rodata|bss)(?:\..*)?")
_NO_LETTER = re.compile(r"[^A-Za-z0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedMap:
    """A map by *name*: the numbers of the types of its *key* and its *value*, or 0 without one."""

    name: str
    key: int
    value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """
    A signed object: *path*, *name* in its statement, *platform* and bytes *data*.

    *programs* are names. *variables* are global ones, each with the number of its type in *btf*.
    """

    path: Path
    name: str
    platform: Platform
    data: bytes = field(repr=False)
    programs: tuple[str, ...]
    maps: tuple[EmbeddedMap, ...]
    variables: tuple[tuple[str, int], ...]
    btf: Btf | None = field(repr=False)


def read_embedded(path: Path) -> Embedded:
    """
    Return the contents of signed object *path*.

    Raises: FileAccessError; ObjectFormatError, also if the object is unsigned, or changed since.
    """
    data = read_object_file(path)
    try:
        obj = parse_object(data)
        if not has_signature_section(obj):
            raise ObjectFormatError("not signed", hint=_AGAIN)
        statement = read_statement(obj)
        if subject_digest(obj, find_signature_section(obj)) != statement.digest:
            raise ObjectFormatError("changed since it was signed", hint=_AGAIN)
        platform = oci_platform(statement.platform)
        if platform is None:
            raise ObjectFormatError(f"signed for {statement.platform}, which buildtool does not know")
        contents = describe_object(obj)
        section = next((each for each in obj.sections if each.name == b".BTF"), None)
        btf = Btf(obj.contents(section), obj.order) if section else None
        maps = _read_maps(btf) if btf else ()
        variables = _read_variables(btf) if btf else ()
        for word in (
            *(program.name for program in contents.programs),
            *(each.name for each in maps),
            *(word for word, _ in variables),
        ):
            check_c_name(word)
        return Embedded(
            path=path,
            name=statement.name,
            platform=platform,
            data=data,
            programs=tuple(program.name for program in contents.programs),
            maps=maps,
            variables=variables,
            btf=btf,
        )
    except ObjectFormatError as error:
        raise ObjectFormatError(f"{path}: {error.message}", hint=error.hint) from error


def _read_maps(btf: Btf) -> tuple[EmbeddedMap, ...]:
    found = []
    for name, number in btf.section_variables(".maps"):
        types = {member.name: member.type for member in btf.members(number)}
        key, value = (btf.pointed(types[each]) if each in types else 0 for each in ("key", "value"))
        found.append(EmbeddedMap(name=name, key=key, value=value))
    return tuple(sorted(found, key=lambda item: item.name))


def _read_variables(btf: Btf) -> tuple[tuple[str, int], ...]:
    groups = [number for name, number, _ in btf.groups() if _DATA.fullmatch(name)]
    numbers = (number for group in groups for number in btf.variable_numbers(group))
    return tuple(sorted(btf.variable(number) for number in numbers if btf.is_global(number)))


def default_name(objects: tuple[Embedded, ...]) -> str:
    """Return the name of a skeleton of *objects*: that of the object in lower case, without its suffix."""
    stem = objects[0].name.partition(".")[0]
    return _NO_LETTER.sub("_", stem).strip("_").lower() or "object"


def check_contents(item: Embedded) -> None:
    """
    Check that *item* holds a program or a map. A file with types alone (`buildtool btf`) holds none.

    Raises: UsageError.
    """
    if not item.programs and not item.maps:
        raise UsageError(
            f"{item.path}: holds no program and no map", hint="name an object that buildtool compile made"
        )


def check_alike(objects: tuple[Embedded, ...]) -> None:
    """
    Check that *objects* are one object for several platforms, with the same programs, maps and variables.

    Raises: UsageError.
    """
    first = objects[0]
    places: dict[Platform, Path] = {}
    for each in objects:
        if each.platform in places:
            raise UsageError(
                f"{each.path} and {places[each.platform]} are both for {each.platform.oci}",
                hint="name one object for each architecture; another object needs a skeleton of its own",
            )
        places[each.platform] = each.path
        if (each.name, _names(each)) != (first.name, _names(first)):
            raise UsageError(
                f"{each.path} has other programs, maps or variables than {first.path}",
                hint="compile both from one source; another object needs a skeleton of its own",
            )


def _names(item: Embedded) -> tuple[tuple[str, ...], ...]:
    maps, variables = ([each.name for each in item.maps], [name for name, _ in item.variables])
    return tuple(sorted(item.programs)), tuple(maps), tuple(variables)
