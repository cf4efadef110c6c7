# SPDX-License-Identifier: Apache-2.0
"""Read the constants of an object that a loader can set: `const volatile` in .rodata, of a scalar type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from buildtool.core.errors import ObjectFormatError
from buildtool.objects.btf import Btf
from buildtool.objects.elf import ElfObject, parse_object, read_link_tables

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


def write_constants(data: bytes, values: Mapping[str, int | str]) -> bytes:
    """
    Return object *data* with other initial *values* of its constants, by name.

    Raises: ObjectFormatError, if a constant is missing, or its type does not have the value.
    """
    if not values:
        return data
    obj = parse_object(data)
    changed = bytearray(data)
    for name, value in values.items():
        found = [constant for constant in read_constants(obj) if constant.name == name]
        if len(found) != 1 or (at := found[0].offset) is None:
            raise ObjectFormatError(f"{len(found)} constants named {name}")
        (constant,) = found
        if isinstance(value, str):
            encoded = value.encode("ascii").ljust(constant.bytes, b"\0")
            fits = constant.kind == "string" and encoded.endswith(b"\0")
        else:
            fits = constant.kind in ("boolean", "integer") and constant.low <= value <= constant.high
            encoded = value.to_bytes(constant.bytes, "little", signed=value < 0) if fits else b""
            encoded = encoded if obj.is_little_endian else encoded[::-1]
        if not fits:
            raise ObjectFormatError(f"the type of constant {name} does not have the value {value}")
        changed[at : at + constant.bytes] = encoded
    return bytes(changed)


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
        whole = value = btf.type(target)
        is_volatile = btf.is_volatile(target)
        if whole.kind == "array":
            value = btf.type(whole.element)
            is_volatile = is_volatile or btf.is_volatile(whole.element)
        is_integer = (value.kind == "integer" and not value.is_bool) or value.kind == "enum"
        kind: Literal["boolean", "integer", "string", "other"] = "other"
        if whole.kind == "array":
            kind = "string" if is_integer and value.size == 1 and value.kind == "integer" else "other"
        elif value.is_bool and value.size == 1:
            kind = "boolean"
        elif is_integer and value.size in _WIDTHS:
            kind = "integer"
        bits = 8 * value.size if kind != "other" else 0
        yield Constant(
            name=name,
            kind=kind,
            bytes=whole.size,
            low=-(1 << bits - 1) if value.signed and bits else 0,
            high=(1 << bits - value.signed) - 1 if bits else 0,
            is_volatile=is_volatile,
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
