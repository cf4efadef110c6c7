# SPDX-License-Identifier: Apache-2.0
"""
Check that the objects of a project agree between architectures.

One agent in user space reads the maps of all architectures. One policy and one list of targets
name the programs. A program that one architecture lacks, or a member at another offset, would
otherwise fail first on a remote machine.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from buildtool.core.errors import CompileError, ConfigError, ObjectFormatError
from buildtool.core.parallel import map_parallel
from buildtool.objects.btf import Btf, BtfField
from buildtool.objects.describe import describe_object
from buildtool.objects.elf import ElfObject, parse_object, read_link_tables
from buildtool.objects.types import map_type

MAX_SHOWN = 20
# libbpf makes a map of global variables from each of these sections, and from .data.NAME and the like.
_DATA_SECTIONS = (".data", ".bss", ".rodata")
_TYPED = ("key", "value")
_INNER = "values"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A program or map of an object: its *kind*, its *facts* by name, and its *fields* by path."""

    kind: str
    facts: Mapping[str, str]
    fields: Mapping[str, BtfField]


def check_agreement(objects: Mapping[str, Mapping[str, bytes]], allowed: Collection[str] = ()) -> None:
    """
    Check that *objects* (by architecture, then by name) have the same programs, maps and layouts of maps.

    Entries of *allowed* (OBJECT, OBJECT:PROGRAM or OBJECT:MAP) may differ.

    Raises: CompileError, which names object, part, member and architectures; ConfigError, if an
    entry of *allowed* names no existing part; ObjectFormatError.
    """
    arches = list(objects)
    jobs = [(arch, name, data) for arch in arches for name, data in objects[arch].items()]
    parts: dict[str, dict[str, dict[str, _Part]]] = {arch: {} for arch in arches}
    for (arch, name, _), item in zip(jobs, map_parallel(_read_parts, jobs), strict=True):
        parts[arch][name] = item
    _check_allowed_exist(parts, allowed)
    found = [
        line
        for arch in arches[1:]
        for line in _compare_objects(arches[0], parts[arches[0]], arch, parts[arch], allowed)
    ]
    if not found:
        return
    shown = found[:MAX_SHOWN]
    rest = [f"and {len(found) - MAX_SHOWN} more"] if len(found) > MAX_SHOWN else []
    place = found[0].partition(" ")[0].rstrip(":")
    raise CompileError(
        f"architectures disagree: {found[0]}",
        hint=f'to allow this: allow-differences = ["{place}"] in [build] of buildtool.toml',
        detail="\n".join([*shown, *rest]) if len(found) > 1 else None,
    )


def _check_allowed_exist(
    parts: Mapping[str, Mapping[str, Mapping[str, _Part]]], allowed: Collection[str]
) -> None:
    known = {name for objects in parts.values() for name in objects}
    known |= {
        f"{name}:{part}" for objects in parts.values() for name, item in objects.items() for part in item
    }
    for entry in allowed:
        if entry not in known:
            raise ConfigError(
                f"build.allow-differences: nothing is called {entry}",
                hint="write OBJECT, OBJECT:PROGRAM or OBJECT:MAP; buildtool inspect OBJECT shows the names",
            )


def _compare_objects(
    first: str,
    ours: Mapping[str, Mapping[str, _Part]],
    second: str,
    theirs: Mapping[str, Mapping[str, _Part]],
    allowed: Collection[str],
) -> Iterator[str]:
    for name in sorted({*ours, *theirs}):
        if name in allowed:
            continue
        if name not in ours or name not in theirs:
            here, there = (first, second) if name in ours else (second, first)
            yield f"{name}: there is one for {here} but not for {there}"
            continue
        for part in sorted({*ours[name], *theirs[name]}):
            place = f"{name}:{part}"
            if place not in allowed:
                for line in _compare_parts(first, ours[name].get(part), second, theirs[name].get(part)):
                    yield f"{place} {line}"


def _compare_parts(first: str, ours: _Part | None, second: str, theirs: _Part | None) -> Iterator[str]:
    if ours is None or theirs is None:
        here, there = (first, second) if theirs is None else (second, first)
        part = ours or theirs
        assert part is not None
        yield f"({part.kind}) is there on {here} but not on {there}"
        return
    for fact in sorted({*ours.facts, *theirs.facts}):
        mine, other = ours.facts.get(fact, "unset"), theirs.facts.get(fact, "unset")
        if mine != other:
            yield f"({ours.kind}): {fact} is {mine} on {first} and {other} on {second}"
    for path in [*ours.fields, *(path for path in theirs.fields if path not in ours.fields)]:
        mine_at, other_at = ours.fields.get(path), theirs.fields.get(path)
        if mine_at != other_at:
            yield f"({ours.kind}): {path} is {_place(mine_at)} on {first} and {_place(other_at)} on {second}"


def _place(field: BtfField | None) -> str:
    if field is None:
        return "missing"
    byte, bit = divmod(field.bit_offset, 8)
    where = f"at byte {byte}" + (f", bit {bit}" if bit else "")
    if field.kind == "bits":
        return f"{where} ({field.bits} bits)"
    return f"{where} ({field.kind} of {field.bits // 8} bytes)"


def _read_parts(job: tuple[str, str, bytes]) -> dict[str, _Part]:
    """Return the parts, by name, of the object in *job*: architecture, name and bytes."""
    arch, name, data = job
    try:
        obj = parse_object(data)
        programs = {
            program.name: _Part(
                kind="program", facts={"section": program.section, "type": program.type}, fields={}
            )
            for program in describe_object(obj).programs
        }
        return {**programs, **_read_maps(obj)}
    except ObjectFormatError as error:
        raise ObjectFormatError(f"{name} ({arch}): {error.message}", hint=error.hint) from error


def _read_maps(obj: ElfObject) -> dict[str, _Part]:
    section = next((section for section in obj.sections if section.name == b".BTF"), None)
    if section is None:
        return {}
    btf = Btf(obj.contents(section), obj.order)
    maps = {name: _read_map(btf, number) for name, number in btf.section_variables(".maps")}
    symbols = read_link_tables(obj).symbols
    for index, each in enumerate(obj.sections):
        name = each.name.decode("utf-8", "replace")
        if not name.startswith(_DATA_SECTIONS):
            continue
        # clang leaves the offsets of global variables in BTF empty. libbpf fills them from the symbols.
        at = {s.name: s.value for s in symbols if s.section == index and not s.is_function}
        if fields := _read_variables(btf, name, at):
            maps[name] = _Part(kind="variables", facts={}, fields=fields)
    return maps


def _read_variables(btf: Btf, section: str, at: Mapping[str, int]) -> dict[str, BtfField]:
    """Return the fields of the global variables of *section* by path. *at* maps each name to its offset."""
    return {
        path: replace(field, bit_offset=field.bit_offset + 8 * at.get(name, 0))
        for name, number in btf.section_variables(section)
        for path, field in _named_fields(btf, name, number)
    }


def _read_map(btf: Btf, number: int, *, is_inner: bool = False) -> _Part:
    facts: dict[str, str] = {}
    fields: dict[str, BtfField] = {}
    for member in btf.members(number):
        if member.name in _TYPED:
            target = btf.pointed(member.type)
            facts[f"size of the {member.name}"] = str(btf.size(target))
            fields |= dict(_named_fields(btf, member.name, target))
        elif member.name == "type":
            facts["type"] = map_type(btf.encoded_integer(member.type))
        elif member.name != _INNER:
            facts[member.name] = str(btf.encoded_integer(member.type))
        elif (inner := btf.element_struct(member.type)) is not None:
            if is_inner:
                raise ObjectFormatError("a map in a map holds maps, which no kernel creates")
            part = _read_map(btf, inner, is_inner=True)
            facts |= {f"inner {name}": fact for name, fact in part.facts.items()}
            fields |= {f"inner {path}": field for path, field in part.fields.items()}
    return _Part(kind="map", facts=facts, fields=fields)


def _named_fields(btf: Btf, name: str, number: int) -> Iterator[tuple[str, BtfField]]:
    """Yield path and field of each field of type *number*. Equal paths (anonymous unions) get numbers."""
    seen: dict[str, int] = {}
    for field in btf.fields(number):
        path = f"{name}{'' if field.path.startswith('[') else '.'}{field.path}".rstrip(".")
        seen[path] = seen.get(path, 0) + 1
        yield (path if seen[path] == 1 else f"{path}#{seen[path]}"), field
