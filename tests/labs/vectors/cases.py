# SPDX-License-Identifier: Apache-2.0
"""
The vectors: objects that a verifier must accept, and objects with one fault each.

Each case is signed correctly, except for the fault in its name.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from labs.vectors.builder import (
    ALICE,
    BOB,
    CAROL,
    CODE,
    LICENSE,
    MALLORY,
    SHT_NOBITS,
    Part,
    Recipe,
    build,
    pae,
    sign,
    statement,
)
from labs.vectors.case import Case, put, table
from labs.vectors.points import ORDER, forge
from labs.vectors.policies import clock_cases, code_cases, declared_cases, number_cases, policy_cases
from labs.vectors.rewrites import rewrites
from labs.vectors.settable import settable_cases
from labs.vectors.statements import bad_statements, predicate, swap
from labs.vectors.trust import NOW


def cases() -> Iterator[Case]:
    """Yield all cases."""
    for name, recipe in _accepted():
        yield Case(name=name, expect="accepted", recipe=recipe)
    yield from _accepted_with_trust()
    yield from _profile()
    yield from _section()
    for name, edit in _records():
        yield Case(name=f"record-{name}", expect="malformed", recipe=Recipe(record=edit))
    yield from _signatures()
    for name, recipe in bad_statements():
        yield Case(name=f"statement-{name}", expect="malformed", recipe=recipe)
    yield from _content()
    yield from policy_cases()
    yield from code_cases()
    yield from declared_cases()
    yield from clock_cases()
    yield from number_cases()
    yield from settable_cases()
    for name, expect, platform, recipe in rewrites():
        yield Case(name=name, expect=expect, platform=platform, recipe=recipe)


RICH = statement(
    programs=[
        {"name": "count", "section": "xdp", "type": "xdp", "attach": ["eth0"]},
        {"name": "egress", "section": "tc", "type": "sched_cls"},
    ],
    maps=[{"name": "m", "type": "hash", "keySize": 4, "valueSize": 8, "maxEntries": 16}],
    helpers=[1, 2, 131],
    kfuncs=["bpf_rcu_read_lock", "bpf_rcu_read_unlock"],
    notAfter=NOW,
    toolchain={"compiler": "clang 19.1.7", "flags": ["-O2", "-g"]},
    source={"path": "bpf/x.bpf.c", "sha256": "0" * 64},
)
BIG = Recipe(order=">", statement=statement(platform="linux/s390x"))


def _move_license(data: bytearray) -> None:
    """Move the license behind the table of sections, to the end of the file."""
    table(2, 24, "<Q", len(data))(data)
    data.extend(LICENSE.data)


def _names_first(data: bytearray) -> None:
    """Exchange the entries of the names (4) and of the code (1)."""
    at = struct.unpack_from("<Q", data, 40)[0] + 64
    data[at : at + 64], data[at + 192 : at + 256] = data[at + 192 : at + 256], data[at : at + 64]
    put(62, "<H", 1)(data)


def _accepted() -> Iterator[tuple[str, Recipe]]:
    yield "plain", Recipe()
    yield "all-members", Recipe(statement=RICH, sig_size=2048)
    yield "unaligned-section", Recipe(pad=1)
    yield "larger-section", Recipe(sig_size=4096)
    yield "unknown-cosigner", Recipe(signers=(ALICE, MALLORY))
    yield "gap-between-sections", Recipe(shape=table(1, 32, "<Q", 8))
    yield "others-overlap", Recipe(shape=table(2, 24, "<Q", 64))
    yield "nobits-anywhere", Recipe(parts=(CODE, Part(name=b".bss", data=b"", type=SHT_NOBITS, fields=_FAR)))
    yield "null-section-anywhere", Recipe(parts=(CODE, Part(name=b"old", data=b"", type=0, fields=_FAR)))
    yield "names-in-section-1", Recipe(shape=_names_first)
    yield "section-behind-the-table", Recipe(shape=_move_license)
    yield "odd-alignment-field", Recipe(shape=table(3, 48, "<Q", 3))
    yield (
        "members-in-other-order",
        Recipe(
            text=lambda text: text.replace(b'"_type":"https://in-toto.io/Statement/v1",', b"").replace(
                b"]}", b'],"_type":"https://in-toto.io/Statement/v1"}'
            )
        ),
    )
    yield "white-space", swap(b'"version":3', b'\n\t "version" :\r 3 ')
    yield "minus-zero", swap(b'"version":3', b'"version":-0')
    yield "largest-version", predicate(version=2**53 - 1)
    yield "utf-8-release", swap(b'"release":"1.0"', '"release":"1.0-\u00e4\U0001f600"'.encode())
    yield "surrogate-pair", swap(b'"release":"1.0"', b'"release":"\\ud83d\\ude00"')
    yield "release-of-128-bytes", predicate(release="r" * 128)
    yield "leap-day", predicate(created="2024-02-29T23:59:59Z")
    yield "year-9999", predicate(notAfter="9999-12-31T23:59:59Z")


_FAR = {"offset": 2**64 - 8, "size": 2**63}


def _accepted_with_trust() -> Iterator[Case]:
    plain = Recipe()
    yield Case(name="big-endian", expect="accepted", recipe=BIG, platform="linux/s390x")
    yield Case(name="pub-with-crlf", expect="accepted", recipe=plain, trust="crlf")
    yield Case(name="pub-with-other-white-space", expect="accepted", recipe=plain, trust="wrapped")
    yield Case(name="hidden-pub", expect="unknown-key", recipe=Recipe(signers=(MALLORY,)), trust="hidden-pub")
    yield Case(name="one-of-64-keys", expect="accepted", recipe=plain, trust="policy-64-keys")
    yield Case(name="policy-hides-pub", expect="accepted", recipe=plain, trust="policy-before-pub")
    yield Case(
        name="two-trusted", expect="accepted", recipe=Recipe(signers=(ALICE, BOB)), trust="alice-and-bob"
    )
    yield Case(
        name="two-of-three", expect="accepted", recipe=Recipe(signers=(ALICE, CAROL)), trust="two-of-three"
    )
    yield Case(
        name="revoked-beside-good", expect="accepted", recipe=Recipe(signers=(ALICE, BOB)), trust="revoked"
    )
    yield Case(name="key-validity-ends-included", expect="accepted", recipe=plain, trust="key-expires-now")
    brackets = "brackets-in-a-name"
    yield Case(name=f"policy-{brackets}", expect="accepted", recipe=plain, trust=brackets)
    yield Case(name="project-allowed", expect="accepted", recipe=plain, trust="project-demo")
    yield Case(name="minimum-version-met", expect="accepted", recipe=plain, trust="minimum-3")
    no_code = Recipe(parts=(LICENSE,))
    yield Case(name="no-programs-no-types", expect="accepted", recipe=no_code, trust="no-types")


def _profile() -> Iterator[Case]:
    plain = build(Recipe())

    def shape(name: str, edit: Callable[[bytearray], object]) -> Case:
        return Case(name=f"elf-{name}", expect="malformed", recipe=Recipe(shape=edit))

    yield Case(name="elf-empty", expect="malformed", data=b"")
    yield Case(name="elf-text", expect="malformed", data=b"#!/bin/sh\n")
    yield Case(name="elf-magic-only", expect="malformed", data=plain[:4])
    yield Case(name="elf-header-cut", expect="malformed", data=plain[:63])
    yield Case(name="elf-header-alone", expect="malformed", data=plain[:64])
    yield Case(name="elf-cut-by-one", expect="malformed", data=plain[:-1])
    yield Case(name="elf-one-byte-more", expect="malformed", data=plain + b"\0")
    yield shape("32-bit", put(4, "B", 1))
    yield shape("byte-order-0", put(5, "B", 0))
    yield shape("byte-order-3", put(5, "B", 3))
    yield shape("ident-version", put(6, "B", 2))
    yield shape("executable", put(16, "<H", 2))
    yield shape("machine-x86-64", put(18, "<H", 62))
    yield shape("version", put(20, "<I", 2))
    yield shape("section-table-at-0", put(40, "<Q", 0))
    yield shape("section-table-wraps", put(40, "<Q", 2**64 - 64))
    yield shape("header-size", put(52, "<H", 52))
    yield shape("program-headers", put(56, "<H", 1))
    yield shape("entry-size", put(58, "<H", 40))
    yield shape("no-sections", put(60, "<H", 0))
    yield shape("one-section", put(60, "<H", 1))
    yield shape("extended-numbering", put(60, "<H", 65280))
    yield shape("names-in-section-0", put(62, "<H", 0))
    yield shape("names-past-the-end", put(62, "<H", 5))
    yield shape("names-not-a-string-table", put(62, "<H", 2))
    yield shape("section-0-used", table(0, 4, "<I", 1))
    yield shape("section-0-name-outside", table(0, 0, "<I", 2**32 - 1))
    yield shape("name-outside", table(1, 0, "<I", 2**31))
    yield shape("section-outside", table(1, 32, "<Q", 2**20))
    yield shape("section-wraps", table(1, 24, "<Q", 2**64 - 8))
    yield shape("names-empty", table(4, 32, "<Q", 0))
    yield shape("names-outside", table(4, 24, "<Q", 2**40))
    yield shape("names-without-end", lambda data: put(data.index(b".strtab\0") + 7, "B", 65)(data))
    yield Case(name="unsigned", expect="unsigned", recipe=Recipe(sig=None))
    yield Case(name="unsigned-big-endian", expect="unsigned", recipe=Recipe(sig=None, order=">"))
    yield Case(
        name="unsigned-similar-name",
        expect="unsigned",
        recipe=Recipe(sig=None, parts=(CODE, Part(name=b".sig2", data=b"x"), Part(name=b".SIG", data=b"y"))),
    )


def _section() -> Iterator[Case]:
    def shape(name: str, edit: Callable[[bytearray], object]) -> Case:
        return Case(name=f"section-{name}", expect="malformed", recipe=Recipe(shape=edit))

    two = Recipe(parts=(CODE, Part(name=b".sig", data=b"\0")))
    yield Case(name="section-twice", expect="malformed", recipe=two)
    suffix = Part(name=b"x.sig", data=b"\0")

    def name_by_suffix(data: bytearray) -> None:
        table(2, 0, "<I", struct.unpack_from("<I", data, struct.unpack_from("<Q", data, 40)[0] + 128)[0] + 1)(
            data
        )

    twice = Recipe(parts=(CODE, suffix), shape=name_by_suffix)
    yield Case(name="section-twice-by-shared-name", expect="malformed", recipe=twice)
    nobits = Recipe(sig=None, parts=(CODE, Part(name=b".sig", data=b"", type=SHT_NOBITS)))
    yield Case(name="section-nobits", expect="malformed", recipe=nobits)
    null = Recipe(sig=None, parts=(CODE, Part(name=b".sig", data=b"", type=0)))
    yield Case(name="section-null", expect="malformed", recipe=null)
    empty = Recipe(sig=None, parts=(CODE, Part(name=b".sig", data=b"")))
    yield Case(name="section-empty", expect="malformed", recipe=empty)
    yield shape("strtab-type", table(3, 4, "<I", 3))
    yield shape("allocated", table(3, 8, "<Q", 2))
    yield shape("address", table(3, 16, "<Q", 1))
    yield shape("link", table(3, 40, "<I", 1))
    yield shape("info", table(3, 44, "<I", 1))
    yield shape("entry-size", table(3, 56, "<Q", 1))
    yield shape("overlaps-header", table(3, 24, "<Q", 0))
    yield shape("overlaps-other", table(1, 32, "<Q", 64))
    yield shape("overlapped-by-its-last-byte", _overlap_last_byte)

    def over_table(data: bytearray) -> None:
        at = struct.unpack_from("<Q", data, 40)[0]
        table(3, 24, "<Q", at - 1023)(data)

    # Move the string table first: it is between the sections and would be overlapped, too.
    yield shape("overlaps-table", over_table)


def _overlap_last_byte(data: bytearray) -> None:
    """Move the license, so that it begins at the last byte of `.sig`."""
    start = struct.unpack_from("<Q", data, struct.unpack_from("<Q", data, 40)[0] + 64 * 3 + 24)[0]
    table(2, 24, "<Q", start + 1023)(data)


def _records() -> Iterator[tuple[str, Callable[[bytearray], object]]]:
    yield "magic", put(6, "B", 0x48)
    yield "version-0", put(8, "<I", 0)
    yield "version-2", put(8, "<I", 2)
    yield "section-size-other", put(12, "<I", 2048)
    yield "statement-size-0", put(16, "<I", 0)
    yield "statement-size-over", put(16, "<I", 65537)
    yield "statement-size-wraps", put(16, "<I", 2**32 - 32)
    yield "statement-leaves-no-room", put(16, "<I", 1024 - 32 - 96 * 4 + 1)
    yield "count-0", put(20, "<I", 0)
    yield "count-17", put(20, "<I", 17)
    yield "count-wraps", put(20, "<I", 2**32 // 96 + 1)
    yield "count-over-the-section", put(20, "<I", 16)
    yield "count-of-one-more", put(20, "<I", 2)
    yield "reserved", put(31, "B", 1)
    yield "padding", put(-1, "B", 1)


def _signatures() -> Iterator[Case]:
    def refused(name: str, expect: str = "bad-signature", trust: str = "alice", **recipe: Any) -> Case:
        return Case(name=f"signature-{name}", expect=expect, trust=trust, recipe=Recipe(**recipe))

    def entry(make: Callable[[bytes], bytes]) -> Callable[[bytes], list[tuple[bytes, bytes]]]:
        return lambda text: [(ALICE.key_id, make(text))]

    def flip(at: int) -> Callable[[bytes], list[tuple[bytes, bytes]]]:
        def change(text: bytes) -> bytes:
            good = bytearray(ALICE.private.sign(pae(text)))
            good[at] ^= 1
            return bytes(good)

        return entry(change)

    def add_order(text: bytes) -> bytes:
        good = ALICE.private.sign(pae(text))
        return good[:32] + (int.from_bytes(good[32:], "little") + ORDER).to_bytes(32, "little")

    yield refused("r-changed", entries=flip(0))
    yield refused("s-changed", entries=flip(32))
    yield refused("zero", entries=entry(lambda _: bytes(64)))
    yield refused("s-plus-order", entries=entry(add_order))
    yield refused("over-statement-without-pae", entries=entry(ALICE.private.sign))
    yield refused("over-other-type", entries=entry(lambda text: ALICE.private.sign(pae(text, b"text/plain"))))
    yield refused("of-other-statement", entries=entry(lambda text: ALICE.private.sign(pae(text + b" "))))
    yield refused("of-other-key", entries=entry(lambda text: BOB.private.sign(pae(text))))
    for kind in ("identity-r", "small-order-r", "mixed-order-r", "non-canonical-r"):
        yield refused(kind, entries=entry(lambda text, kind=kind: forge(ALICE.seed, pae(text), kind)))

    def one_bad(text: bytes) -> list[tuple[bytes, bytes]]:
        return sorted([(ALICE.key_id, bytes(64)), *sign(text, (BOB,))])

    yield refused("one-good-one-bad", trust="alice-and-bob", entries=one_bad)
    yield refused("bad-of-revoked-key", trust="revoked", entries=one_bad)
    yield refused(
        "bad-of-unknown-key",
        "accepted",
        "alice",
        entries=lambda text: sorted([(BOB.key_id, bytes(64)), *sign(text, (ALICE,))]),
    )
    yield refused("unknown-key", "unknown-key", signers=(MALLORY,))
    yield refused("unknown-key-with-bad-statement", "unknown-key", signers=(MALLORY,), text=lambda _: b"{")
    yield refused("bad-before-statement", "bad-signature", entries=flip(5), text=lambda _: b"{")
    yield refused("below-threshold", "below-threshold", "two-of-three", signers=(ALICE,))
    yield refused("below-threshold-with-unknown", "below-threshold", "two-of-three", signers=(BOB, MALLORY))
    yield refused("revoked", "revoked", "revoked")
    yield refused("key-expired", "expired", "key-expired")
    yield refused("key-not-yet-valid", "not-yet-valid", "key-not-yet")
    yield refused("revoked-first", "revoked", "all-excuses", signers=(ALICE, BOB, CAROL))
    yield refused("expired-before-not-yet", "expired", "late-excuses", signers=(BOB, CAROL))

    def descending(text: bytes) -> list[tuple[bytes, bytes]]:
        return sign(text, (ALICE, BOB))[::-1]

    def repeated(text: bytes) -> list[tuple[bytes, bytes]]:
        return sign(text, (ALICE,)) * 2

    yield refused("no-entries", "malformed", entries=lambda _: [])
    yield refused("descending-key-ids", "malformed", "alice-and-bob", entries=descending)
    yield refused("same-key-twice", "malformed", "two-of-three", entries=repeated)


def _content() -> Iterator[Case]:
    def late(name: str, edit: Callable[[bytearray], object]) -> Case:
        return Case(name=f"digest-{name}", expect="digest-mismatch", recipe=Recipe(late=edit))

    yield late("code-changed", put(68, "B", 1))
    yield late("license-changed", put(80, "B", 0x4C))
    yield late("header-flags-changed", put(48, "<I", 1))
    yield late("entry-point-changed", put(24, "<Q", 1))
    yield late("ident-padding-changed", put(15, "B", 1))
    yield late("section-name-changed", lambda data: put(data.index(b"\0xdp\0") + 1, "B", 0x79)(data))
    yield late("section-type-changed", table(2, 4, "<I", 7))
    yield late("alignment-of-sig-changed", table(3, 48, "<Q", 16))
    yield late("section-0-changed", table(0, 44, "<I", 1))
    yield late("gap-changed", lambda data: put(data.index(b".strtab\0") + 8, "B", 1)(data))
    claimed = swap(b'"sha256":"', b'"sha256":"')
    other = replace(claimed, text=lambda text: text.replace(_digest_of(text), b"0" * 64))
    yield Case(name="digest-other-claimed", expect="digest-mismatch", recipe=other)
    arm = predicate(platform="linux/arm64")
    yield Case(name="platform-other", expect="wrong-platform", recipe=arm)
    yield Case(
        name="platform-of-other-machine", expect="wrong-platform", recipe=Recipe(), platform="linux/arm64"
    )
    yield Case(
        name="platform-arm-variant",
        expect="wrong-platform",
        recipe=predicate(platform="linux/arm"),
        platform="linux/arm/v7",
    )
    wrong_order = Recipe(order=">")
    yield Case(name="platform-byte-order-big", expect="wrong-platform", recipe=wrong_order)
    little = predicate(platform="linux/s390x")
    yield Case(
        name="platform-byte-order-little", expect="wrong-platform", recipe=little, platform="linux/s390x"
    )
    yield Case(name="expired", expect="expired", recipe=predicate(notAfter="2026-05-31T23:59:59Z"))
    yield Case(name="expires-now", expect="accepted", recipe=predicate(notAfter=NOW))
    both = replace(predicate(notAfter="2020-01-01T00:00:00Z"), late=put(68, "B", 1))
    yield Case(name="digest-before-expired", expect="digest-mismatch", recipe=both)
    order = predicate(notAfter="2020-01-01T00:00:00Z", platform="linux/arm64")
    yield Case(name="platform-before-expired", expect="wrong-platform", recipe=order)


def _digest_of(text: bytes) -> bytes:
    at = text.index(b'"sha256":"') + 10
    return text[at : at + 64]
