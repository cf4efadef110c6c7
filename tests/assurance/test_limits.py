# SPDX-License-Identifier: Apache-2.0
"""Objects at their largest and one over, too large to be vectors, by every verifier."""

from __future__ import annotations

import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from labs.compile import compile_sample
from labs.sig import sign, test_key
from labs.vectors.builder import (
    ALICE,
    CODE,
    LICENSE,
    SHT_NOBITS,
    SHT_STRTAB,
    Part,
    Recipe,
    build,
    statement,
)
from labs.vectors.code import EXIT, FLAGS_OF_CODE, SHT_REL, SHT_SYMTAB
from labs.vectors.maps import DATASEC, FORWARD, Btf, plain, with_maps
from labs.vectors.trust import policy, policy_key
from labs.verifiers import Verifier, python_store, python_verdict, question

from buildtool.objects.btf import MAX_NAMES_BYTES, MAX_TYPES
from buildtool.objects.elf import (
    MAX_CODE_BYTES,
    MAX_OBJECT_BYTES,
    MAX_RELOCATIONS,
    MAX_SECTIONS,
    MAX_SYMBOLS,
    find_signature_section,
    parse_object,
)
from buildtool.signing.keys import MAX_KEY_FILE_BYTES
from buildtool.signing.record import MAX_SECTION_BYTES, MAX_STATEMENT_BYTES, from_bytes
from buildtool.trust.store import MAX_POLICY_BYTES, load_trust

NOW = 1_780_272_000  # 2026-06-01T00:00:00Z
PLATFORM = "linux/amd64"
ROOM = 1024 * (-(-(MAX_STATEMENT_BYTES + 1024) // 1024))
# Rules that make a verifier read code and maps.
RULES = policy(policy_key(ALICE), programTypes=["xdp"], attachPoints=["*"], deniedHelpers=[], deniedKfuncs=[])
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


def code_of(size: int) -> Recipe:
    """Recipe: code sections of *size* bytes together."""
    half = size // 16 * 8
    parts = (replace(CODE, data=EXIT * (half // 8)), replace(CODE, data=EXIT * ((size - half) // 8)))
    return Recipe(parts=parts)


def tables_of(*, symbols: int, relocations: int) -> Recipe:
    """Recipe: an object with this many symbols, and relocations in two tables."""
    fields = {"link": 2, "entsize": 24}
    parts = [
        Part(name=b"xdp", data=EXIT, flags=FLAGS_OF_CODE),
        Part(name=b".names", data=b"\0", type=SHT_STRTAB),
        Part(name=b".symtab", data=bytes(24 * symbols), type=SHT_SYMTAB, fields=fields),
    ]
    for number in (1, relocations - 1):
        fields = {"link": 3, "info": 1, "entsize": 16}
        parts.append(Part(name=b".relxdp", data=bytes(16 * number), type=SHT_REL, fields=fields))
    return Recipe(parts=parts)


def types_of(count: int, name_bytes: int = 0) -> Recipe:
    """Recipe: an object with a map, *count* types and at least *name_bytes* bytes of names."""
    btf = plain(Btf())
    btf.types += struct.pack("<III", 0, FORWARD << 24, 0) * (count - btf.count)
    # The last type is a group, so that a reader that stops early would miss something.
    btf.types = btf.types[:-12] + struct.pack("<III", 0, DATASEC << 24, 0)
    btf.names = btf.names.ljust(name_bytes, b"\0")
    return with_maps(btf, b".maps")


def declared_of(sections: int, programs: int) -> Recipe:
    """Recipe: code sections of one name that libbpf does not know, each of which all programs may be of."""
    stated = [
        {"declared": "xdp", "name": f"{number:x}", "section": "x", "type": "xdp"}
        for number in range(programs)
    ]
    part = replace(CODE, name=b"x", data=EXIT)
    return Recipe(
        parts=(*[part] * sections, LICENSE), statement=statement(programs=stated), sig_size=MAX_SECTION_BYTES
    )


CASES = {
    "statement-largest": (lambda: statement_of(MAX_STATEMENT_BYTES), "accepted"),
    "statement-over": (lambda: statement_of(MAX_STATEMENT_BYTES + 1), "malformed"),
    "section-largest": (lambda: Recipe(sig_size=MAX_SECTION_BYTES), "accepted"),
    "section-over": (lambda: Recipe(sig_size=MAX_SECTION_BYTES + 1024), "malformed"),
    "sections-most": (lambda: sections_of(MAX_SECTIONS), "accepted"),
    "sections-over": (lambda: with_table_of(MAX_SECTIONS + 1), "malformed"),
    "code-largest": (lambda: code_of(MAX_CODE_BYTES), "accepted"),
    "code-over": (lambda: code_of(MAX_CODE_BYTES + 8), "denied-by-policy"),
    "symbols-most": (lambda: tables_of(symbols=MAX_SYMBOLS, relocations=2), "accepted"),
    "symbols-over": (lambda: tables_of(symbols=MAX_SYMBOLS + 1, relocations=2), "denied-by-policy"),
    "relocations-most": (lambda: tables_of(symbols=1, relocations=MAX_RELOCATIONS), "accepted"),
    "relocations-over": (lambda: tables_of(symbols=1, relocations=MAX_RELOCATIONS + 1), "denied-by-policy"),
    "types-most": (lambda: types_of(MAX_TYPES), "accepted"),
    "types-over": (lambda: types_of(MAX_TYPES + 1), "denied-by-policy"),
    "names-largest": (lambda: types_of(9, MAX_NAMES_BYTES), "accepted"),
    "names-over": (lambda: types_of(9, MAX_NAMES_BYTES + 1), "denied-by-policy"),
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
    (tmp_path / "policy.json").write_text(RULES["policy.json"])
    assert verifier.ask("T", bytes(tmp_path)) == "trust"
    verifier.setting("P", PLATFORM.encode())
    verifier.setting("N", str(NOW).encode())
    ours = python_verdict(data, load_trust([tmp_path]), PLATFORM, NOW)
    assert verifier.ask("O", data) == ours
    assert ours.split()[0] == expected


def test_each_name_of_a_section_is_decided_once(verifier_program: Path, tmp_path: Path) -> None:
    """
    The work for many sections of one name does not grow with the number of programs in the statement.

    Each section with each program would be 68 million decisions, which took the verifier in C minutes.
    """
    data = build(declared_of(20_000, 3_400))
    (tmp_path / "policy.json").write_text(RULES["policy.json"])
    questions = (("T", bytes(tmp_path)), ("P", PLATFORM.encode()), ("N", str(NOW).encode()), ("O", data))
    stream = b"".join(question(kind, content) for kind, content in questions)
    done = subprocess.run([verifier_program], input=stream, capture_output=True, check=True, timeout=100)
    ours = python_verdict(data, load_trust([tmp_path]), PLATFORM, NOW)
    assert done.stdout.decode().splitlines() == ["trust", ours]
    assert ours.split()[0] == "accepted"


def test_five_hundred_programs_with_long_names(verifier: Verifier, clang: Path, tmp_path: Path) -> None:
    """Names of 60 letters in their own sections give a statement of 75 KB, which every verifier reads."""
    programs = (
        f'__attribute__((section("tracepoint/syscalls/sys_enter_{n:03d}{"s" * 30}"), used))'
        f" int {f'p{n:03d}':p<60}(void *c) {{ return 0; }}\n"
        for n in range(500)
    )
    license_text = 'char LICENSE[] __attribute__((section("license"))) = "GPL";\n'
    source = "".join(programs) + license_text
    data = sign(parse_object(compile_sample(tmp_path, source=source).read_bytes()))
    obj = parse_object(data)
    statement = from_bytes(obj.contents(find_signature_section(obj))).statement
    assert 70_000 < len(statement) < MAX_STATEMENT_BYTES
    (tmp_path / "alice.pub").write_bytes(test_key().public.pem)
    assert verifier.ask("T", bytes(tmp_path)) == "trust"
    verifier.setting("P", PLATFORM.encode())
    verifier.setting("N", str(NOW).encode())
    ours = python_verdict(data, load_trust([tmp_path]), PLATFORM, NOW)
    assert verifier.ask("O", data) == ours
    assert ours.split()[0] == "accepted"


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("kind", STORES)
def test_limit_of_a_store(kind: str, extra: int, verifier: Verifier, tmp_path: Path) -> None:
    """A policy of 1 MiB and a key file of 4096 bytes are read; one more byte, and neither is."""
    data, path = store_of(kind, extra), tmp_path / ("policy.json" if kind == "Y" else "alice.pub")
    path.write_bytes(data)
    ours = python_store(path, is_key=kind == "K")
    assert verifier.ask(kind, data) == ours
    assert (ours == "bad-trust") == bool(extra)
