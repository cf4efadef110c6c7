# SPDX-License-Identifier: Apache-2.0
"""
Lay out the types of maps and variables, so that another language declares them with the same offsets.

Every gap is declared as bytes, also the one at the end. A member that the other language would place
elsewhere (a packed struct's, a bit field, a number of 16 bytes) is declared as bytes, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from buildtool.core.errors import ObjectFormatError
from buildtool.objects.btf import Btf, BtfType
from buildtool.skeleton.names import check_c_name

_SCALARS = ("integer", "float", "pointer", "enum")
_MAX_ALIGNMENT = 8
_MAX_DEPTH = 32
_MAX_TYPES = 4096
_MAX_PARTS = 16384


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """
    What a member, an element, a key or a value is.

    *kind*: integer, float, bool or bytes of *size*; enum or struct, declared as *name*; fields, a struct
    without a name; array of *count* times *element*. A struct has *fields*, declared or not.
    """

    kind: str
    size: int
    signed: bool = False
    name: str = ""
    count: int = 0
    element: Value | None = None
    fields: tuple[Field, ...] = ()
    alignment: int = 1

    @property
    def parts(self) -> Iterator[Value]:
        """The values inside this one."""
        yield from (each.value for each in self.fields)
        if self.element:
            yield self.element


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A field: its *name* in C, or empty for a gap, and its *value*."""

    name: str
    value: Value


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedType:
    """A named struct with *fields*, or an enum of *size* bytes with the *values* of its names."""

    name: str
    size: int
    fields: tuple[Field, ...] = ()
    values: tuple[tuple[str, int], ...] = ()
    signed: bool = False
    is_enum: bool = False


@dataclass(slots=True)
class Layouts:
    """The types of one object. *declared* has each named type that a value reached, in order."""

    btf: Btf
    declared: dict[str, NamedType] = field(default_factory=dict)
    known: dict[int, Value] = field(default_factory=dict)
    weights: dict[int, int] = field(default_factory=dict)

    def value(self, number: int, depth: int = 0) -> Value:
        """
        Return type *number* as a value, and note the named types that it needs.

        Raises: ObjectFormatError, for types nested too deep, too many, or with too many members inside.
        """
        if number not in self.known:
            made = self._make(number, depth)
            # A struct of two structs of two structs: what is spelled out doubles with each.
            weight = 1 + sum(self.weights.get(id(part), 1) for part in made.parts)
            if weight > _MAX_PARTS:
                raise ObjectFormatError("BTF: a type with too many members for a declaration")
            self.weights[id(made)] = weight
            self.known[number] = made
        return self.known[number]

    def _make(self, number: int, depth: int) -> Value:
        if depth > _MAX_DEPTH or len(self.declared) > _MAX_TYPES:
            raise ObjectFormatError("BTF: types nested too deep, or too many, for a declaration")
        found = self.btf.type(number)
        if found.kind == "array":
            element = self.value(found.element, depth + 1)
            return Value(
                kind="array",
                size=found.size,
                count=found.count,
                element=element,
                alignment=element.alignment,
            )
        if found.kind in ("struct", "union"):
            return self._struct(found, depth)
        if found.kind not in _SCALARS or found.size not in (1, 2, 4, 8):
            return Value(kind="bytes", size=found.size)
        if found.kind == "enum" and found.name:
            values = tuple((entry.name, entry.value) for entry in found.entries)
            self._declare(
                NamedType(name=found.name, size=found.size, values=values, signed=found.signed, is_enum=True)
            )
            return Value(
                kind="enum",
                size=found.size,
                signed=found.signed,
                name=found.name,
                alignment=found.size,
            )
        if found.kind == "float":
            kind = "float" if found.size >= 4 else "bytes"  # neither language has a shorter one
            return Value(kind=kind, size=found.size, alignment=found.size)
        kind = "bool" if found.is_bool and found.size == 1 else "integer"
        return Value(kind=kind, size=found.size, signed=found.signed, alignment=found.size)

    def _struct(self, found: BtfType, depth: int) -> Value:
        fields = tuple(self._fields(found, depth))
        alignment = max([1, *(each.value.alignment for each in fields)])
        if not found.name or found.kind == "union":
            return Value(kind="fields", size=found.size, fields=fields, alignment=alignment)
        self._declare(NamedType(name=found.name, size=found.size, fields=fields))
        return Value(kind="struct", size=found.size, name=found.name, fields=fields, alignment=alignment)

    def _declare(self, declaration: NamedType) -> None:
        for word in (declaration.name, *(label for label, _ in declaration.values)):
            check_c_name(word)
        # Two types of one name, from sources that were linked: the first is declared, as the order is fixed.
        self.declared.setdefault(declaration.name, declaration)

    def _fields(self, found: BtfType, depth: int) -> Iterator[Field]:
        """Yield the members in order, and the gaps. Of a union, the first member stands for all."""
        at = 0
        entries = found.entries[:1] if found.kind == "union" else found.entries
        for entry in entries:
            if entry.bits or entry.bit_offset % 8:
                continue  # a bit field becomes part of the gap before the next member
            offset = entry.bit_offset // 8
            value = self.value(entry.type, depth + 1)
            if offset < at or offset + value.size > found.size:
                raise ObjectFormatError("BTF: a member outside its struct")
            if offset > at:
                yield Field(name="", value=Value(kind="bytes", size=offset - at))
            if offset % value.alignment or found.size % value.alignment:
                value = Value(kind="bytes", size=value.size)
            # A member without a name: its own members are those of the struct. They stay together.
            yield Field(name=check_c_name(entry.name or f"anon{offset}"), value=value)
            at = offset + value.size
        if at < found.size:
            yield Field(name="", value=Value(kind="bytes", size=found.size - at))


def collect(btf: Btf | None, numbers: Iterable[int]) -> tuple[dict[int, Value], tuple[NamedType, ...]]:
    """
    Return the values of types *numbers* of *btf*, and the declarations that they need.

    Raises: ObjectFormatError.
    """
    if btf is None:
        return {}, ()
    layouts = Layouts(btf)
    values = {number: layouts.value(number) for number in numbers if number}
    return values, tuple(layouts.declared.values())
