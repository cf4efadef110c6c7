# SPDX-License-Identifier: Apache-2.0
"""
Make objects with the types of a kernel, for kernels without BTF of their own.

Programs with CO-RE relocations need few types of a kernel. A smaller BTF has only these: the structs that the
programs name, with the members that they access, at the offsets and sizes of the kernel. The rules by which
libbpf finds a type and a member are in its file relo_core.c; bpftool gen min_core_btf follows the same.

The result is an eBPF object with section .BTF alone, so that it is signed and verified like all objects.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from buildtool.core.errors import ObjectFormatError
from buildtool.core.platforms import EM_BPF
from buildtool.objects.btf import Btf
from buildtool.objects.elf import MAX_OBJECT_BYTES, ElfObject, pack_section
from buildtool.objects.tables import (
    ENTRY_BYTES,
    HEADER_BYTES,
    SHT_NULL,
    SHT_PROGBITS,
    SHT_STRTAB,
    Section,
)

TYPES_SUFFIX = ".btf.o"
MAX_TYPES_BYTES = MAX_OBJECT_BYTES - 1024 * 1024  # with room for a signature
_MAGIC, _HEADER_BYTES = 0xEB9F, 24
_EXT_HEADER_BYTES = 32  # with the two words for CO-RE
_RELOCATION_BYTES = 16
_MAX_DEPTH = 64  # libbpf's BPF_CORE_SPEC_MAX_LEN
# enum bpf_core_relo_kind: 0 to 5 are about a field, and these about a type or a value.
_TYPE_ID_LOCAL, _TYPE_MATCHES = 6, 12
_OF_TYPES, _OF_VALUES = (7, 8, 9), (10, 11)


class BtfKind(IntEnum):
    """The kinds of types, by their numbers in BTF."""

    INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF = range(1, 9)
    VOLATILE, CONST, RESTRICT, FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT = range(9, 17)
    DECL_TAG, TYPE_TAG, ENUM64 = range(17, 20)


_COMPOSITES = (BtfKind.STRUCT, BtfKind.UNION)
_ENUMS = (BtfKind.ENUM, BtfKind.ENUM64)
# Words of a type after the three common ones: fixed ones, and those of each entry.
_WORDS = {
    BtfKind.INT: (1, 0),
    BtfKind.ARRAY: (3, 0),
    BtfKind.ENUM: (0, 2),
    BtfKind.ENUM64: (0, 3),
    BtfKind.FUNC_PROTO: (0, 2),
}
# Another name of a type, or a qualifier.
_NAMES = (BtfKind.TYPEDEF, BtfKind.VOLATILE, BtfKind.CONST, BtfKind.RESTRICT, BtfKind.TYPE_TAG)
# s___flavor is the type s of some kernels (bpf_core_essential_name_len).
_FLAVOR = re.compile(rb"(?<=[^_])___(?=[^_])")


class TypeGraph(Btf):
    """The types of a `.BTF` section with their references."""

    def kind(self, number: int) -> BtfKind:
        """Return the kind of type *number*."""
        return BtfKind(self._head(number)[1])

    def type_name(self, number: int) -> bytes:
        """Return the name of type *number*, empty without one."""
        return self.name(self._head(number)[0])

    def target(self, number: int) -> int:
        """Return the type that type *number*, a name, a pointer or a function, refers to, or 0 for void."""
        return self._head(number)[3]

    def behind(self, number: int) -> int:
        """Return the type behind the names and qualifiers of *number*, or 0 for void."""
        for _ in range(_MAX_DEPTH):
            if not number or self.kind(number) not in _NAMES:
                return number
            number = self.target(number)
        raise ObjectFormatError("BTF: types nested too deep")

    def array(self, number: int) -> tuple[int, int]:
        """Return the types of elements and of the index of array *number*."""
        element, index, _ = self._read(number, 3)
        return element, index

    def parameters(self, number: int) -> list[int]:
        """Return the types of the parameters of type *number*, none unless it is a function's."""
        if self.kind(number) is not BtfKind.FUNC_PROTO:
            return []
        return list(self._read(number, 2 * self._head(number)[2])[1::2])

    def member_entries(self, number: int) -> list[tuple[int, ...]]:
        """Return name, type and place of each member of type *number*, none unless it is a composite."""
        if not number or self.kind(number) not in _COMPOSITES:
            return []
        return list(self._entries(number, self._head(number)[2]))

    def pack(self, kept: Mapping[int, Iterable[int]]) -> bytes:
        """Return BTF of the types *kept*, with the members of these indexes. Other types become void."""
        numbers = {old: new for new, old in enumerate(kept, start=1)}
        names, types = _Names(), bytearray()
        for old, members in kept.items():
            name, kind, _, value = self._head(old)
            count, body = self._pack_body(old, sorted(members), numbers, names)
            if kind in _NAMES or kind in (BtfKind.PTR, BtfKind.FUNC_PROTO):
                value = numbers.get(value, 0)
            words = (names.add(self.name(name)), self._info(old) & ~0xFFFF | count, value, *body)
            types += struct.pack(f"{self._order}{len(words)}I", *words)
        header = (_MAGIC, 1, 0, _HEADER_BYTES, 0, len(types), len(types), len(names.table))
        return struct.pack(f"{self._order}HBBIIIII", *header) + types + names.table

    def _pack_body(
        self, old: int, members: list[int], numbers: Mapping[int, int], names: _Names
    ) -> tuple[int, list[int]]:
        """Return the count of entries of type *old*, and the words after the common ones."""
        vlen, kind = self._head(old)[2], self.kind(old)
        if kind in _COMPOSITES:
            entries = self.member_entries(old)
            chosen = [entries[index] for index in members]
            words = [
                word
                for own, inner, place in chosen
                for word in (names.add(self.name(own)), numbers[inner], place)
            ]
            return len(chosen), words
        fixed, each = _WORDS.get(kind, (0, 0))
        words = list(self._read(old, fixed + each * vlen))
        if kind == BtfKind.ARRAY:
            words[:2] = [numbers.get(inner, 0) for inner in words[:2]]
        if kind in _ENUMS or kind == BtfKind.FUNC_PROTO:
            words[::each] = [names.add(self.name(own)) for own in words[::each]]
        if kind == BtfKind.FUNC_PROTO:
            words[1::2] = [numbers.get(inner, 0) for inner in words[1::2]]
        return vlen, words


@dataclass(frozen=True, slots=True)
class _Names:
    """A table of names, each once."""

    table: bytearray = field(default_factory=lambda: bytearray(1))
    places: dict[bytes, int] = field(default_factory=lambda: {b"": 0})

    def add(self, name: bytes) -> int:
        """Return the place of *name*, which is added if it is new."""
        if name not in self.places:
            self.places[name] = len(self.table)
            self.table.extend(name + b"\0")
        return self.places[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeRelocation:
    """A CO-RE relocation: the number of the *root* type, the *access* string and the *kind*."""

    root: int
    access: str
    kind: int


def essential_name(name: bytes) -> bytes:
    """Return *name* of a type without its flavor."""
    found = [match.start() for match in _FLAVOR.finditer(name)]
    return name[: found[-1]] if found else name


def read_types(obj: ElfObject) -> TypeGraph | None:
    """
    Return the types of *obj*, or None without BTF.

    Raises: ObjectFormatError.
    """
    section = next((each for each in obj.sections if each.name == b".BTF"), None)
    return TypeGraph(obj.contents(section), obj.order) if section else None


def read_type_relocations(obj: ElfObject, btf: Btf) -> list[TypeRelocation]:
    """
    Return the CO-RE relocations in `.BTF.ext` of *obj*, whose types are *btf*, each once.

    Raises: ObjectFormatError.
    """
    data = next((obj.contents(each) for each in obj.sections if each.name == b".BTF.ext"), b"")
    try:
        return list(dict.fromkeys(_relocations(data, obj.order, btf))) if data else []
    except struct.error as error:
        raise ObjectFormatError("damaged BTF.ext") from error


def _relocations(data: bytes, order: str, btf: Btf) -> Iterator[TypeRelocation]:
    header = struct.unpack_from(f"{order}I", data, 4)[0]
    if header < _EXT_HEADER_BYTES:
        return
    at, size = struct.unpack_from(f"{order}II", data, 24)
    at, end = at + header, at + header + size
    if not size:
        return
    (each,) = struct.unpack_from(f"{order}I", data, at)
    if each < _RELOCATION_BYTES or end > len(data):
        raise ObjectFormatError("damaged BTF.ext")
    at += 4
    while at < end:
        count = struct.unpack_from(f"{order}II", data, at)[1]
        at += 8
        if each * count > end - at:
            raise ObjectFormatError("damaged BTF.ext")
        for _ in range(count):
            _, root, access, kind = struct.unpack_from(f"{order}IIII", data, at)
            yield TypeRelocation(root=root, access=btf.text(access), kind=kind)
            at += each


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """The types of *kernel* to keep: *members* by number, of composites those by index, else None."""

    kernel: TypeGraph
    members: dict[int, set[int]] = field(default_factory=dict)
    # Pointers and functions whose targets are kept. Others refer to void.
    followed: set[int] = field(default_factory=set)

    def keep(self, number: int, *, follow: bool = False) -> int:
        """Keep type *number* and what it consists of. Return the last type behind names and arrays."""
        for _ in range(_MAX_DEPTH):
            if not number:
                return 0
            kind, target = self.kernel.kind(number), self.kernel.target(number)
            self.members.setdefault(number, set())
            if kind is BtfKind.ARRAY:
                element, index = self.kernel.array(number)
                self.keep(index)
                number = element
            elif kind in _NAMES:
                number = target
            elif follow and kind in (BtfKind.PTR, BtfKind.FUNC_PROTO):
                if number in self.followed:
                    return number
                self.followed.add(number)
                for parameter in self.kernel.parameters(number):
                    self.keep(parameter, follow=True)
                if kind is BtfKind.FUNC_PROTO:
                    self.keep(target, follow=True)
                    return number
                number = target
            else:
                return number
        raise ObjectFormatError("BTF: types nested too deep")

    def keep_access(self, local: TypeGraph, number: int, relocation: TypeRelocation) -> None:
        """Keep what *relocation* of *local* types accesses in candidate *number*."""
        here, steps = relocation.root, [int(word) for word in relocation.access.split(":")]
        if len(steps) > _MAX_DEPTH:
            raise ObjectFormatError("BTF: an access that is too deep")
        here, number = local.behind(here), self.keep(number)
        for step in steps[1:]:
            if local.kind(here) is BtfKind.ARRAY:
                here = local.behind(local.array(here)[0])
                continue  # the kernel's array is behind already
            members = local.member_entries(here)
            if step >= len(members):
                raise ObjectFormatError("BTF: an access to no member")
            name, here, _ = members[step]
            here = local.behind(here)
            if not name:
                continue  # the members of an unnamed struct are the outer one's
            number = self._keep_member(number, local.name(name), _MAX_DEPTH)
            if not number:
                return

    def _keep_member(self, number: int, name: bytes, depth: int) -> int:
        """Keep the member *name* of composite *number*, and unnamed ones around it. Return its last type."""
        if depth == 0:
            raise ObjectFormatError("BTF: types nested too deep")
        if not number or self.kernel.kind(number) not in _COMPOSITES:
            return 0
        for index, (own, inner, _) in enumerate(self.kernel.member_entries(number)):
            if own and self.kernel.name(own) == name:
                self.members.setdefault(number, set()).add(index)
                return self.keep(inner)
            if own:
                continue
            target = self.kernel.behind(inner)
            if found := self._keep_member(target, name, depth - 1):
                self.members.setdefault(number, set()).add(index)
                self.keep(inner)
                return found
        return 0

    def keep_whole(self, number: int, depth: int = _MAX_DEPTH) -> None:
        """Keep all members of type *number*, and theirs. Types behind a pointer stay without members."""
        last = self.keep(number, follow=True)
        if not last or depth == 0 or self.kernel.kind(last) not in _COMPOSITES:
            return
        entries = self.kernel.member_entries(last)
        if len(self.members[last]) == len(entries):
            return
        self.members[last] = set(range(len(entries)))
        for _, inner, _ in entries:
            behind = self.kernel.behind(inner)
            if behind and self.kernel.kind(behind) in (*_COMPOSITES, BtfKind.ARRAY):
                self.keep_whole(inner, depth - 1)
            else:
                self.keep(inner, follow=True)


def minimize(kernel: TypeGraph, objects: Iterable[tuple[ElfObject, TypeGraph]]) -> bytes:
    """
    Return BTF with the types of *kernel* that the relocations of *objects*, each with its types, need.

    Raises: ObjectFormatError.
    """
    try:
        return _minimize(kernel, objects)
    except (RecursionError, ValueError, KeyError) as error:
        raise ObjectFormatError("damaged BTF: types or relocations without a meaning") from error


def _minimize(kernel: TypeGraph, objects: Iterable[tuple[ElfObject, TypeGraph]]) -> bytes:
    kept = _Kept(kernel=kernel)
    named: dict[bytes, list[int]] = {}
    for number in range(1, kernel.count + 1):
        if name := kernel.type_name(number):
            named.setdefault(essential_name(name), []).append(number)
    for obj, local in objects:
        for relocation in read_type_relocations(obj, local):
            for candidate in _candidates(kernel, local, relocation, named):
                if relocation.kind == _TYPE_MATCHES:
                    kept.keep_whole(candidate)
                elif relocation.kind in _OF_TYPES:
                    kept.keep(candidate, follow=True)
                elif relocation.kind in _OF_VALUES:
                    kept.keep(candidate)
                elif relocation.kind != _TYPE_ID_LOCAL:
                    kept.keep_access(local, candidate, relocation)
    return kernel.pack(dict(sorted(kept.members.items())))


def _candidates(
    kernel: TypeGraph, local: TypeGraph, relocation: TypeRelocation, named: dict[bytes, list[int]]
) -> Iterator[int]:
    """Yield the types of *kernel* with the name and kind of the relocation's root, as libbpf finds them."""
    kind = local.kind(relocation.root)
    for number in named.get(essential_name(local.type_name(relocation.root)), ()):
        other = kernel.kind(number)
        if other is kind or (other in _ENUMS and kind in _ENUMS):
            yield number


def pack_types(btf: bytes, *, little_endian: bool) -> bytes:
    """Return an eBPF object whose only contents are *btf*."""
    order = "<" if little_endian else ">"
    names = b"\0.strtab\0.BTF\0"
    body = bytearray(HEADER_BYTES)
    sections = [Section(0, SHT_NULL, 0, 0, 0, 0, 0, 0, 0, 0, b"")]
    for offset, kind, data, align in ((1, SHT_STRTAB, names, 1), (9, SHT_PROGBITS, btf, 8)):
        body += bytes(-len(body) % align)
        sections.append(Section(offset, kind, 0, 0, len(body), len(data), 0, 0, align, 0, b""))
        body += data
    body += bytes(-len(body) % 8)
    identification = b"\x7fELF" + bytes((2, 1 if little_endian else 2, 1)) + bytes(9)
    head = (1, EM_BPF, 1, 0, 0, len(body), 0, HEADER_BYTES, 0, 0, ENTRY_BYTES, len(sections), 1)
    body[:HEADER_BYTES] = identification + struct.pack(f"{order}HHIQQQIHHHHHH", *head)
    return bytes(body) + b"".join(pack_section(section, order) for section in sections)
