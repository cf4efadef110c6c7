# SPDX-License-Identifier: Apache-2.0
"""Objects at their largest and one over, too large to be vectors, by every verifier."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest
from labs.sig import test_key
from labs.vectors.builder import ALICE, CODE, LICENSE, SHT_NOBITS, Part, Recipe, build
from labs.vectors.trust import policy, policy_key
from labs.verifiers import Verifier, python_store, python_verdict

from buildtool.objects.elf import MAX_OBJECT_BYTES, MAX_SECTIONS
from buildtool.signing.keys import MAX_KEY_FILE_BYTES
from buildtool.signing.record import MAX_SECTION_BYTES, MAX_STATEMENT_BYTES
from buildtool.trust.store import MAX_POLICY_BYTES, load_trust

NOW = 1_780_272_000  # 2026-06-01T00:00:00Z
PLATFORM = "linux/amd64"
ROOM = 1024 * (-(-(MAX_STATEMENT_BYTES + 1024) // 1024))
# Size of a Recipe() with one more section, without that section's contents.
EMPTY = Part(name=b".rodata", data=b"")


def statement_of(size: int) -> Recipe:
    """Recipe: a statement of exactly *size* bytes, most of it white space."""
    return Recipe(sig_size=ROOM, text=lambda text: text.ljust(size))


def file_of(size: int) -> Recipe:
    """Recipe: a file of exactly *size* bytes."""
    around = len(build(Recipe(parts=(CODE, LICENSE, EMPTY))))
    assert (size - around) % 8 == 0
    recipe = Recipe(parts=(CODE, LICENSE, replace(EMPTY, data=bytes(size - around))))
    assert len(build(recipe)) == size
    return recipe


def sections_of(count: int) -> Recipe:
    """Recipe: a file with *count* sections, the empty one, `.sig` and the names included."""
    return Recipe(parts=[Part(name=b"n", data=b"", type=SHT_NOBITS)] * (count - 3))


def with_table_of(count: int) -> Recipe:
    """Recipe: a file whose header states *count* sections."""
    return replace(sections_of(count), shape=lambda data: struct.pack_into("<H", data, 60, count))


CASES = {
    "statement-largest": (lambda: statement_of(MAX_STATEMENT_BYTES), "accepted"),
    "statement-over": (lambda: statement_of(MAX_STATEMENT_BYTES + 1), "malformed"),
    "section-largest": (lambda: Recipe(sig_size=MAX_SECTION_BYTES), "accepted"),
    "section-over": (lambda: Recipe(sig_size=MAX_SECTION_BYTES + 1024), "malformed"),
    "sections-most": (lambda: sections_of(MAX_SECTIONS), "accepted"),
    "sections-over": (lambda: with_table_of(MAX_SECTIONS + 1), "malformed"),
    "file-largest": (lambda: file_of(MAX_OBJECT_BYTES), "accepted"),
    "file-over": (lambda: file_of(MAX_OBJECT_BYTES + 8), "too-large"),
}


# Kind of a question: largest file. K is a .pub file, Y a policy.
STORES = {"K": MAX_KEY_FILE_BYTES, "Y": MAX_POLICY_BYTES}


def store_of(kind: str, extra: int) -> bytes:
    """Return the largest store of *kind* and *extra* bytes, most of it white space."""
    text = test_key().public.pem if kind == "K" else policy(policy_key(ALICE))["policy.json"].encode()
    return text.ljust(STORES[kind] + extra)


@pytest.mark.parametrize("name", CASES)
def test_limit(name: str, verifier: Verifier, tmp_path: Path) -> None:
    """What the specification allows at most is accepted, and one more is refused."""
    make, expected = CASES[name]
    data = build(make())
    (tmp_path / "alice.pub").write_bytes(test_key().public.pem)
    assert verifier.ask("T", bytes(tmp_path)) == "trust"
    verifier.setting("P", PLATFORM.encode())
    verifier.setting("N", str(NOW).encode())
    ours = python_verdict(data, load_trust([tmp_path]), PLATFORM, NOW)
    assert verifier.ask("O", data) == ours
    assert ours.split()[0] == expected


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("kind", STORES)
def test_limit_of_a_store(kind: str, extra: int, verifier: Verifier, tmp_path: Path) -> None:
    """A policy of 1 MiB and a key file of 4096 bytes are read; one more byte, and neither is."""
    data, path = store_of(kind, extra), tmp_path / ("policy.json" if kind == "Y" else "alice.pub")
    path.write_bytes(data)
    ours = python_store(path, is_key=kind == "K")
    assert verifier.ask(kind, data) == ours
    assert (ours == "bad-trust") == bool(extra)
