# SPDX-License-Identifier: Apache-2.0
"""Statements of the vectors that are malformed, each signed correctly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from labs.vectors.builder import Recipe, statement


def swap(old: bytes, new: bytes) -> Recipe:
    """Return the recipe of an object with another text of the statement, correctly signed."""

    def change(text: bytes) -> bytes:
        assert text.count(old) == 1, (old, text)
        return text.replace(old, new)

    return Recipe(text=change)


def predicate(**changes: Any) -> Recipe:
    """Return the recipe of a statement with *changes* of the predicate."""
    return Recipe(statement=statement(**changes))


def bad_statements() -> Iterator[tuple[str, Recipe]]:
    """Yield name and recipe of each."""
    yield from _json()
    yield from _members()
    yield from _values()
    yield from _items()


def _json() -> Iterator[tuple[str, Recipe]]:
    yield "not-json", Recipe(text=lambda _: b"{")
    yield "array", Recipe(text=lambda text: b"[" + text + b"]")
    yield "bom", Recipe(text=lambda text: b"\xef\xbb\xbf" + text)
    yield "trailing", Recipe(text=lambda text: text + b"{}")
    yield "trailing-zero", Recipe(text=lambda text: text + b"\0")
    yield "zero-after-number", swap(b'"version":3', b'"version":3\0')
    yield "zero-before-number", swap(b'"version":3', b'"version":\x003')
    yield "zero-in-white-space", swap(b'"version":3', b'"version":3 \0 ')
    yield "utf-16", Recipe(text=lambda text: text.decode().encode("utf-16-le")[:600])
    yield "invalid-utf-8", swap(b'"1.0"', b'"\xff"')
    yield "overlong-utf-8", swap(b'"1.0"', b'"\xc0\xaf"')
    yield "utf-8-surrogate", swap(b'"1.0"', b'"\xed\xa0\x80"')
    yield "escaped-zero", swap(b'"1.0"', b'"1\\u0000"')
    yield "escaped-zero-in-name", swap(b'"release"', b'"release\\u0000"')
    yield "lone-surrogate", swap(b'"1.0"', b'"\\ud83d"')
    yield "raw-control-character", swap(b'"1.0"', b'"1\t0"')
    yield "comment", swap(b'"version":3', b'"version":3/**/')
    yield "trailing-comma", swap(b'"version":3', b'"version":3,')
    yield "member-twice", swap(b'"version":3', b'"version":3,"version":3')
    yield "member-twice-by-escape", swap(b'"version":3', b'"version":3,"\\u0076ersion":3')


def _members() -> Iterator[tuple[str, Recipe]]:
    yield "unknown-member", swap(b'"version":3', b'"version":3,"zone":"eu"')
    yield "unknown-top-member", swap(b'"subject":', b'"also":1,"subject":')
    yield "member-missing", predicate(license=None)
    yield "null-not-after", swap(b'"version":3', b'"version":3,"notAfter":null')
    yield "type-other", swap(b"Statement/v1", b"Statement/v2")
    yield "predicate-type-other", swap(b"object:v1", b"object:v2")
    yield "no-subject", Recipe(statement=statement() | {"subject": []})
    yield "two-subjects", Recipe(text=_two_subjects)
    yield "digest-upper-case", swap(b'"sha256":"', b'"sha256":"A')
    yield "second-digest", swap(b'"sha256":', b'"sha1":"00","sha256":')
    yield "name-empty", swap(b'"x.bpf.o"', b'""')
    yield "name-hidden", swap(b'"x.bpf.o"', b'".x.bpf.o"')
    yield "name-option", swap(b'"x.bpf.o"', b'"-x.bpf.o"')
    yield "name-path", swap(b'"x.bpf.o"', b'"a/x.bpf.o"')
    yield "project-empty", predicate(project="")
    yield "project-space", predicate(project="a b")


def _values() -> Iterator[tuple[str, Recipe]]:
    yield "version-string", predicate(version="3")
    yield "version-true", predicate(version=True)
    yield "version-negative", predicate(version=-1)
    yield "version-float", swap(b'"version":3', b'"version":3.0')
    yield "version-exponent", swap(b'"version":3', b'"version":3e0')
    yield "version-leading-zero", swap(b'"version":3', b'"version":03')
    yield "version-2-53", predicate(version=2**53)
    yield "version-huge", swap(b'"version":3', b'"version":' + b"9" * 40)
    yield "version-nan", swap(b'"version":3', b'"version":NaN')
    yield "release-of-129-bytes", predicate(release="r" * 129)
    yield "created-no-such-day", predicate(created="2026-02-29T00:00:00Z")
    yield "created-leap-second", predicate(created="2026-01-01T00:00:60Z")
    yield "created-hour-24", predicate(created="2026-01-01T24:00:00Z")
    yield "created-1969", predicate(created="1969-12-31T23:59:59Z")
    yield "created-year-0000", predicate(created="0000-01-01T00:00:00Z")
    yield "created-no-leap-year", predicate(created="2100-02-29T00:00:00Z")
    yield "created-newline", predicate(created="2026-01-01T00:00:00Z\n")
    yield "created-other-digits", predicate(created="202\uff16-01-01T00:00:00Z")
    yield "created-offset", predicate(created="2026-01-01T00:00:00+00:00")
    yield "created-lower-case", predicate(created="2026-01-01t00:00:00z")
    yield "helpers-descending", predicate(helpers=[2, 1])
    yield "helpers-twice", predicate(helpers=[1, 1])
    yield "helpers-string", predicate(helpers=["1"])
    yield "kfuncs-descending", predicate(kfuncs=["b", "a"])
    yield "kfuncs-twice", predicate(kfuncs=["a", "a"])


def _items() -> Iterator[tuple[str, Recipe]]:
    yield "programs-object", predicate(programs={})
    yield "program-without-type", predicate(programs=[{"name": "a", "section": "xdp"}])
    yield (
        "program-unknown-member",
        predicate(programs=[{"name": "a", "section": "xdp", "type": "xdp", "flags": ""}]),
    )
    yield (
        "program-attach-string",
        predicate(programs=[{"name": "a", "section": "xdp", "type": "xdp", "attach": "eth0"}]),
    )
    for name, section, kind, declared in (
        ("declared-number", "classifier/x", "sched_cls", 1),
        ("declared-empty", "classifier/x", "unspec", ""),
        ("declared-unknown", "classifier/x", "unspec", "classifier/x"),
        ("declared-with-plus", "classifier/x", "kprobe", "kprobe+"),
        ("declared-with-target", "probe/x", "kprobe", "kprobe/do_unlinkat"),
        ("declared-name-of-targets", "probe/x", "kprobe", "kprobe"),
        ("declared-optional", "classifier/x", "sched_cls", "?tc"),
        ("declared-of-another-type", "classifier/x", "xdp", "tc"),
        ("declared-of-unspec", "classifier/x", "unspec", "tc"),
        ("declared-for-a-known-section", "classifier", "sched_cls", "tc"),
        ("declared-for-a-known-optional-section", "?xdp", "sched_cls", "tc"),
        ("declared-for-a-known-target", "kprobe/x", "sched_cls", "tc"),
    ):
        program = {"name": "a", "section": section, "type": kind, "declared": declared}
        yield name, predicate(programs=[program])
    yield (
        "map-negative-size",
        predicate(maps=[{"name": "m", "type": "hash", "keySize": -4, "valueSize": 8, "maxEntries": 1}]),
    )
    yield "toolchain-incomplete", predicate(toolchain={"compiler": "clang"})
    yield "source-digest-short", predicate(source={"path": "x.c", "sha256": "00"})
    yield "nested-deep", swap(b'"maps":[]', b'"maps":' + b"[" * 40 + b"]" * 40)


def _two_subjects(text: bytes) -> bytes:
    one = text[text.index(b'"subject":[') + 11 : text.rindex(b"]")]
    return text.replace(one, one + b"," + one)
