# SPDX-License-Identifier: Apache-2.0
"""Objects with struct_ops maps and with maps that are pinned by name, valid and damaged."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from labs.vectors.builder import SHT_NOBITS, Part, Recipe
from labs.vectors.code import code, makes

INT, PTR, ARRAY, STRUCT, UNION, TYPEDEF = 1, 2, 3, 4, 5, 8
VOLATILE, CONST, RESTRICT, VAR, DATASEC, DECL_TAG, TYPE_TAG, ENUM64 = 9, 10, 11, 14, 15, 17, 18, 19
FORWARD, FUNCTION = 7, 12
LINK = b".struct_ops.link"
SCHEDULER = b"sched_ext_ops"


class Btf:
    """Builds a section .BTF (Linux, Documentation/bpf/btf.rst). Numbers of types begin at 1."""

    def __init__(self, order: str = "<") -> None:
        self.order, self.types, self.names, self.count = order, b"", b"\0", 0

    def name(self, text: bytes) -> int:
        """Add a name and return its offset."""
        self.names += text + b"\0"
        return len(self.names) - len(text) - 1

    def type(self, kind: int, name: bytes | int = 0, value: int = 0, *rest: int, count: int = 0) -> int:
        """
        Add a type and return its number.

        *name* is a new name or an offset, *value* is the size or type, *count* the number of members. The
        integers *rest* follow the head.
        """
        offset = self.name(name) if isinstance(name, bytes) else name
        self.types += struct.pack(f"{self.order}{3 + len(rest)}I", offset, kind << 24 | count, value, *rest)
        self.count += 1
        return self.count

    def integer(self, number: int) -> int:
        """Add the type that libbpf's `__uint` defines, and return its number."""
        return self.type(PTR, 0, self.type(ARRAY, 0, 0, 0, 0, number))

    def struct(self, name: bytes | int, *members: tuple[bytes, int]) -> int:
        """Add a struct of *members* (name and type), and return its number."""
        words = [word for text, number in members for word in (self.name(text), number, 0)]
        return self.type(STRUCT, name, 8 * len(members), *words, count=len(members))

    def group(self, section: bytes, *variables: int) -> int:
        """Add the group of variables (DATASEC) of *section*, and return its number."""
        words = [word for number in variables for word in (number, 0, 8)]
        return self.type(DATASEC, section, 0, *words, count=len(variables))

    def variable(self, name: bytes | int, number: int) -> int:
        """Add a global variable of type *number*, and return its number."""
        return self.type(VAR, name, number, 1)

    def part(self, **header: int) -> Part:
        """Return the section. *header* replaces integers of its header."""
        size, names = len(self.types), len(self.names)
        words = {"magic": 0xEB9F, "version": 1, "flags": 0, "header": 24, "type_at": 0, "type_size": size}
        words |= {"name_at": size, "name_size": names} | header
        data = struct.pack(f"{self.order}HBBIIIII", *words.values())
        return Part(name=b".BTF", data=data + self.types + self.names)


def ops(btf: Btf, section: bytes = LINK, kind: bytes = SCHEDULER, *, name: bytes = b"ops") -> Btf:
    """Add a struct_ops map without any program."""
    btf.group(section, btf.variable(name, btf.struct(kind)))
    return btf


def plain(btf: Btf, *members: tuple[bytes, int], name: bytes | int = b"counts") -> Btf:
    """Add a map of section .maps that has *members* beside its type."""
    number = btf.struct(0, (b"type", btf.integer(2)), *members)
    btf.group(b".maps", btf.variable(name, number))
    return btf


def pinned(btf: Btf, value: int = 1, name: bytes | int = b"counts") -> Btf:
    """Add a map of section .maps that is pinned by name, or not."""
    return plain(btf, (b"pinning", btf.integer(value)), name=name)


def data(name: bytes, **changes: Any) -> Part:
    """Return a data section."""
    return Part(name=name, data=bytes(8), flags=3, **changes)


def with_maps(btf: Btf | Part, *sections: bytes | Part, order: str = "<", **listed: Any) -> Recipe:
    """Return the recipe of an XDP program, the data *sections* and the types."""
    parts = [section if isinstance(section, Part) else data(section) for section in sections]
    types = btf.part() if isinstance(btf, Btf) else btf
    return makes(code(), *parts, types, order=order, **listed)


def map_cases() -> Iterator[tuple[str, str, str, Recipe]]:
    """Yield name, expected decision, trust store and recipe of each case."""
    yield from _struct_ops_cases()
    yield from _pin_cases()
    yield from _statement_cases()
    yield from _type_cases()
    yield from _header_cases()


def _struct_ops_cases() -> Iterator[tuple[str, str, str, Recipe]]:
    denied, accepted = "denied-by-policy", "accepted"
    for section in (b".struct_ops", LINK, b"?.struct_ops", b"?.struct_ops.link"):
        empty = with_maps(ops(Btf(), section), section)
        name = section.decode()
        # The attack: an empty struct_ops map beside a program of an allowed type.
        yield f"type-{name}", denied, "xdp-only", empty
        yield f"type-allowed-{name}", accepted, "struct-ops", empty
        yield f"no-types-{name}", denied, "no-types", empty
        yield f"point-{name}", denied, "points", empty
        yield f"point-allowed-{name}", accepted, "scheduler", empty
        other = with_maps(ops(Btf(), section, b"tcp_congestion_ops"), section)
        yield f"point-other-{name}", denied, "scheduler", other
        yield f"point-any-{name}", accepted, "all-points", other
    yield "without-rule", accepted, "alice", with_maps(ops(Btf()), LINK)
    yield "denied-helpers-alone", accepted, "denied-helpers", with_maps(Btf(), LINK)
    for name in (b".struct_ops2", b".struct_ops.link2", b".struct_ops.s", b"?.struct_ops.", b".struct_ops/x"):
        recipe = with_maps(ops(Btf(), name), name)
        yield f"unknown-kind-{name.decode()}", denied, "all-points", recipe
        yield f"unknown-kind-of-type-{name.decode()}", denied, "struct-ops", recipe
    for name in (b"struct_ops.link", b"??.struct_ops", b".xstruct_ops", b".struct_op", b"x.struct_ops"):
        yield f"no-kind-{name.decode()}", accepted, "xdp-only", with_maps(ops(Btf(), name), name)
    empty_section = replace(data(LINK), data=b"")
    yield "empty-section", denied, "xdp-only", with_maps(ops(Btf()), empty_section)
    nobits = data(LINK, type=SHT_NOBITS)
    yield "section-without-bits", denied, "xdp-only", with_maps(ops(Btf()), nobits)
    yield "section-of-code", denied, "xdp-only", with_maps(ops(Btf()), data(LINK, fields={"flags": 6}))
    two = ops(ops(Btf(), b".struct_ops", SCHEDULER, name=b"a"), LINK, b"tcp_congestion_ops", name=b"b")
    yield "second-of-another-type", denied, "scheduler", with_maps(two, b".struct_ops", LINK)
    again = ops(ops(Btf(), name=b"a"), LINK, b"tcp_congestion_ops", name=b"b")
    yield "second-group-of-one-name", denied, "scheduler", with_maps(again, LINK)
    both = Btf()
    kinds = [both.struct(kind) for kind in (SCHEDULER, b"hid_bpf_ops")]
    both.group(LINK, *(both.variable(b"v%d" % number, kind) for number, kind in enumerate(kinds)))
    yield "second-variable", denied, "scheduler", with_maps(both, LINK)
    yield "type-without-section", accepted, "xdp-only", with_maps(ops(Btf()), b".data")
    yield "point-without-section", accepted, "points", with_maps(ops(Btf()), b".data")
    yield "point-without-section-beside-maps", denied, "points", with_maps(plain(ops(Btf())), b".maps")
    yield "section-without-type", denied, "all-points", with_maps(plain(Btf()), LINK, b".maps")
    yield "section-of-another-type", denied, "all-points", with_maps(ops(Btf(), b".struct_ops"), LINK)
    for kind, expect in (
        (SCHEDULER + b"___v2", accepted),
        (SCHEDULER + b"___v2___v3", denied),
        (SCHEDULER + b"____v2", denied),
        (SCHEDULER + b"___", denied),
        (b"x" + SCHEDULER, denied),
        (b"", denied),
        (b"a/../" + SCHEDULER, denied),
        (b"\xff\xfe", denied),
    ):
        label = kind.decode("latin-1").replace(SCHEDULER.decode(), "ops")
        yield f"kernel-type-{label!a}", expect, "scheduler", with_maps(ops(Btf(), kind=kind), LINK)
    yield "kernel-type-of-no-utf-8", accepted, "all-points", with_maps(ops(Btf(), kind=b"\xff\xfe"), LINK)
    for size, expect in ((512, accepted), (513, denied)):
        yield (
            f"kernel-type-of-{size}-bytes",
            expect,
            "all-points",
            with_maps(ops(Btf(), kind=b"t" * size), LINK),
        )
        long = with_maps(ops(Btf(), name=b"v" * size), LINK)
        yield f"variable-of-{size}-bytes", expect, "all-points", long
    yield "variable-without-a-name", denied, "all-points", with_maps(ops(Btf(), name=b""), LINK)
    program = code(name=b"struct_ops/init")
    yield "program-allowed", accepted, "struct-ops", makes(program, data(LINK), ops(Btf()).part())
    yield "program-alone", accepted, "struct-ops", makes(program)


def _pin_cases() -> Iterator[tuple[str, str, str, Recipe]]:
    denied, accepted = "denied-by-policy", "accepted"
    yield "pin-allowed", accepted, "pins", with_maps(pinned(Btf()), b".maps")
    yield "pin-of-another-name", denied, "pins", with_maps(pinned(Btf(), name=b"others"), b".maps")
    yield "pin-denied", denied, "points", with_maps(pinned(Btf()), b".maps")
    yield "pin-without-points", accepted, "xdp-only", with_maps(pinned(Btf()), b".maps")
    yield "pin-none", accepted, "points", with_maps(pinned(Btf(), 0), b".maps")
    yield "pin-by-another-number", denied, "points", with_maps(pinned(Btf(), 7), b".maps")
    yield "pin-not-at-all", accepted, "points", with_maps(plain(Btf()), b".maps")
    twice = Btf()
    plain(twice, (b"pinning", twice.integer(1)), (b"pinning", twice.integer(0)))
    yield "pin-then-none", denied, "points", with_maps(twice, b".maps")
    yield "pin-in-second-group", denied, "points", with_maps(pinned(plain(Btf())), b".maps")
    yield "pin-of-a-way-out", denied, "all-points", with_maps(pinned(Btf(), name=b"/../etc"), b".maps")
    yield "pin-without-a-name", denied, "all-points", with_maps(pinned(Btf(), name=b""), b".maps")
    yield "pin-of-data", accepted, "points", with_maps(pinned(Btf()), b".data")
    other = Btf()
    other.group(b".mapsx", other.variable(b"m", other.struct(0, (b"pinning", other.integer(1)))))
    yield "pin-in-a-group-that-is-none", accepted, "points", with_maps(plain(other), b".maps")
    for name, form in (
        ("integer", lambda btf: btf.type(INT, 0, 4, 32)),
        ("pointer-to-pointer", lambda btf: btf.type(PTR, 0, btf.integer(1))),
        ("array", lambda btf: btf.type(ARRAY, 0, 0, 0, 0, 1)),
        ("pointer-to-typedef", lambda btf: btf.type(PTR, 0, btf.type(TYPEDEF, 0, 1))),
        ("pointer-to-nothing", lambda btf: btf.type(PTR, 0, 0)),
        ("nothing", lambda _: 0),
        ("missing", lambda _: 99),
        ("enumeration", lambda btf: btf.type(ENUM64, 0, 8, 0, 1, 0, count=1)),
    ):
        btf = Btf()
        recipe = with_maps(plain(btf, (b"pinning", form(btf))), b".maps")
        yield f"pin-by-{name}", denied, "all-points", recipe
    qualified = Btf()
    number = qualified.integer(1)
    for kind in (TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG):
        number = qualified.type(kind, 0, number)
    recipe = with_maps(plain(qualified, (b"pinning", number)), b".maps")
    yield "pin-by-qualified-pointer", accepted, "pins", recipe
    yield "pin-by-qualified-pointer-denied", denied, "points", recipe
    for hops, expect in ((31, accepted), (32, denied)):
        chain = Btf()
        number = chain.integer(0)
        for _ in range(hops):
            number = chain.type(CONST, 0, number)
        yield (
            f"pin-behind-{hops}-types",
            expect,
            "points",
            with_maps(plain(chain, (b"pinning", number)), b".maps"),
        )
    loop = Btf()
    loop.type(CONST, 0, 1)
    yield "pin-behind-itself", denied, "all-points", with_maps(plain(loop, (b"pinning", 1)), b".maps")
    for section, store in ((b".maps", "all-points"), (b".maps", "struct-ops")):
        wrong = Btf()
        wrong.group(section, wrong.variable(b"ops", wrong.struct(SCHEDULER, (b"type", wrong.integer(26)))))
        yield f"struct-ops-in-maps-{store}", denied, store, with_maps(wrong, section)


def _statement_cases() -> Iterator[tuple[str, str, str, Recipe]]:
    denied, accepted = "denied-by-policy", "accepted"
    entry = {"name": "ops", "type": "struct_ops", "keySize": 4, "valueSize": 8, "maxEntries": 1}
    full = entry | {"section": ".struct_ops.link", "struct": "sched_ext_ops"}
    for name, item in (("old", entry), ("new", full)):
        yield f"claimed-{name}", denied, "xdp-only", makes(code(), maps=[item])
        yield f"claimed-{name}-allowed", accepted, "struct-ops", makes(code(), maps=[item])
    plain_map = {"name": "m", "type": "hash", "keySize": 4, "valueSize": 8, "maxEntries": 1}
    for value in (True, False):
        listed = makes(code(), maps=[plain_map | {"pinned": value}])
        yield f"claimed-pinned-{value}", accepted, "xdp-only", listed
    for name, member in (
        ("section", {"section": 1}),
        ("struct", {"struct": None}),
        ("pinned", {"pinned": "by-name"}),
        ("pinned-number", {"pinned": 1}),
        ("flags", {"flags": 1}),
    ):
        yield f"claimed-bad-{name}", "malformed", "alice", makes(code(), maps=[plain_map | member])


def _type_cases() -> Iterator[tuple[str, str, str, Recipe]]:
    denied, accepted = "denied-by-policy", "accepted"

    def group(section: bytes, *numbers: int, btf: Btf | None = None) -> Recipe:
        btf = btf or Btf()
        btf.group(section, *numbers)
        return with_maps(btf, section)

    yield "variable-number-0", denied, "all-points", group(LINK, 0)
    yield "variable-number-missing", denied, "all-points", group(LINK, 2)
    yield "variable-is-the-group", denied, "all-points", group(LINK, 1)
    yield "no-variables", accepted, "points", group(LINK)
    for name, make in (
        ("forward", lambda btf: btf.type(FORWARD, 0, btf.struct(SCHEDULER))),
        ("function", lambda btf: btf.type(FUNCTION, 0, btf.struct(SCHEDULER))),
        ("union", lambda btf: btf.type(UNION, SCHEDULER, 8)),
        ("pointer", lambda btf: btf.type(PTR, 0, btf.struct(SCHEDULER))),
        ("array", lambda btf: btf.type(ARRAY, 0, 0, btf.struct(SCHEDULER), 0, 1)),
        ("variable", lambda btf: btf.variable(b"x", btf.struct(SCHEDULER))),
        ("nothing", lambda _: 0),
    ):
        for section in (LINK, b".maps"):
            btf = Btf()
            btf.group(section, btf.variable(b"ops", make(btf)))
            yield f"variable-of-{name}-{section.decode()}", denied, "all-points", with_maps(btf, section)
    typedef = Btf()
    number = typedef.type(CONST, 0, typedef.type(TYPEDEF, b"other_t", typedef.struct(SCHEDULER)))
    typedef.group(LINK, typedef.variable(b"ops", number))
    yield "variable-of-typedef", accepted, "scheduler", with_maps(typedef, LINK)
    yield "variable-of-typedef-denied", denied, "points", with_maps(typedef, LINK)
    for kind in (0, 20, 31):
        unknown = Btf()
        unknown.type(kind)
        yield f"kind-{kind}", denied, "all-points", with_maps(ops(unknown), LINK)
    for bit in (16, 23, 29, 30):
        odd = Btf()
        odd.types += struct.pack("<III", 0, INT << 24 | 1 << bit, 4) + bytes(4)
        odd.count += 1
        yield f"info-bit-{bit}", denied, "all-points", with_maps(ops(odd), LINK)
    flagged = Btf()
    flagged.type(STRUCT | 0x80, b"x", 0)
    yield "info-bit-31", accepted, "scheduler", with_maps(ops(flagged), LINK)
    # One of each kind with its members. A reader that skips too little or too much misses the next type.
    every = Btf()
    follows = {1: 1, 3: 3, 14: 1, 17: 1}
    each = {4: 3, 5: 3, 6: 2, 13: 2, 15: 3, 19: 3}
    for kind in range(1, 20):
        count = 2 if kind in each else 3 if kind in (7, 12) else 0
        every.type(kind, 0, 0, *[0] * (follows.get(kind, 0) + each.get(kind, 0) * count), count=count)
    yield "every-kind", accepted, "scheduler", with_maps(ops(every), LINK)
    yield "every-kind-denied", denied, "points", with_maps(ops(every), LINK)
    # Counts of kinds that have no members.
    counted = Btf()
    for kind, words in follows.items():
        counted.type(kind, 0, 0, *[0] * words, count=4)
    yield "counts-without-members", accepted, "scheduler", with_maps(ops(counted), LINK)
    for name, rest in (
        ("head", b"\0" * 11),
        ("members", struct.pack("<III", 0, STRUCT << 24 | 1, 8) + bytes(11)),
    ):
        cut = ops(Btf())
        cut.types += rest
        yield f"cut-off-{name}", denied, "all-points", with_maps(cut, LINK)
    for name, offset in (("end", None), ("far", 2**32 - 1)):
        outside = Btf()
        # Two names are added before the end.
        at = len(outside.names) + len(b"ops") + 1 + len(LINK) + 1 if offset is None else offset
        outside.group(LINK, outside.variable(b"ops", outside.type(STRUCT, at, 8)))
        yield f"name-outside-{name}", denied, "all-points", with_maps(outside, LINK)
    yield from _limit_cases()


def _limit_cases() -> Iterator[tuple[str, str, str, Recipe]]:
    denied = "denied-by-policy"
    unnamed = Btf()
    unnamed.type(DATASEC, 2**32 - 1)
    yield "group-name-outside", denied, "all-points", with_maps(ops(unnamed), LINK)
    member = Btf()
    number = member.type(STRUCT, 0, 8, 2**32 - 1, 0, 0, count=1)
    member.group(b".maps", member.variable(b"m", number))
    yield "member-name-outside", denied, "all-points", with_maps(member, b".maps")
    behind = ops(Btf())
    behind.type(DATASEC, len(behind.names))
    yield "group-name-behind-the-names", "denied-by-policy", "all-points", with_maps(behind, LINK)
    # 64 variables share a struct of 1023 members: 65,536 in all. The zero offset is the empty name.
    for extra, expect in ((0, "accepted"), (1, "denied-by-policy")):
        many = Btf()
        number = many.type(STRUCT, 0, 8, *[0] * 3 * 1023, count=1023)
        many.group(b".maps", *[many.variable(b"m", number)] * 64)
        many.group(b".struct_ops", *[many.variable(b"v", many.struct(SCHEDULER))] * extra)
        yield f"entries-{65_536 + extra}", expect, "all-points", with_maps(many, b".maps")
    last = Btf()
    number = last.type(STRUCT, 0, 8, *[0] * 3 * 1023, count=1023)
    larger = last.type(STRUCT, 0, 8, *[0] * 3 * 1024, count=1024)
    last.group(b".maps", *[last.variable(b"m", number)] * 63, last.variable(b"m", larger))
    yield "members-65537", "denied-by-policy", "all-points", with_maps(last, b".maps")


def _header_cases() -> Iterator[tuple[str, str, str, Recipe]]:
    denied, accepted = "denied-by-policy", "accepted"
    whole = ops(Btf())
    types, names = len(whole.types), len(whole.names)
    for name, header, expect in (
        ("magic", {"magic": 0x9FEB}, denied),
        ("version", {"version": 2}, denied),
        ("flags", {"flags": 255}, accepted),
        ("short", {"header": 20}, denied),
        ("long", {"header": 28}, denied),
        ("far", {"header": 2**32 - 1}, denied),
        ("types-far", {"type_at": 2**32 - 1}, denied),
        ("types-long", {"type_size": types + names + 1}, denied),
        ("types-huge", {"type_size": 2**32 - 1}, denied),
        ("names-far", {"name_at": 2**32 - 1}, denied),
        ("names-long", {"name_size": names + 1}, denied),
        ("names-none", {"name_size": 0}, denied),
        ("names-without-end", {"name_size": names - 1}, denied),
        ("types-none", {"type_size": 0}, denied),
    ):
        yield f"btf-{name}", expect, "scheduler", with_maps(whole.part(**header), LINK)
    behind = whole.part(type_at=names, name_at=0)
    behind = replace(behind, data=behind.data[:24] + whole.names + whole.types)
    yield "btf-types-behind-names", accepted, "scheduler", with_maps(behind, LINK)
    yield "btf-types-behind-names-denied", denied, "points", with_maps(behind, LINK)
    # The tables are where they would be with a header of 24 bytes.
    shorter = whole.part(header=23, type_at=1, name_at=types + 1)
    yield "btf-header-of-23-bytes", denied, "scheduler", with_maps(shorter, LINK)
    # A longer header, with the tables moved back to where they are.
    moved = whole.part(header=28, name_at=types)
    moved = replace(moved, data=moved.data[:24] + bytes(4) + moved.data[24:])
    yield "btf-longer-header", accepted, "scheduler", with_maps(moved, LINK)
    yield "btf-trailing-bytes", accepted, "scheduler", with_maps(replace(moved, data=moved.data + b"x"), LINK)
    for size in (0, 23):
        yield (
            f"btf-of-{size}-bytes",
            denied,
            "all-points",
            with_maps(Part(name=b".BTF", data=whole.part().data[:size]), LINK),
        )
    good = whole.part()
    missing = makes(code(), data(LINK))
    yield "btf-missing", denied, "all-points", missing
    yield "btf-missing-for-maps", denied, "all-points", makes(code(), data(b".maps"))
    yield "btf-missing-without-maps", accepted, "xdp-only", makes(code(), data(b".data"))
    yield "btf-twice", denied, "all-points", with_maps(good, LINK, good)
    yield "btf-without-bits", denied, "all-points", with_maps(replace(good, type=SHT_NOBITS), LINK)
    note = replace(good, type=7)
    yield "btf-in-note", denied, "all-points", with_maps(note, LINK)
    damaged = Part(name=b".BTF", data=b"damaged")
    yield "btf-damaged-without-maps", accepted, "xdp-only", with_maps(damaged, b".data")
    yield "btf-damaged-without-rule", accepted, "denied-kfuncs", with_maps(damaged, LINK)


def big_endian_cases() -> Iterator[tuple[str, str, str, Recipe]]:
    """Yield cases of `map_cases` in big-endian byte order."""
    types = ops(pinned(Btf(">")))
    recipe = with_maps(types, LINK, b".maps", order=">")
    yield "maps", "accepted", "scheduler-and-pins", recipe
    yield "maps-type-denied", "denied-by-policy", "xdp-only", recipe
    yield "maps-pin-denied", "denied-by-policy", "scheduler", recipe
    yield "maps-struct-ops-denied", "denied-by-policy", "pins", recipe
    little = with_maps(ops(Btf("<")), LINK, order=">")
    yield "maps-btf-of-the-other-order", "denied-by-policy", "all-points", little
