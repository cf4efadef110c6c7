# SPDX-License-Identifier: Apache-2.0
"""Read the constants of an object that a loader can set: `const volatile` in .rodata, of a scalar type."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from buildtool.core.errors import ObjectFormatError
from buildtool.objects.btf import Btf
from buildtool.objects.elf import ElfObject, read_link_tables

RODATA = b".rodata"
_WIDTHS = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """
    A constant: its *name*, the *kind* of its type and its size in *bytes*.

    An integer is from *low* to *high*. *offset* is that of its initial value in the file, or None if no
    symbol says where it is.
    """

    name: str
    kind: Literal["boolean", "integer", "string", "other"]
    bytes: int
    low: int
    high: int
    is_volatile: bool
    offset: int | None


def read_constants(obj: ElfObject) -> tuple[Constant, ...]:
    """
    Return the constants of *obj*, in the order of its sections.

    Raises: ObjectFormatError.
    """
    found = [section for section in obj.sections if section.name == b".BTF"]
    if len(found) != 1:
        return ()
    btf = Btf(obj.contents(found[0]), obj.order)
    return tuple(
        constant
        for section, number, _ in btf.groups()
        if section == RODATA or section.startswith(RODATA + b".")
        for constant in _read_group(obj, btf, section, number)
    )


def has_inner_map(obj: ElfObject, name: str) -> bool:
    """
    Return whether map *name* of *obj* defines the maps inside it (`__array(values, struct …)`).

    Raises: ObjectFormatError.
    """
    found = [section for section in obj.sections if section.name == b".BTF"]
    btf = Btf(obj.contents(found[0]), obj.order)
    for variable, number in btf.section_variables(".maps"):
        if variable == name:
            return any(
                member.name == "values" and btf.element_struct(member.type) is not None
                for member in btf.members(number)
            )
    return False


def _read_group(obj: ElfObject, btf: Btf, section: bytes, number: int) -> Iterator[Constant]:
    places = _read_places(obj, section)
    for raw, target in btf.variables(number):
        name = raw.decode("utf-8", "replace")
        scalar = btf.scalar(target)
        kind: Literal["boolean", "integer", "string", "other"] = "other"
        if scalar.count is not None:
            kind = "string" if scalar.kind == "integer" and scalar.bytes == 1 else "other"
        elif scalar.kind == "boolean" and scalar.bytes == 1:
            kind = "boolean"
        elif scalar.kind == "integer" and scalar.bytes in _WIDTHS:
            kind = "integer"
        bits = 8 * scalar.bytes
        yield Constant(
            name=name,
            kind=kind,
            bytes=scalar.bytes if scalar.count is None else scalar.bytes * scalar.count,
            low=-(1 << bits - 1) if scalar.is_signed and bits else 0,
            high=(1 << bits - scalar.is_signed) - 1 if bits else 0,
            is_volatile=scalar.is_volatile,
            offset=places.get(name),
        )


def _read_places(obj: ElfObject, name: bytes) -> dict[str, int]:
    """Return the offset in the file of each symbol in the only section called *name*."""
    numbers = [number for number, section in enumerate(obj.sections) if section.name == name]
    if len(numbers) != 1:
        raise ObjectFormatError(f"{len(numbers)} sections named {name.decode('utf-8', 'replace')}")
    section = obj.sections[numbers[0]]
    return {
        symbol.name: section.offset + symbol.value
        for symbol in read_link_tables(obj).symbols
        if symbol.section == numbers[0] and not symbol.is_function and symbol.value < section.size
    }
