# SPDX-License-Identifier: Apache-2.0
"""libsigverify: its header, its example, and the same answers to the vectors as the loader's."""

from __future__ import annotations

import json
import os
import re
import subprocess
from base64 import b64decode
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from labs import TOP
from labs.sig import NOW, other_key, sign, store, test_key, unsigned
from labs.vectors.builder import ALICE, MALLORY

from buildtool.trust.verify import verify_object

LOADER = TOP / "loader"
INDEX: dict[str, Any] = json.loads((TOP / "tests/vectors/vectors.json").read_text())
# A directory of linked programs. tests/mutation links them, because it changes one file at a time.
LINKED = os.environ.get("LIBRARY_PROGRAMS", "")
LIBRARIES = ("-lsodium", "-ljansson", "-lcrypto")
WRAP = ("-Wl,--wrap=malloc", "-Wl,--wrap=calloc")
SANITIZE = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def one_file_stores(listed: dict[str, dict[str, str]]) -> dict[str, bytes]:
    """Return the stores of one file. The library reads bytes, so it knows no names and no directories."""
    stores = {}
    for name, files in listed.items():
        if len(files) == 1 and re.fullmatch(r"policy\.json|[^.].*\.pub", *files):
            stores[name] = next(iter(files.values())).encode()
    return stores


STORES = one_file_stores(INDEX["trust"])
BAD_STORES = one_file_stores(INDEX["badTrust"])
VECTORS = [vector for vector in INDEX["vectors"] if vector["trust"] in STORES]


def build_library(clang: Path, path: Path, *options: str) -> Path:
    """Make libsigverify.a at *path*."""
    argv = ["make", "-C", LOADER, "libsigverify.a", f"LIBRARY={path}", f"CLANG={clang}", *options]
    subprocess.run(argv, check=True, capture_output=True)
    return path


def link(clang: Path, source: Path, library: Path, *options: str) -> Path:
    """Link a program with the library, using its public header only."""
    program = library.with_name(source.stem)
    warnings = ("-Wall", "-Wextra", "-Wstrict-prototypes", "-Werror", "-std=gnu11")
    argv = [clang, *warnings, *options, f"-I{LOADER / 'include'}", source, library, "-o", program]
    subprocess.run([*argv, *(x for x in LIBRARIES if x not in options)], check=True, capture_output=True)
    return program


@pytest.fixture(scope="module")
def library(clang: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the library as its users build it."""
    return build_library(clang, tmp_path_factory.mktemp("library") / "libsigverify.a")


@pytest.fixture(scope="module")
def example(clang: Path, library: Path) -> Path:
    """Return the example of the library's README."""
    return link(clang, LOADER / "verify/example.c", library)


@pytest.fixture(scope="module")
def checked(clang: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a program that prints all answers, linked with the library under ASan and UBSan."""
    if LINKED:
        return Path(LINKED, "library")
    path = tmp_path_factory.mktemp("checked") / "libsigverify.a"
    build_library(clang, path, f"CFLAGS=-O1 {' '.join(SANITIZE)}")
    return link(clang, LOADER / "test/library.c", path, *SANITIZE)


@pytest.fixture(scope="module")
def without_memory(clang: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a program in which one allocation after another fails, under ASan and UBSan."""
    if LINKED:
        return Path(LINKED, "no_memory")
    path = tmp_path_factory.mktemp("without") / "libsigverify.a"
    build_library(clang, path, f"CFLAGS=-O1 {' '.join(SANITIZE)}")
    return link(clang, LOADER / "test/no_memory.c", path, *SANITIZE, *WRAP)


def ask(program: Path, *arguments: str | Path) -> tuple[int, str, str]:
    """Return exit code, output and errors of a program."""
    # A message shows names of sections as they are.
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, errors="backslashreplace", check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_the_example_accepts_and_refuses(example: Path, tmp_path: Path) -> None:
    """The example accepts a signed object, and refuses a tampered one and others with the right reason."""
    trust, path = tmp_path / "alice.pub", tmp_path / "x.bpf.o"
    trust.write_bytes(test_key().public.pem)
    signed = sign()
    path.write_bytes(signed)
    assert ask(example, trust, path) == (0, "accepted x.bpf.o of demo, version 3\n", "")
    tampered = bytearray(signed)
    tampered[tampered.index(b"GPL")] ^= 1
    for data, word in (
        (bytes(tampered), "digest-mismatch"),
        (unsigned(), "unsigned"),
        (sign(key=other_key()), "unknown-key"),
        (sign(arch="arm64"), "wrong-platform"),
        (b"", "malformed"),
    ):
        path.write_bytes(data)
        code, output, _ = ask(example, trust, path)
        assert (code, output.split(": ")[:2]) == (3, ["refused", word])


@pytest.mark.parametrize(
    ("version", "word"),
    [(("10", "3"), "accepted"), (("10", "4"), "refused"), (("26", "1"), "refused"), (("26", "3"), "refused")],
)
def test_libsodium_version_at_run_time(
    clang: Path, tmp_path: Path, version: tuple[str, str], word: str
) -> None:
    """The version at run time decides: libsodium may be newer than the headers."""
    program = tmp_path / "sodium"
    sources = [LOADER / name for name in ("test/sodium.c", "verify/sig.c", "base/fault.c")]
    argv = [
        clang,
        "-Wall",
        "-Wextra",
        "-Werror",
        "-std=gnu11",
        "-D_GNU_SOURCE",
        f"-I{LOADER}",
        *sources,
        "-o",
        program,
    ]
    subprocess.run(argv, check=True, capture_output=True)
    assert ask(program, *version) == (0, f"{word} accepted\n", "")


@pytest.mark.parametrize("text", [b"no key", b"{}", b"-----BEGIN PUBLIC KEY-----\n"])
def test_the_example_needs_a_trust_store(example: Path, tmp_path: Path, text: bytes) -> None:
    """A bad trust store is exit code 2 with one line."""
    (tmp_path / "trust").write_bytes(text)
    (tmp_path / "x.bpf.o").write_bytes(sign())
    code, output, errors = ask(example, tmp_path / "trust", tmp_path / "x.bpf.o")
    assert (code, output) == (2, "")
    assert re.fullmatch(r"no trust store: .+\n", errors)


def test_there_are_vectors() -> None:
    """Most vectors and stores need one file only, so the library can run them."""
    assert len(VECTORS) >= len(INDEX["vectors"]) - 10
    assert len(BAD_STORES) >= len(INDEX["badTrust"]) - 5


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["name"]))
def test_vector(checked: Path, vector: dict[str, str], tmp_path: Path) -> None:
    """The library gives the answer that the vector expects."""
    (tmp_path / "trust").write_bytes(STORES[vector["trust"]])
    (tmp_path / "x").write_bytes(b64decode(vector["file"]))
    now = str(int(datetime.fromisoformat(INDEX["now"]).timestamp()))
    code, output, errors = ask(checked, tmp_path / "trust", tmp_path / "x", vector["platform"], now, "-")
    assert (code, output.split()[0], errors) == (0, vector["expect"], "")


MESSAGES = {
    "signature-key-expired": f"signed with key {ALICE.key_id.hex()}, which expired at 2026-05-31T23:59:59Z; ",
    "signature-key-not-yet-valid": "which is not valid before 2026-06-01T00:00:01Z; ",
    "signature-unknown-key": f"no trusted key signed, only {MALLORY.key_id.hex()}; ",
    "one-of-16-signers": "1 of 16 trusted keys signed: ",
    "elf-text": "not an ELF file; get the object again from where it was signed",
    "type-denied": "of type 'sched_cls' is not allowed, only xdp; ",
    "type-denied-by-empty-list": "of type 'xdp' is not allowed, only none at all; ",
    "code-section-point-xdp.frags": "'xdp.frags' is not allowed, only cgroup/*, kprobe/do_*, xdp; ",
}


@pytest.mark.parametrize("name", MESSAGES)
def test_message_of_a_refusal(checked: Path, tmp_path: Path, name: str) -> None:
    """A refusal names key, time and bound, with lists in their order."""
    (vector,) = (vector for vector in VECTORS if vector["name"] == name)
    (tmp_path / "trust").write_bytes(STORES[vector["trust"]])
    (tmp_path / "x").write_bytes(b64decode(vector["file"]))
    now = str(int(datetime.fromisoformat(INDEX["now"]).timestamp()))
    _, output, _ = ask(checked, tmp_path / "trust", tmp_path / "x", vector["platform"], now, "-")
    assert MESSAGES[name] in output


def test_an_acceptance_names_what_was_signed(checked: Path, tmp_path: Path) -> None:
    """Name, project, version, digest and keys equal those of the Python verifier."""
    (tmp_path / "trust").write_bytes(test_key().public.pem)
    (tmp_path / "x").write_bytes(sign())
    known = verify_object(sign(), store(), platform="linux/amd64", now=NOW)
    _, output, _ = ask(checked, tmp_path / "trust", tmp_path / "x", "linux/amd64", str(NOW), "-")
    assert output.split() == ["accepted", "x.bpf.o", "demo", "3", known.digest, *known.key_ids]


@pytest.mark.parametrize(("seen", "word"), [("0", "accepted"), ("3", "accepted"), ("4", "rolled-back")])
def test_versions_are_the_callers(checked: Path, tmp_path: Path, seen: str, word: str) -> None:
    """The library asks the caller for the version of this object, and refuses a lower one."""
    (tmp_path / "trust").write_bytes(test_key().public.pem)
    (tmp_path / "x").write_bytes(sign())
    _, output, errors = ask(checked, tmp_path / "trust", tmp_path / "x", "", str(NOW), seen)
    assert (output.split()[0], errors) == (word, "asked demo x.bpf.o\n")


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("every-rule-kept", "accepted"),
        ("code-big-maps", "accepted"),
        ("two-of-three", "accepted"),
        ("plain", "accepted"),
        ("code-big-maps-struct-ops-denied", "denied-by-policy"),
        ("every-rule-rolled-back", "rolled-back"),
    ],
)
def test_exhausted_memory_is_no_verdict(without_memory: Path, name: str, result: str, tmp_path: Path) -> None:
    """Whichever allocation fails: no store or no verdict, and never an answer from half of the data."""
    (vector,) = [vector for vector in VECTORS if vector["name"] == name]
    (tmp_path / "trust").write_bytes(STORES[vector["trust"]])
    (tmp_path / "x").write_bytes(b64decode(vector["file"]))
    code, output, errors = ask(without_memory, tmp_path / "trust", tmp_path / "x")
    assert (code, errors) == (0, "")
    assert output.splitlines() == ["no-store", "no-verdict", f"{result} with all memory"]


@pytest.mark.parametrize("name", BAD_STORES)
def test_bad_trust_store(checked: Path, name: str, tmp_path: Path) -> None:
    """A bad file is refused as a trust store."""
    (tmp_path / "trust").write_bytes(BAD_STORES[name])
    (tmp_path / "x").write_bytes(sign())
    _, output, _ = ask(checked, tmp_path / "trust", tmp_path / "x", "", str(NOW), "-")
    assert output.startswith("bad-trust: ")


def test_the_header_is_all_that_is_visible(library: Path) -> None:
    """The library exports exactly the functions of its header, so no other symbol can collide."""
    listed = subprocess.run(
        ["nm", "-g", "--defined-only", library], capture_output=True, text=True, check=True
    )
    names = {line.split()[-1] for line in listed.stdout.splitlines() if len(line.split()) == 3}
    header = (LOADER / "include/sigverify.h").read_text()
    assert names == set(re.findall(r"\b(sigverify__\w+)\(", header))


def test_what_the_library_needs(library: Path) -> None:
    """The library calls libsodium, jansson, a SHA-256 and the C library, and opens no file."""
    listed = subprocess.run(["nm", "-u", library], capture_output=True, text=True, check=True)
    wanted = {line.split()[-1] for line in listed.stdout.splitlines() if line.startswith(" ")}
    ours = {name for name in wanted if re.match(r"(crypto_|sodium_|json_|SHA256_)", name)}
    assert wanted - ours <= {
        *("__errno_location", "__tls_get_addr"),
        "__stack_chk_fail",
        "_GLOBAL_OFFSET_TABLE_",
        *("bcmp", "memchr", "memcmp", "memcpy", "memset", "strlen", "strnlen"),
        *("strchr", "strcmp", "strcspn", "strncat", "strncmp", "strspn", "strstr"),
        *("calloc", "free", "malloc", "qsort"),
        *("getrandom", "snprintf", "vsnprintf"),
    }
    assert {"crypto_sign_verify_detached", "json_loadb", "SHA256_Final"} <= ours


def test_libsodium_can_do_the_hash(clang: Path, tmp_path: Path) -> None:
    """With SHA256=sodium the library needs no OpenSSL."""
    path = build_library(clang, tmp_path / "libsigverify.a", "SHA256=sodium")
    program = tmp_path / "example"
    argv = [clang, f"-I{LOADER / 'include'}", LOADER / "verify/example.c", path, "-o", program]
    subprocess.run([*argv, "-lsodium", "-ljansson"], check=True)
    (tmp_path / "alice.pub").write_bytes(test_key().public.pem)
    (tmp_path / "x").write_bytes(sign())
    assert ask(program, tmp_path / "alice.pub", tmp_path / "x")[0] == 0
