# SPDX-License-Identifier: Apache-2.0
"""
Finds maps that act beyond their object, for statements and policies.

A struct_ops map replaces functions of the kernel. A map that is pinned by name is shared with other
programs. An attacker may have written the object, so each broken rule is an error and no map is skipped.
loader/verify/maps.c follows the same rules. Source: spec/trust-policy.md, "Reading the maps".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from buildtool.core.errors import ObjectFormatError
from buildtool.objects.btf import Btf
from buildtool.objects.elf import ElfObject
from buildtool.objects.tables import SHT_PROGBITS
from buildtool.objects.types import MAP_TYPES

STRUCT_OPS = "struct_ops"
MAX_ENTRIES = 65_536  # variables and members, because many variables can share one large struct
_MAPS = b".maps"
_STRUCT_OPS_SECTION = b".struct_ops"
_STRUCT_OPS_SECTIONS = frozenset(
    mark + name for name in (b".struct_ops", b".struct_ops.link") for mark in (b"", b"?")
)
_STRUCT_OPS_TYPE = MAP_TYPES.index(STRUCT_OPS)
_FLAVOUR = re.compile(rb"(.*[^_])___[^_]", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class StructOpsMap:
    """A struct_ops map: *name*, ELF *section*, the kernel's type *struct*, and the object's *size* of it."""

    name: bytes
    section: bytes
    struct: bytes
    size: int

    @property
    def point(self) -> bytes:
        """The attach point, as in a policy's attachPoints."""
        return b"struct_ops/" + self.struct


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedMap:
    """A map that libbpf pins by its *name*."""

    name: bytes

    @property
    def point(self) -> bytes:
        """The attach point, as in a policy's attachPoints."""
        return b"pin/" + self.name


def struct_ops_sections(obj: ElfObject) -> frozenset[bytes]:
    """Return the names of the sections of *obj* whose variables are struct_ops maps."""
    return frozenset(
        s.name for s in obj.sections if s.name.removeprefix(b"?").startswith(_STRUCT_OPS_SECTION)
    )


def read_points(obj: ElfObject) -> tuple[StructOpsMap | PinnedMap, ...]:
    """
    Return the maps of *obj* that have an attach point.

    Raises: ObjectFormatError, if its maps cannot be read.
    """
    sections = struct_ops_sections(obj)
    if unknown := sections - _STRUCT_OPS_SECTIONS:
        raise ObjectFormatError(f"section {min(unknown)!r}: unknown kind of struct_ops")
    if not sections and all(section.name != _MAPS for section in obj.sections):
        return ()
    found = [section for section in obj.sections if section.name == b".BTF"]
    if len(found) != 1 or found[0].type != SHT_PROGBITS:
        raise ObjectFormatError("maps without exactly one section .BTF")
    btf = Btf(obj.contents(found[0]), obj.order)
    groups = [group for group in btf.groups() if group[0] == _MAPS or group[0] in _STRUCT_OPS_SECTIONS]
    if missing := sections - {name for name, _, _ in groups}:
        raise ObjectFormatError(f"section {min(missing)!r}: no type in BTF")
    return tuple(_read_groups(btf, groups))


def without_flavour(name: bytes) -> bytes:
    """Return *name* without its flavour (NAME___FLAVOUR), as libbpf searches for it. The last ___ counts."""
    found = _FLAVOUR.match(name)
    return found[1] if found else name


def _read_groups(btf: Btf, groups: list[tuple[bytes, int, int]]) -> Iterator[StructOpsMap | PinnedMap]:
    entries = 0
    for section, number, count in groups:
        entries += count
        _check_count(entries)
        for name, target in btf.variables(number):
            struct, size, members = btf.struct(target)
            if not name or (section != _MAPS and not struct):
                raise ObjectFormatError("BTF: a map without a name")
            if section != _MAPS:
                yield StructOpsMap(name=name, section=section, struct=without_flavour(struct), size=size)
                continue
            entries += members
            _check_count(entries)
            if _is_pinned(btf, target):
                yield PinnedMap(name=name)


def _check_count(entries: int) -> None:
    if entries > MAX_ENTRIES:
        raise ObjectFormatError(f"BTF: maps with more than {MAX_ENTRIES} members")


def _is_pinned(btf: Btf, struct: int) -> bool:
    is_pinned = False
    for member in btf.members(struct):
        if member.name == "type" and btf.array_length(member.type) == _STRUCT_OPS_TYPE:
            # libbpf initializes struct_ops maps only from their own sections, and crashes on any other.
            raise ObjectFormatError("a struct_ops map in section .maps")
        is_pinned |= member.name == "pinning" and btf.array_length(member.type) != 0
    return is_pinned
