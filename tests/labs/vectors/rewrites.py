# SPDX-License-Identifier: Apache-2.0
"""
Objects that a tool rewrote after signing, limits of the record, and statements of other tools.

strip, bpftool gen object and objcopy keep or move `.sig` and change what is around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from labs.vectors.builder import (
    ALICE,
    BOB,
    CODE,
    LICENSE,
    MAGIC,
    Part,
    Recipe,
    Signer,
    build,
    encode,
    statement,
)
from labs.vectors.statements import swap

DEBUG = Part(name=b".debug_info", data=b"d" * 40)
OTHER_CODE = replace(CODE, data=bytes.fromhex("b700000001000000 9500000000000000"))
S390X = "linux/s390x"
BIG = Recipe(order=">", statement=statement(platform=S390X))
Row = tuple[str, str, str, Recipe]


def rewrites() -> Iterator[Row]:
    """Yield name, reason, platform and recipe of each."""
    yield from _stale()
    yield from _limits()
    yield from _foreign()
    yield from _big_endian()


def _record_of(recipe: Recipe) -> bytes:
    data = build(recipe)
    at = data.index(MAGIC)
    return data[at : at + recipe.sig_size]


def _with_record(recipe: Recipe, record: bytes) -> Recipe:
    """Recipe: the file of *recipe* around the `.sig` of another."""

    def put(data: bytearray) -> None:
        at = data.index(MAGIC)
        data[at : at + len(record)] = record

    return replace(recipe, late=put)


def _stale() -> Iterator[Row]:
    whole = Recipe(parts=(CODE, DEBUG, LICENSE))
    parts: dict[str, Sequence[Part]] = {
        "after-strip": (CODE, LICENSE),
        "after-relink": (CODE, OTHER_CODE, DEBUG, LICENSE),
        "after-recompile": (OTHER_CODE, DEBUG, LICENSE),
        "after-section-added": (CODE, DEBUG, LICENSE, Part(name=b".note", data=b"n")),
        "after-sections-reordered": (LICENSE, CODE, DEBUG),
        "after-section-renamed": (CODE, replace(DEBUG, name=b".debug_line"), LICENSE),
    }
    for name, others in parts.items():
        recipe = _with_record(replace(whole, parts=others), _record_of(whole))
        yield f"stale-{name}", "digest-mismatch", "linux/amd64", recipe
    # The same sections with another alignment, so that .sig has another offset.
    moved = _with_record(replace(whole, pad=64), _record_of(whole))
    yield "stale-after-move", "digest-mismatch", "linux/amd64", moved
    yield (
        "stale-of-other-byte-order",
        "digest-mismatch",
        "linux/amd64",
        _with_record(Recipe(order=">"), _record_of(Recipe())),
    )


def _limits() -> Iterator[Row]:
    crowd = tuple(Signer(name=f"crowd-{number}") for number in range(15))
    full = Recipe(signers=(ALICE, *crowd), sig_size=2048)
    yield "limit-16-signatures", "accepted", "linux/amd64", full
    yield (
        "limit-17-signatures",
        "malformed",
        "linux/amd64",
        replace(full, signers=(ALICE, BOB, *crowd), sig_size=3072),
    )
    yield "limit-depth-8", "malformed", "linux/amd64", _deep(8)
    yield "limit-depth-9", "malformed", "linux/amd64", _deep(9)
    yield "limit-name-128", "accepted", "linux/amd64", swap(b'"x.bpf.o"', b'"' + b"n" * 128 + b'"')
    yield "limit-name-129", "malformed", "linux/amd64", swap(b'"x.bpf.o"', b'"' + b"n" * 129 + b'"')
    yield "limit-project-128", "accepted", "linux/amd64", swap(b'"demo"', b'"' + b"p" * 128 + b'"')
    yield "limit-project-129", "malformed", "linux/amd64", swap(b'"demo"', b'"' + b"p" * 129 + b'"')
    # 128 characters, 256 bytes.
    yield (
        "limit-release-counts-bytes",
        "malformed",
        "linux/amd64",
        swap(b'"1.0"', '"{}"'.format("\u00e4" * 128).encode()),
    )
    yield "limit-section-of-1000", "malformed", "linux/amd64", Recipe(sig_size=1000)
    yield "limit-section-exactly-full", "accepted", "linux/amd64", _padded(1024 - 32 - 4 * 96)
    yield "limit-section-one-over", "malformed", "linux/amd64", _padded(1024 - 32 - 4 * 96 + 1)


def _deep(depth: int) -> Recipe:
    """Return the recipe of a statement with a member of depth *depth*, deeper than any valid member."""
    inner = depth - 2
    return swap(b'"maps":[]', b'"maps":' + b"[" * inner + b"]" * inner)


def _padded(size: int) -> Recipe:
    """Return the recipe of a statement of exactly *size* bytes, with white space at its end."""
    return Recipe(text=lambda text: text.ljust(size))


def _foreign() -> Iterator[Row]:
    """Statements of another kind, correctly signed by a trusted key."""
    digest = {"sha256": "DIGEST"}
    statements: dict[str, Any] = {
        "slsa-provenance": {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": "x.bpf.o", "digest": digest}],
            "predicateType": "https://slsa.dev/provenance/v1",
            "predicate": {"buildDefinition": {}, "runDetails": {}},
        },
        "statement-v0": {
            "_type": "https://in-toto.io/Statement/v0.1",
            "subject": [{"name": "x.bpf.o", "digest": digest}],
            "predicateType": "urn:buildtool:ebpf-object:v1",
            "predicate": statement()["predicate"],
        },
        "policy": {"policyVersion": 1, "threshold": 1, "keys": []},
        "cosign-payload": {
            "critical": {"image": {"docker-manifest-digest": "sha256:DIGEST"}},
            "optional": None,
        },
        "string": "urn:buildtool:ebpf-object:v1",
        "number": 1,
        "null": None,
        "empty": {},
    }
    for name, value in statements.items():
        text = encode(value)
        yield f"foreign-{name}", "malformed", "linux/amd64", Recipe(text=lambda _, text=text: text)


def _big_endian() -> Iterator[Row]:
    def refused(name: str, expect: str, **changes: Any) -> Row:
        return f"big-endian-{name}", expect, S390X, replace(BIG, **changes)

    def swap_fields(record: bytearray) -> None:
        for at in (8, 12, 16, 20):
            record[at : at + 4] = record[at : at + 4][::-1]

    yield refused("record-in-its-order", "malformed", record=swap_fields)
    yield refused("cut-by-one", "malformed", late=lambda data: data.pop())
    yield refused("one-byte-more", "malformed", late=lambda data: data.append(0))
    yield refused("code-changed", "digest-mismatch", late=lambda data: data.__setitem__(65, 1))
    yield refused("padding", "malformed", record=lambda record: record.__setitem__(-1, 1))
    yield refused("bad-signature", "bad-signature", entries=lambda _: [(ALICE.key_id, bytes(64))])
    yield refused("two-sig", "malformed", parts=(CODE, Part(name=b".sig", data=b"\0")))
    yield refused("unknown-key", "unknown-key", signers=(BOB,))
