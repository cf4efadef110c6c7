# SPDX-License-Identifier: Apache-2.0
"""
Read BTF, as far as definitions of maps need it (kernel documentation, bpf/btf.rst).

libbpf's macros encode a map as a struct. `__uint(name, N)` is a pointer to an array of N
elements, and `__type(name, T)` is a pointer to T.

Tables and types must be complete, because policies decide by the result. loader/verify/btf.c follows the
same rules. Source: spec/trust-policy.md, "Reading the maps".
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from buildtool.core.errors import ObjectFormatError

_MAGIC = 0xEB9F
_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF = range(1, 9)
_VOLATILE, _CONST, _RESTRICT, _FUNC, _FUNC_PROTO, _VAR, _DATASEC, _FLOAT = range(9, 17)
_STATIC_LINKAGE = 0  # of a variable: BTF_VAR_STATIC
_DECL_TAG, _TYPE_TAG, _ENUM64 = range(17, 20)
_SIZED = frozenset((_INT, _STRUCT, _UNION, _ENUM, _FLOAT, _DATASEC, _ENUM64))
_TRANSPARENT = frozenset((_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG))
# Bytes of each kind after the 12 common bytes: (fixed, for each of vlen entries).
_EXTRA = {
    _INT: (4, 0),
    _ARRAY: (12, 0),
    _STRUCT: (0, 12),
    _UNION: (0, 12),
    _ENUM: (0, 8),
    _FUNC_PROTO: (0, 8),
    _VAR: (4, 0),
    _DATASEC: (0, 12),
    _DECL_TAG: (4, 0),
    _ENUM64: (0, 12),
}
# Kinds whose word after the flags is the number of a type, not a size.
_REFERRING = frozenset(
    (_PTR, _TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _FUNC, _FUNC_PROTO, _VAR, _DECL_TAG, _TYPE_TAG)
)
# Words of an entry that are the offset of a name and the number of a type, or -1 for none.
_ENTRY_WORDS = {
    _STRUCT: (0, 1),
    _UNION: (0, 1),
    _ENUM: (0, -1),
    _FUNC_PROTO: (0, 1),
    _DATASEC: (-1, 0),
    _ENUM64: (0, -1),
}
_KINDS = {_INT: "integer", _PTR: "pointer", _ENUM: "enum", _ENUM64: "enum", _FLOAT: "float"}
_HEADER_BYTES = 24
_KNOWN_INFO = 0x9F00FFFF  # libbpf 1.8 gives a meaning to some of the other bits, which older versions ignore.
# The kernel's own limits, BTF_MAX_TYPE and BTF_MAX_NAME_OFFSET: it loads no BTF with more.
MAX_TYPES = 0xFFFFF
MAX_NAMES_BYTES = 0x1000000
_MAX_CHAIN = 32
_MAX_MEMBERS = 16384
_POINTER_BYTES = 8
_MAX_NAME_BYTES = 512  # KSYM_NAME_LEN of the kernel
_MAX_TEXT_BYTES = 4096  # a line of C or a path
_WHOLE = 0xFFFFFFFF  # -1 as the component of a tag: the variable or type itself


@dataclass(frozen=True, slots=True, kw_only=True)
class BtfMember:
    """A member of a struct: its *name* and the number of its *type*."""

    name: str
    type: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BtfField:
    """
    A value inside a type: its *path*, its *bit_offset* from the type's start, its *bits* and its *kind*.

    The members of an array's element appear once, with the count of elements in the path.
    """

    path: str
    bit_offset: int
    bits: int
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BtfEntry:
    """
    A member of a struct or union, or a value of an enum: its *name*.

    A member has the number of its *type*, its *bit_offset*, and its width in *bits* if it is a bit field.
    """

    name: str
    type: int = 0
    bit_offset: int = 0
    bits: int = 0
    value: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BtfTag:
    """
    A declaration tag (`btf_decl_tag`): the offset of its *text*, and the number of the tagged *target*.

    *component* is the number of the tagged member of a struct, or None for the target itself.
    """

    text: int
    target: int
    component: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BtfType:
    """
    A type without qualifiers: its *kind* is integer, float, pointer, array, struct, union, enum or other.

    *name* is its own or that of its typedef, or empty. *size* is in bytes. An array has *element*, a type,
    and *count*. *entries* are members or values. An integer or an enum may be *signed*, an integer *is_bool*.
    """

    kind: str
    name: str
    size: int
    element: int = 0
    count: int = 0
    entries: tuple[BtfEntry, ...] = ()
    signed: bool = False
    is_bool: bool = False


class Btf:
    """The types of one `.BTF` section, by number, decoded on demand."""

    def __init__(self, data: bytes, order: str) -> None:
        """
        Index the types of *data*, in byte *order* `<` or `>`.

        Raises: ObjectFormatError.
        """
        self._order = order
        try:
            magic, version, _, header, type_at, type_size, names_at, names_size = struct.unpack_from(
                f"{order}HBBIIIII", data
            )
            if magic != _MAGIC or version != 1 or header < _HEADER_BYTES:
                raise ObjectFormatError("BTF of an unknown version")
            self._types = _part(data, header + type_at, type_size)
            self._types_at: int = header + type_at
            self._names = _part(data, header + names_at, names_size)
            self.names_at, self.names_size = header + names_at, names_size
            self._unpack_head = struct.Struct(f"{order}III").unpack_from
            # Four bytes for each type. Tuples of a hostile section's million types would be 300 MB.
            self._offsets = array("I", (0,))
            self._group_numbers = array("I")
            self._tag_numbers = array("I")
            self._index()
        except struct.error as error:
            raise ObjectFormatError("damaged BTF") from error
        if not self._names.endswith(b"\0"):
            raise ObjectFormatError("damaged BTF: names without an end")
        if names_size > MAX_NAMES_BYTES:
            raise ObjectFormatError(f"BTF: more than {MAX_NAMES_BYTES} bytes of names")

    @property
    def order(self) -> str:
        """The byte order, `<` or `>`."""
        return self._order

    @property
    def count(self) -> int:
        """The number of types, which is also the number of the last type."""
        return len(self._offsets) - 1

    def place(self, number: int) -> int:
        """Return the offset of type *number* in the section."""
        offset: int = self._offsets[number]
        return offset + self._types_at

    def is_declaration(self, number: int) -> bool:
        """Return whether type *number* is a declaration of a struct or union without members (FWD)."""
        return self._head(number)[1] == _FWD

    def references(self, end: int) -> tuple[list[int], list[int]]:
        """
        Return the words of the types below number *end* that refer to types, and those that refer to names.

        A word is given by its offset in the section, and lists are in rising order.

        Raises: ObjectFormatError.
        """
        types: list[int] = []
        names: list[int] = []
        for number in range(1, end):
            _, kind, vlen, _ = self._head(number)
            at = self.place(number)
            names.append(at)
            if kind in _REFERRING:
                types.append(at + 8)
            if kind == _ARRAY:
                types += (at + 12, at + 16)
            fixed, each = _EXTRA.get(kind, (0, 0))
            name, target = _ENTRY_WORDS.get(kind, (-1, -1))
            entries = range(at + 12 + fixed, at + 12 + fixed + each * vlen, each or 1)
            names += [entry + 4 * name for entry in entries if name >= 0]
            types += [entry + 4 * target for entry in entries if target >= 0]
        return types, names

    def groups(self) -> Iterator[tuple[bytes, int, int]]:
        """
        Yield the ELF section's name, type number and count of each group of variables (DATASEC).

        Raises: ObjectFormatError.
        """
        for number in self._group_numbers:
            name, _, vlen, _ = self._head(number)
            yield self.name(name), number, vlen

    def tags(self) -> Iterator[BtfTag]:
        """
        Yield the declaration tags, in the order of the section.

        Raises: ObjectFormatError, for a tag of a type or member that does not exist.
        """
        for number in self._tag_numbers:
            text, _, _, target = self._head(number)
            component = self._read(number, 1)[0]
            _, kind, vlen, _ = self._head(target)
            is_member = component != _WHOLE
            # Parameters of functions may have tags too. Their count is in the function's prototype.
            if is_member and kind in (_STRUCT, _UNION) and component >= vlen:
                raise ObjectFormatError("BTF: a tag of a member that does not exist")
            yield BtfTag(text=text, target=target, component=component if is_member else None)

    def begins(self, offset: int, prefix: bytes) -> bool:
        """Return whether the string at *offset* of the string table begins with *prefix*."""
        return self._names.startswith(prefix, offset)

    def group_entries(self, group: int) -> Iterator[tuple[int, ...]]:
        """
        Return number, offset in bytes and size in bytes of each variable or function of type *group*.

        Raises: ObjectFormatError.
        """
        return self._entries(group, self._head(group)[2])

    def enums(self) -> Iterator[tuple[str, int]]:
        """
        Yield name and number of each enum.

        Raises: ObjectFormatError.
        """
        for number in range(1, self.count + 1):
            offset, kind, _, _ = self._head(number)
            if kind in (_ENUM, _ENUM64) and offset:
                yield self._name(offset), number

    def plain(self, number: int) -> int:
        """
        Return the number of type *number* without typedefs and qualifiers.

        Raises: ObjectFormatError.
        """
        return self._resolve(number)

    def variables(self, group: int) -> Iterator[tuple[bytes, int]]:
        """
        Yield name and type number of each variable of type *group*.

        Raises: ObjectFormatError.
        """
        for entry in self._entries(group, self._head(group)[2]):
            name, kind, _, target = self._head(entry[0])
            if kind != _VAR:
                raise ObjectFormatError("BTF: not a variable")
            yield self.name(name), target

    def group_names(self, section: bytes) -> frozenset[str]:
        """
        Return the names of all variables and functions of the groups of ELF section *section*.

        Raises: ObjectFormatError.
        """
        found = set()
        for name, number, vlen in self.groups():
            if name == section:
                found |= {self._name(self._head(entry[0])[0]) for entry in self._entries(number, vlen)}
        return frozenset(found)

    def section_variables(self, section: str) -> tuple[tuple[str, int], ...]:
        """
        Return name and type number of each variable in ELF *section*.

        Raises: ObjectFormatError.
        """
        for name, number, _ in self.groups():
            if name == section.encode():
                return tuple((_text(name), target) for name, target in self.variables(number))
        return ()

    def struct(self, number: int) -> tuple[bytes, int, int]:
        """
        Return name, size and count of members of struct type *number*, typedefs resolved.

        Raises: ObjectFormatError.
        """
        name, kind, vlen, size = self._head(self._resolve(number))
        if kind != _STRUCT:
            raise ObjectFormatError("BTF: a map that is not a struct")
        return self.name(name), size, vlen

    def members(self, number: int) -> tuple[BtfMember, ...]:
        """
        Return the members of struct type *number*, typedefs resolved.

        Raises: ObjectFormatError.
        """
        number = self._resolve(number)
        _, _, vlen = self.struct(number)
        entries = self._entries(number, vlen)
        return tuple(BtfMember(name=self._name(name), type=member) for name, member, _ in entries)

    def fields(self, number: int) -> tuple[BtfField, ...]:
        """
        Return the fields of type *number*, with the members of its members.

        Raises: ObjectFormatError, also for a type with more than 16384 members at all depths together.
        """
        found: list[BtfField] = []
        self._collect(number, "", 0, found, iter(range(_MAX_MEMBERS)), _MAX_CHAIN)
        return tuple(found)

    def type(self, number: int) -> BtfType:
        """
        Return type *number*, for the declaration of an equal type in another language.

        Raises: ObjectFormatError.
        """
        alias = ""
        resolved = self._resolve(number)
        while number != resolved:
            offset, kind, _, target = self._head(number)
            # The outermost name is the one that the source has.
            alias = alias or (self._name(offset) if kind == _TYPEDEF else "")
            number = target
        offset, kind, vlen, value = self._head(number)
        name = self._name(offset) or alias
        flag = bool(self._info(number) >> 31)
        if kind in (_STRUCT, _UNION):
            word = "struct" if kind == _STRUCT else "union"
            entries = tuple(self._members(number, vlen, has_widths=flag))
            return BtfType(kind=word, name=name, size=value, entries=entries)
        if kind in (_ENUM, _ENUM64):
            entries = tuple(self._values(number, kind, vlen, signed=flag))
            return BtfType(kind="enum", name=name, size=value, entries=entries, signed=flag)
        if kind == _ARRAY:
            element, count = self._array(number)
            size = self.size(number)
            return BtfType(kind="array", name=alias, size=size, element=element, count=count)
        if kind == _INT:
            encoding = self._read(number, 1)[0] >> 24 & 0xF
            return BtfType(
                kind="integer",
                name=name,
                size=value,
                signed=bool(encoding & 1),
                is_bool=bool(encoding & 4),
            )
        size = value if kind in _SIZED else _POINTER_BYTES if kind == _PTR else 0
        return BtfType(kind=_KINDS.get(kind, "other"), name=name, size=size)

    def _members(self, number: int, vlen: int, *, has_widths: bool) -> Iterator[BtfEntry]:
        for name, member, place in self._entries(number, vlen):
            offset, width = (place & 0xFFFFFF, place >> 24) if has_widths else (place, 0)
            yield BtfEntry(name=self._name(name), type=member, bit_offset=offset, bits=width)

    def _values(self, number: int, kind: int, vlen: int, *, signed: bool) -> Iterator[BtfEntry]:
        width = 3 if kind == _ENUM64 else 2
        words = self._read(number, width * vlen)
        for at in range(0, width * vlen, width):
            value = words[at + 1] | (words[at + 2] << 32 if width == 3 else 0)
            bits = 64 if width == 3 else 32
            value -= 1 << bits if signed and value >> (bits - 1) else 0
            yield BtfEntry(name=self._name(words[at]), value=value)

    def type_names(self) -> Iterator[str]:
        """
        Yield the names that types and variables have in C. Those of integers may hold blanks.

        Static variables are left out: their names are known in their source alone, and that of one inside a
        function is none in C (`count.____fmt` of bpf_printk).

        Raises: ObjectFormatError.
        """
        kinds = (_INT, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF, _VAR, _FLOAT, _ENUM64)
        for number in range(1, self.count + 1):
            name, kind, _, _ = self._head(number)
            if (
                kind not in kinds
                or not name
                or (kind == _VAR and self._read(number, 1)[0] == _STATIC_LINKAGE)
            ):
                continue
            yield self._name(name)

    def is_global(self, number: int) -> bool:
        """
        Return whether variable *number* is visible outside its source.

        Raises: ObjectFormatError.
        """
        return self._head(number)[1] == _VAR and self._read(number, 1)[0] == 1

    def variable_numbers(self, group: int) -> Iterator[int]:
        """
        Yield the numbers of the variables of type *group*.

        Raises: ObjectFormatError.
        """
        for entry in self._entries(group, self._head(group)[2]):
            yield entry[0]

    def variable(self, number: int) -> tuple[str, int]:
        """
        Return name and type of variable *number*.

        Raises: ObjectFormatError.
        """
        name, kind, _, target = self._head(number)
        if kind != _VAR:
            raise ObjectFormatError("BTF: not a variable")
        return self._name(name), target

    def pointed(self, number: int) -> int:
        """
        Return the number of the type to which pointer type *number* points (`__type`).

        Raises: ObjectFormatError.
        """
        _, kind, _, target = self._head(self._resolve(number))
        if kind != _PTR:
            raise ObjectFormatError("BTF: not a type of a map")
        return target

    def element_struct(self, number: int) -> int | None:
        """
        Return the struct to which elements of array type *number* point, or None for programs (`__array`).

        Raises: ObjectFormatError.
        """
        element, _ = self._array(self._resolve(number))
        target = self._resolve(self.pointed(element))
        return target if self._head(target)[1] == _STRUCT else None

    def encoded_integer(self, number: int) -> int:
        """
        Return the integer that type *number* encodes (`__uint` or `__ulong`).

        Raises: ObjectFormatError.
        """
        number = self._resolve(number)
        _, kind, _, value = self._head(number)
        if kind == _ENUM:
            return self._read(number, 2)[1]
        if kind == _ENUM64:
            _, low, high = self._read(number, 3)
            return low | high << 32
        if kind != _PTR:
            raise ObjectFormatError("BTF: not an integer of a map")
        return self._array(self._resolve(value))[1]

    def array_length(self, number: int) -> int:
        """
        Return the integer that `__uint` encodes as type *number*, a pointer to an array.

        Raises: ObjectFormatError.
        """
        return self._array(self.pointed(number))[1]

    def pointed_size(self, number: int) -> int:
        """
        Return the size in bytes of the type to which pointer type *number* points (`__type`).

        Raises: ObjectFormatError.
        """
        return self.size(self.pointed(number))

    def size(self, number: int) -> int:
        """
        Return the size of type *number* in bytes.

        Raises: ObjectFormatError.
        """
        count = 1
        for _ in range(_MAX_CHAIN):
            number = self._resolve(number)
            _, kind, _, size = self._head(number)
            if kind in _SIZED:
                return count * size
            if kind == _PTR:
                return count * _POINTER_BYTES
            number, elements = self._array(number)
            count *= elements
        raise ObjectFormatError("BTF: types nested too deep")

    def is_volatile(self, number: int) -> bool:
        """
        Return whether type *number* has the qualifier.

        Raises: ObjectFormatError.
        """
        return self._unqualify(number)[1]

    def _unqualify(self, number: int) -> tuple[int, bool]:
        """Return the number of the type that type *number* qualifies, and whether it is volatile."""
        is_volatile = False
        for _ in range(_MAX_CHAIN):
            _, kind, _, value = self._head(number)
            if kind not in _TRANSPARENT:
                return number, is_volatile
            is_volatile = is_volatile or kind == _VOLATILE
            number = value
        raise ObjectFormatError("BTF: types nested too deep")

    def text(self, offset: int) -> str:
        """
        Return the string at *offset* of the string table, cut to 4096 bytes.

        Raises: ObjectFormatError.
        """
        if offset >= len(self._names):
            raise ObjectFormatError("damaged BTF")
        text = self._names[offset : offset + _MAX_TEXT_BYTES]
        return text.partition(b"\0")[0].decode("utf-8", "replace")

    def _collect(
        self, number: int, path: str, at: int, found: list[BtfField], steps: Iterator[int], depth: int
    ) -> None:
        number = self._resolve(number)
        _, kind, vlen, _ = self._head(number)
        # Count steps rather than fields: nested empty structs have no fields, but would run for ever.
        if depth == 0 or next(steps, None) is None:
            raise ObjectFormatError("BTF: a type with too many members")
        if kind == _ARRAY:
            element, count = self._array(number)
            self._collect(element, f"{path}[{count}]", at, found, steps, depth - 1)
        elif kind in (_STRUCT, _UNION):
            # Bit 31 of info (kind_flag): the high 8 bits of an offset are the width of a bit field.
            has_widths = self._info(number) >> 31
            for name, member, place in self._entries(number, vlen):
                offset, width = (place & 0xFFFFFF, place >> 24) if has_widths else (place, 0)
                inner = f"{path}.{self._name(name)}".strip(".")
                if width:
                    found.append(BtfField(path=inner, bit_offset=at + offset, bits=width, kind="bits"))
                else:
                    self._collect(member, inner, at + offset, found, steps, depth - 1)
        else:
            size = self.size(number) * 8 if kind in _SIZED or kind == _PTR else 0
            found.append(BtfField(path=path, bit_offset=at, bits=size, kind=_KINDS.get(kind, "other")))

    def _info(self, number: int) -> int:
        info: int = struct.unpack_from(f"{self._order}I", self._types, self._offsets[number] + 4)[0]
        return info

    def _index(self) -> None:
        at, end = 0, len(self._types)
        unpack, types, offsets = self._unpack_head, self._types, self._offsets
        while at < end:
            _, info, _ = unpack(types, at)
            kind = info >> 24 & 0x1F
            if info & ~_KNOWN_INFO or not _INT <= kind <= _ENUM64:
                raise ObjectFormatError("BTF: a type of an unknown kind")
            if kind == _DATASEC:
                self._group_numbers.append(len(offsets))
            elif kind == _DECL_TAG:
                self._tag_numbers.append(len(offsets))
            offsets.append(at)
            if len(offsets) > MAX_TYPES + 1:
                raise ObjectFormatError(f"BTF: more than {MAX_TYPES} types")
            fixed, each = _EXTRA.get(kind, (0, 0))
            at += 12 + fixed + each * (info & 0xFFFF)
        if at != end:
            raise ObjectFormatError("damaged BTF: a type that is cut off")

    def _head(self, number: int) -> tuple[int, int, int, int]:
        """Return name offset, kind, vlen, and size or referenced type of type *number*."""
        if not 0 < number < len(self._offsets):
            raise ObjectFormatError("BTF: no such type")
        name, info, value = self._unpack_head(self._types, self._offsets[number])
        return name, info >> 24 & 0x1F, info & 0xFFFF, value

    def _resolve(self, number: int) -> int:
        return self._unqualify(number)[0]

    def _array(self, number: int) -> tuple[int, int]:
        """Return element type and count of elements of array type *number*."""
        if self._head(number)[1] != _ARRAY:
            raise ObjectFormatError("BTF: not a type with a size")
        element, _, count = self._read(number, 3)
        return element, count

    def _entries(self, number: int, vlen: int) -> Iterator[tuple[int, ...]]:
        """Yield the three words of each member of type *number*."""
        words = iter(self._read(number, 3 * vlen))
        return zip(words, words, words, strict=True)

    def _read(self, number: int, count: int) -> tuple[int, ...]:
        """Return the *count* words after the head of type *number*."""
        try:
            return struct.unpack_from(f"{self._order}{count}I", self._types, self._offsets[number] + 12)
        except struct.error as error:
            raise ObjectFormatError("damaged BTF") from error

    def name(self, offset: int) -> bytes:
        """
        Return the name at *offset* of the table of strings.

        Raises: ObjectFormatError.
        """
        # Many types can share one name, so an object could fill the memory with copies of a long name.
        end = self._names.find(0, offset, offset + _MAX_NAME_BYTES + 1)
        if end < 0:
            raise ObjectFormatError("BTF: damaged, or a name that is too long")
        return self._names[offset:end]

    def _name(self, offset: int) -> str:
        return _text(self.name(offset))


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def _part(data: bytes, at: int, size: int) -> bytes:
    if at + size > len(data):
        raise ObjectFormatError("damaged BTF: a table outside of its section")
    return data[at : at + size]
