# SPDX-License-Identifier: Apache-2.0
"""Describe an object from its bytes: programs, maps, helpers, kernel functions, license."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from buildtool.core.errors import ObjectFormatError
from buildtool.objects.btf import Btf
from buildtool.objects.calls import read_code
from buildtool.objects.elf import ElfObject, LinkTables, read_link_tables
from buildtool.objects.points import STRUCT_OPS, PinnedMap, StructOpsMap, read_points
from buildtool.objects.tables import SHF_EXECINSTR, SHT_PROGBITS, Section
from buildtool.objects.types import Declaration, declared_type, find_declaration, map_type, program_type

_MAPS_OF_MAPS = ("array_of_maps", "hash_of_maps")
_DESCRIPTOR_BYTES = 4
# More than a statement holds (MAX_STATEMENT_BYTES), in the shortest form of each.
_MAX_PROGRAMS = 8192
_MAX_CALLS = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramInfo:
    """
    A program of an object: function *name*, ELF *section*, libbpf *type*, default *attach* targets.

    *declared* is the section name by which the program is loaded, if libbpf does not know its own.
    """

    name: str
    section: str
    type: str
    attach: tuple[str, ...] = ()
    declared: str = ""

    @property
    def loaded_as(self) -> str:
        """The section name that decides how the program is loaded, without the `?` of an optional one."""
        return self.declared or self.section.removeprefix("?")

    @property
    def effective_section(self) -> str:
        """The section name that decides how the program is loaded, with the `?` of an optional one."""
        return f"?{self.loaded_as}" if self.is_optional else self.loaded_as

    @property
    def is_optional(self) -> bool:
        """Whether libbpf loads the program only on request: `SEC("?...")`."""
        return self.section.startswith("?")


@dataclass(frozen=True, slots=True, kw_only=True)
class MapInfo:
    """
    A map of an object: libbpf's name of its *type* (hash, percpu_array), and sizes in bytes.

    A struct_ops map has its ELF *section* and the kernel's type *struct*. A *pinned* map is pinned by name.
    """

    name: str
    type: str
    key_size: int
    value_size: int
    max_entries: int
    section: str = ""
    struct: str = ""
    pinned: bool = False

    @property
    def point(self) -> str:
        """The attach point, as in a policy's attachPoints. Empty for a map that acts inside its object."""
        if self.struct:
            return f"{STRUCT_OPS}/{self.struct}"
        return f"pin/{self.name}" if self.pinned else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectContents:
    """The contents of an object, as a statement records them. *helpers* are numbers, *kfuncs* names."""

    programs: tuple[ProgramInfo, ...]
    maps: tuple[MapInfo, ...]
    helpers: tuple[int, ...]
    kfuncs: tuple[str, ...]
    license: str


def describe_object(obj: ElfObject, declared: Sequence[Declaration] = ()) -> ObjectContents:
    """
    Return the contents of *obj*. *declared* are the types of sections that libbpf does not know.

    Raises: ObjectFormatError, if the tables, the BTF or the code of *obj* are damaged, or if no statement can
        list its programs or calls.
    """
    tables = read_link_tables(obj)
    # The signer and the policy must see the code that libbpf runs, so both use this reader.
    code = read_code(obj)
    if max(len(code.helpers), len(code.kfuncs)) > _MAX_CALLS:
        raise ObjectFormatError(f"calls of more than {_MAX_CALLS} helpers or kernel functions")
    programs = tuple(islice(_find_programs(obj, tables, declared), _MAX_PROGRAMS + 1))
    if len(programs) > _MAX_PROGRAMS:
        raise ObjectFormatError(f"more than {_MAX_PROGRAMS} programs")
    return ObjectContents(
        programs=programs,
        maps=_find_maps(obj),
        helpers=tuple(sorted(code.helpers)),
        kfuncs=tuple(sorted(name.decode("utf-8", "replace") for name in code.kfuncs if name)),
        license=_find_license(obj),
    )


def _find_programs(
    obj: ElfObject, tables: LinkTables, declared: Sequence[Declaration]
) -> Iterator[ProgramInfo]:
    """Yield global functions by section and offset. Those of .text are left out: libbpf's subprograms."""
    functions = [symbol for symbol in tables.symbols if symbol.is_function and not symbol.is_local]
    for symbol in sorted(functions, key=lambda symbol: (symbol.section, symbol.value)):
        if not 0 < symbol.section < len(obj.sections):
            continue
        section = obj.sections[symbol.section]
        if _is_code(section) and section.name != b".text":
            name = section.name.decode("utf-8", "replace")
            loaded_as = find_declaration(name, declared)
            kind = declared_type(loaded_as) or program_type(name)
            yield ProgramInfo(name=symbol.name, section=name, type=kind, declared=loaded_as)


def _find_maps(obj: ElfObject) -> tuple[MapInfo, ...]:
    section = _section(obj, b".BTF")
    if section is None:
        return ()
    btf = Btf(obj.contents(section), obj.order)
    points = read_points(obj)
    pinned = {_text(point.name) for point in points if isinstance(point, PinnedMap)}
    maps = [
        _read_map(btf, name, number, pinned=name in pinned) for name, number in btf.section_variables(".maps")
    ]
    maps += [_struct_ops(point) for point in points if isinstance(point, StructOpsMap)]
    return tuple(sorted(maps, key=lambda item: item.name))


def _struct_ops(point: StructOpsMap) -> MapInfo:
    return MapInfo(
        name=_text(point.name),
        type=STRUCT_OPS,
        key_size=_DESCRIPTOR_BYTES,  # an int: libbpf 1.5, init_struct_ops_maps
        value_size=point.size,
        max_entries=1,
        section=_text(point.section),
        struct=_text(point.struct),
    )


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def _read_map(btf: Btf, name: str, number: int, *, pinned: bool) -> MapInfo:
    members = {member.name: member.type for member in btf.members(number)}

    def integer(member: str) -> int:
        return btf.encoded_integer(members[member]) if member in members else 0

    def size(explicit: str, by_type: str) -> int:
        return btf.pointed_size(members[by_type]) if by_type in members else integer(explicit)

    kind = map_type(integer("type"))
    # Values of a map of maps are file descriptors, and so are those of a program array with "values".
    inner = kind in _MAPS_OF_MAPS or "values" in members
    return MapInfo(
        name=name,
        type=kind,
        key_size=size("key_size", "key") or (_DESCRIPTOR_BYTES if inner else 0),
        value_size=size("value_size", "value") or (_DESCRIPTOR_BYTES if inner else 0),
        max_entries=integer("max_entries"),
        pinned=pinned,
    )


def _find_license(obj: ElfObject) -> str:
    section = _section(obj, b"license")
    return obj.contents(section).partition(b"\0")[0].decode("utf-8", "replace") if section else ""


def _is_code(section: Section) -> bool:
    return section.type == SHT_PROGBITS and bool(section.flags & SHF_EXECINSTR)


def _section(obj: ElfObject, name: bytes) -> Section | None:
    found = [section for section in obj.sections if section.name == name]
    # libbpf reads the last section of a name, other tools the first.
    if len(found) > 1:
        raise ObjectFormatError(f"{len(found)} sections named {name.decode()}")
    return found[0] if found else None
