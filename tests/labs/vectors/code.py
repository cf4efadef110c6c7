# SPDX-License-Identifier: Apache-2.0
"""Objects whose code calls helpers and kernel functions, in valid and in unusual ways."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from labs.vectors.builder import SHT_PROGBITS, SHT_STRTAB, Part, Recipe, statement

EXIT = bytes.fromhex("9500000000000000")
SHT_SYMTAB, SHT_RELA, SHT_REL, FLAGS_OF_CODE = 2, 4, 9, 6
NAMES = b"\0bpf_a\0bpf_b\0local\0"
UNDEFINED, DEFINED = 0, 1
# name offset, section
SYMBOLS = ((0, UNDEFINED), (1, UNDEFINED), (7, UNDEFINED), (13, DEFINED))


def call(number: int, source: int = 0, order: str = "<") -> bytes:
    """Return a call instruction: of helper *number*, or of another kind by *source*."""
    registers = source << 4 if order == "<" else source
    return struct.pack(f"{order}BBHI", 0x85, registers, 0, number)


def code(*slots: bytes, name: bytes = b"xdp") -> Part:
    """Return a code section of *slots* and an exit."""
    return Part(name=name, data=b"".join(slots) + EXIT, flags=FLAGS_OF_CODE)


def relocated(
    *slots: bytes,
    entries: Iterable[tuple[int, int]] = ((0, 1),),
    order: str = "<",
    rel: dict[str, int] | None = None,
    symtab: dict[str, int] | None = None,
    names: bytes = NAMES,
    symbols: Iterable[tuple[int, int]] = SYMBOLS,
    visibility: int = 0,
    value: int = 0,
) -> tuple[Part, ...]:
    """Return sections 1 code, 2 names, 3 symbols, 4 relocations: *entries* of offset and symbol."""
    packed = b"".join(
        struct.pack(f"{order}IBBHQQ", name, 16, visibility, home, value, 0) for name, home in symbols
    )
    table = b"".join(struct.pack(f"{order}QII", at, *_info(symbol, order)) for at, symbol in entries)
    return (
        code(*slots),
        Part(name=b".names", data=names, type=SHT_STRTAB),
        Part(
            name=b".symtab", data=packed, type=SHT_SYMTAB, fields={"link": 2, "entsize": 24} | (symtab or {})
        ),
        Part(
            name=b".relxdp",
            data=table,
            type=SHT_REL,
            fields={"link": 3, "info": 1, "entsize": 16} | (rel or {}),
        ),
    )


def _info(symbol: int, order: str) -> tuple[int, int]:
    return (10, symbol) if order == "<" else (symbol, 10)


def makes(*parts: Part, order: str = "<", size: int = 1024, **listed: Any) -> Recipe:
    """Return the recipe of an object of *parts* whose statement has the lists *listed*."""
    if order == ">":
        listed["platform"] = "linux/s390x"
    return Recipe(order=order, parts=parts, statement=statement(**listed), sig_size=size)


KFUNC = call(2**32 - 1, source=1)


def helper_cases() -> Iterator[tuple[str, str, str, Recipe]]:
    """Yield name, expectation, store and recipe."""
    denied, accepted = "denied-by-policy", "accepted"
    yield "allowed", accepted, "denied-helpers", makes(code(call(1), call(5)), helpers=[1, 5])
    yield "more-listed-than-called", accepted, "denied-helpers", makes(code(call(1)), helpers=[1, 36])
    yield "denied", denied, "denied-helpers", makes(code(call(1), call(36)), helpers=[1, 36])
    yield "denied-and-unlisted", denied, "denied-helpers", makes(code(call(36)))
    yield "unlisted", denied, "denied-helpers", makes(code(call(1)))
    yield "unlisted-among-listed", denied, "no-denied-helpers", makes(code(call(2)), helpers=[1, 3])
    yield "listed", accepted, "no-denied-helpers", makes(code(call(2)), helpers=[1, 2, 3])
    yield "unlisted-without-rule", accepted, "alice", makes(code(call(1)))
    yield "unlisted-with-another-rule", accepted, "no-denied-kfuncs", makes(code(call(1)))
    yield "largest-number", denied, "no-denied-helpers", makes(code(call(2**32 - 1)), helpers=[2**31])
    yield (
        "largest-number-listed",
        accepted,
        "no-denied-helpers",
        makes(code(call(2**32 - 1)), helpers=[2**32 - 1]),
    )
    yield "in-text", denied, "denied-helpers", makes(code(call(36), name=b".text"), helpers=[36])
    yield (
        "in-second-section",
        denied,
        "denied-helpers",
        makes(code(), code(call(36), name=b"tc"), helpers=[36]),
    )
    load = bytes.fromhex("1801000000000000")
    yield "in-second-half-of-load", denied, "denied-helpers", makes(code(load, call(36)), helpers=[36])
    yield (
        "bytes-that-are-no-call",
        accepted,
        "denied-helpers",
        makes(code(bytes((0xB7, 0x85, 0, 0, 0x85, 0, 0, 0)))),
    )
    yield "local-call", accepted, "denied-helpers", makes(code(call(36, source=1)))
    yield "call-by-number-of-kfunc", denied, "no-denied-helpers", makes(code(call(1, source=2)), helpers=[1])
    yield "source-15", denied, "no-denied-helpers", makes(code(call(1, source=15)), helpers=[1])
    half = Part(name=b"xdp", data=EXIT + b"\x85\0\0\0", flags=FLAGS_OF_CODE)
    yield "half-an-instruction", denied, "no-denied-helpers", makes(half)
    data = Part(name=b".data", data=call(36), flags=3)
    yield "call-in-data", accepted, "denied-helpers", makes(code(), data)
    note = Part(name=b"xdp", data=call(36), type=7, flags=FLAGS_OF_CODE)
    yield "call-in-note", accepted, "denied-helpers", makes(note)
    no_call = Part(name=b"xdp", data=EXIT + b"\xb7\0\0\0", flags=FLAGS_OF_CODE)
    yield "half-an-instruction-that-is-no-call", denied, "no-denied-helpers", makes(no_call)
    yield "call-by-number-of-kfunc-without-rule", accepted, "alice", makes(code(call(1, source=2)))
    empty = Part(name=b"xdp", data=b"", flags=FLAGS_OF_CODE)
    yield "empty-section", accepted, "denied-helpers", makes(empty)


def kfunc_cases() -> Iterator[tuple[str, str, str, Recipe]]:
    """Yield name, expectation, store and recipe."""
    denied, accepted = "denied-by-policy", "accepted"
    one, both = relocated(KFUNC, entries=((0, 2),)), relocated(KFUNC, KFUNC, entries=((0, 2), (8, 1)))
    a, b, ab = ({"kfuncs": names} for names in (["bpf_a"], ["bpf_b"], ["bpf_a", "bpf_b"]))
    yield "allowed", accepted, "denied-kfuncs", makes(*one, **b)
    yield "denied", denied, "denied-kfuncs", makes(*both, **ab)
    yield "unlisted", denied, "denied-kfuncs", makes(*one)
    yield "unlisted-without-rule", accepted, "denied-helpers", makes(*one)
    yield "listed", accepted, "no-denied-kfuncs", makes(*both, **ab)
    yield "other-listed", denied, "no-denied-kfuncs", makes(*one, **a)
    yield "with-source-of-helper", denied, "denied-kfuncs", makes(*relocated(call(1)), **a)
    for name, expect in (
        ("bpf_a___v2", denied),
        ("bpf_a___", accepted),
        ("bpf_a____v2", accepted),
        ("___bpf_a", accepted),
        ("bpf_b___bpf_a", accepted),
        ("bpf_a___x___y", accepted),
        ("bpf_a___x_y", denied),
        ("bpf_a____", accepted),
        ("bpf_a___\xe9", denied),
        ("bpf_a__x", accepted),
        ("bpf_a__xy", accepted),
    ):
        flavoured = relocated(KFUNC, names=b"\0" + name.encode() + b"\0")
        yield f"flavour-{name!a}", expect, "denied-kfuncs", makes(*flavoured, kfuncs=[name])
    for size, expect in ((512, accepted), (513, denied)):
        long = relocated(KFUNC, names=b"\0" + b"k" * size + b"\0")
        yield (
            f"name-of-{size}-bytes",
            expect,
            "no-denied-kfuncs",
            makes(*long, size=2048, kfuncs=["k" * size]),
        )
    yield "defined-symbol", accepted, "no-denied-kfuncs", makes(*relocated(KFUNC, entries=((0, 3),)))
    yield (
        "address-of-symbol",
        accepted,
        "no-denied-kfuncs",
        makes(*relocated(bytes.fromhex("1801000000000000"), bytes(8))),
    )
    yield "null-symbol", denied, "no-denied-kfuncs", makes(*relocated(KFUNC, entries=((0, 0),)), **ab)
    yield "symbol-outside", denied, "no-denied-kfuncs", makes(*relocated(KFUNC, entries=((0, 4),)), **ab)
    # What follows the table would be a defined symbol, of which a relocation is no call.
    cut = relocated(KFUNC, entries=((0, 3),), symtab={"size": 72})
    yield "symbol-behind-the-table", denied, "no-denied-kfuncs", makes(*cut, **ab)
    yield "offset-outside", denied, "no-denied-kfuncs", makes(*relocated(KFUNC, entries=((16, 3),)), **ab)
    yield (
        "offset-wraps",
        denied,
        "no-denied-kfuncs",
        makes(*relocated(KFUNC, entries=((2**64 - 8, 3),)), **ab),
    )
    yield "offset-inside-slot", denied, "no-denied-kfuncs", makes(*relocated(KFUNC, entries=((4, 3),)), **ab)
    yield (
        "relocation-entry-size",
        denied,
        "no-denied-kfuncs",
        makes(*relocated(KFUNC, rel={"entsize": 24}), **ab),
    )
    yield "relocation-half-entry", denied, "no-denied-kfuncs", makes(*relocated(KFUNC, rel={"size": 8}), **ab)
    yield (
        "relocations-of-other-section",
        accepted,
        "no-denied-kfuncs",
        makes(*relocated(KFUNC, rel={"info": 2})),
    )
    yield (
        "relocations-of-no-section",
        accepted,
        "no-denied-kfuncs",
        makes(*relocated(KFUNC, rel={"info": 2**32 - 1})),
    )
    yield (
        "symbol-entry-size",
        denied,
        "no-denied-kfuncs",
        makes(*relocated(KFUNC, symtab={"entsize": 16}), **ab),
    )
    yield "symbol-half-entry", denied, "no-denied-kfuncs", makes(*relocated(KFUNC, symtab={"size": 95}), **ab)
    yield "names-no-section", denied, "no-denied-kfuncs", makes(*relocated(KFUNC, symtab={"link": 99}), **ab)
    yield "names-no-strings", denied, "no-denied-kfuncs", makes(*relocated(KFUNC, symtab={"link": 1}), **ab)
    no_strings = (one[0], replace(one[1], type=SHT_PROGBITS), *one[2:])
    yield "names-in-data", denied, "no-denied-kfuncs", makes(*no_strings, **ab)
    yield "names-without-end", denied, "no-denied-kfuncs", makes(*relocated(KFUNC, names=NAMES + b"x"), **ab)
    yield "names-empty", denied, "no-denied-kfuncs", makes(*relocated(KFUNC, names=b""), **ab)
    yield "name-outside", denied, "no-denied-kfuncs", makes(*relocated(KFUNC, names=b"\0"), **ab)
    twice = (*one, replace(one[2], name=b".symtab2"))
    yield "two-symbol-tables", denied, "no-denied-kfuncs", makes(*twice, **ab)
    yield (
        "no-symbol-table",
        denied,
        "no-denied-kfuncs",
        makes(one[0], one[1], replace(one[2], type=SHT_PROGBITS), one[3], **ab),
    )
    yield (
        "rela-is-no-relocation",
        accepted,
        "no-denied-kfuncs",
        makes(*one[:3], replace(one[3], type=SHT_RELA)),
    )
    twice_relocated = (*one, replace(relocated(KFUNC)[3], name=b".again"))
    yield "second-relocation-section", denied, "denied-kfuncs", makes(*twice_relocated, **ab)
    yield from _kfunc_edge_cases()


def _kfunc_edge_cases() -> Iterator[tuple[str, str, str, Recipe]]:
    """Yield cases at the edges of fields and tables."""
    denied, accepted = "denied-by-policy", "accepted"
    a, ab = {"kfuncs": ["bpf_a"]}, {"kfuncs": ["bpf_a", "bpf_b"]}
    yield "offset-far", denied, "no-denied-kfuncs", makes(*relocated(KFUNC, entries=((2**56, 3),)), **ab)
    odd = relocated(KFUNC, entries=((4, 1),), rel={"info": 2})
    yield "odd-relocations-of-other-section", accepted, "no-denied-kfuncs", makes(*odd)
    # Seven sections: with the null section, .sig and the names of sections.
    yield (
        "relocations-of-the-section-behind-the-last",
        accepted,
        "no-denied-kfuncs",
        makes(*relocated(KFUNC, rel={"info": 7})),
    )
    yield (
        "names-behind-the-last",
        denied,
        "no-denied-kfuncs",
        makes(*relocated(KFUNC, symtab={"link": 7}), **ab),
    )
    # Without a rule for kernel functions, no other check reads the name.
    yield "name-outside-without-rule", denied, "denied-helpers", makes(*relocated(KFUNC, names=b"\0"))
    yield (
        "undefined-symbol-with-visibility",
        denied,
        "denied-kfuncs",
        makes(*relocated(KFUNC, visibility=1), **a),
    )
    yield "undefined-symbol-with-value", denied, "denied-kfuncs", makes(*relocated(KFUNC, value=1), **a)
    far = relocated(KFUNC, symbols=((0, UNDEFINED), (1, 256)))
    yield "symbol-defined-in-section-256", accepted, "no-denied-kfuncs", makes(*far)


def overlap_cases() -> Iterator[tuple[str, str, str, Recipe]]:
    """Yield objects with overlapping sections, whose sizes together exceed the file or not."""
    block = 1024  # as large as the signature: twice is less than the file, three times is more
    slots = code(*[bytes.fromhex("b700000000000000")] * (block // 8 - 1))
    entries = relocated(KFUNC, entries=((0, 3),) * (block // 16))
    # The file's header has 64 bytes, and a section begins at a multiple of 8.
    behind_others = 64 + sum(-(-len(part.data) // 8) * 8 for part in entries[:3])
    for count, expect in ((2, "accepted"), (3, "denied-by-policy")):
        same = Part(name=b"tc", data=b"", flags=FLAGS_OF_CODE, fields={"offset": 64, "size": block})
        yield f"code-{count}-times", expect, "no-denied-helpers", makes(slots, *[same] * (count - 1))
        place = entries[3].fields | {"offset": behind_others, "size": block}
        again = Part(name=b".again", data=b"", type=SHT_REL, fields=place)
        parts = (*entries, *[again] * (count - 1))
        yield f"relocations-{count}-times", expect, "no-denied-kfuncs", makes(*parts)


def section_cases() -> Iterator[tuple[str, str, str, Recipe]]:
    """Yield name, expectation, store and recipe."""
    denied, accepted = "denied-by-policy", "accepted"
    for name, expect in (
        (b"xdp", accepted),
        (b"?xdp", accepted),
        (b"xdp.frags/devmap", accepted),
        (b"tc", denied),
        (b"??xdp", denied),
        (b"xdp/eth0", denied),
        (b"XDP", denied),
        (b".text", accepted),
        (b"\xff", denied),
    ):
        yield f"type-of-{name.decode('latin-1')!a}", expect, "xdp-only", makes(code(name=name))
    for name, expect in (
        (b"nothing", accepted),
        (b"kprobe+", accepted),
        (b"socket", denied),
        (b"netfilter", denied),
        (b"fentry/x", denied),
        (b"fentry", denied),
        (b"fentrY", accepted),
        (b"fentryx", accepted),
        (b"fentryxy", accepted),
        (b"\xff", accepted),
    ):
        yield f"unspec-{name.decode('latin-1')!a}", expect, "unspec-only", makes(code(name=name))
    for name, expect in (
        (b"xdp", accepted),
        (b"?xdp", accepted),
        (b"xdp.frags", denied),
        (b"cgroup/", accepted),
        (b"cgroup/connect4", accepted),
        (b"?cgroup/connect4", accepted),
        (b"cgroup", denied),
        (b"kprobe/do_unlinkat", accepted),
        (b"kprobe/vfs_read", denied),
        (b".text", accepted),
    ):
        yield f"point-{name.decode()}", expect, "points", makes(code(name=name))
    yield "point-any", accepted, "all-points", makes(code(name=b"\xff\xfe"))
    yield "point-none", denied, "no-points", makes(code())
    yield "point-second-section", denied, "points", makes(code(), code(name=b"tc"))
    yield "type-of-code-not-of-statement", denied, "xdp-only", makes(code(name=b"kprobe/x"), programs=[])
    for name, expect in (
        (b"uprobe//opt/app/x:y", accepted),
        (b"uprobe//opt/app/../../bin/sh:y", denied),
        (b"uprobe//opt/app/..", accepted),
        (b"uprobe//opt/app/..x/../y:z", denied),
    ):
        yield f"way-out-{name.decode()}", expect, "app-points", makes(code(name=name))
    yield "way-out-exactly", denied, "app-points", makes(code(name=b"uprobe//a/../b:c"))
    for size, expect in ((512, accepted), (513, denied)):
        yield f"name-of-{size}-bytes", expect, "all-points", makes(code(name=b"s" * size))
    yield "type-with-unreadable-code", denied, "all-points", makes(code(call(1, source=3)))
