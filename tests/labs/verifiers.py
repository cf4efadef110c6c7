# SPDX-License-Identifier: Apache-2.0
"""Run verifiers in other languages as processes that answer questions, and the Python verifier alike."""

from __future__ import annotations

import json
import struct
import subprocess
from base64 import b64decode
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from buildtool.core.errors import ConfigError, RefusedError
from buildtool.signing.keys import PublicKey, load_public_key, public_key_from_der
from buildtool.trust.store import TrustStore, load_policy, trust_keys
from buildtool.trust.verify import verify_object
from labs import TOP
from labs.run import alone
from labs.vectors.index import INDEX

BUILT = TOP / ".cache/fuzz"
MAX_OBJECTS = 256  # of one run of the loader
_DER_PREFIX = bytes.fromhex("302a300506032b6570032100")


def build_c_verifier(clang: Path, target: str = "check") -> Path:
    """Link *target* of loader/fuzz and return its path."""
    argv = ["make", "-C", TOP / "loader/fuzz", f"CLANG={clang}", f"OUT={BUILT}", BUILT / target]
    with alone():
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return BUILT / target


def question(kind: str, data: bytes) -> bytes:
    """Return the bytes of a question. loader/fuzz/check.c lists the kinds."""
    return kind.encode() + struct.pack("<I", len(data)) + data


class Verifier:
    """A running verifier in another language than Python, which answers one question at a time."""

    def __init__(self, program: Path) -> None:
        self._process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # communicate() closes both ends and waits. The sanitizers report leaks when the process ends.
        self._process.communicate()
        assert self._process.returncode == 0, "the verifier ended badly: see what it wrote to stderr"

    def setting(self, kind: str, data: bytes) -> None:
        """Send a setting, which has no answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(question(kind, data))

    def ask(self, kind: str, data: bytes) -> str:
        """Return the answer to one question."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(question(kind, data))
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line.endswith(b"\n"), "the verifier ended: see what it wrote to stderr"
        return line.decode("utf-8", "surrogateescape")[:-1]


def ask_all(program: Path, settings: Iterable[bytes], questions: Iterator[bytes]) -> list[str]:
    """Return the answers of one process to all *questions*, each of which has one answer."""
    stream = b"".join((*settings, *questions))
    done = subprocess.run([program], input=stream, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode("utf-8", "surrogateescape").splitlines()


def python_verdict(data: bytes, trust: TrustStore, platform: str | None, now: int) -> str:
    """Return the Python verifier's result for object *data*, in the form of check.c."""
    try:
        verified = verify_object(data, trust, platform=platform, now=now)
    except RefusedError as error:
        return str(error.reason)
    return " ".join(["accepted", verified.digest, *verified.key_ids])


def python_store(path: Path, *, is_key: bool) -> str:
    """Return Python's result for trust store file *path*, in the form of check.c."""
    try:
        store = trust_keys([load_public_key(path)]) if is_key else load_policy(path)
    except ConfigError:
        return "bad-trust"
    words = [store.digest, str(store.threshold), str(store.max_object_bytes), store.project or "*"]
    words += [str(store.earliest), "required" if store.needs_clock else "unset-ok"]
    words += ["rollback"] if store.allow_rollback else []
    words += ["ignores-image"] if store.ignores_image else []
    for key_id, key in store.keys.items():
        word = key_id.hex()
        word += "" if key.not_before is None else f",from={key.not_before}"
        word += "" if key.not_after is None else f",until={key.not_after}"
        words.append(word + (",revoked" if key.revoked else ""))
    return " ".join(words)


def python_signature(raw: bytes, signature: bytes, message: bytes) -> str:
    """Return Python's result for an Ed25519 signature, in the form of check.c."""
    try:
        key: PublicKey = public_key_from_der(_DER_PREFIX + raw, "key", name="key")
    except ConfigError:
        return "weak-key"
    return "good" if key.verifies(signature, message) else "bad-signature"


def run_loader(
    loader: Path, *arguments: str | Path, emulator: Path | None = None
) -> tuple[int, list[dict[str, Any]]]:
    """Return the exit code and the decision lines of a run that only verifies, under *emulator* if given."""
    argv = [*filter(None, [emulator]), loader, "--verify-only", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.returncode, [json.loads(line) for line in done.stderr.splitlines()]


def decision(line: dict[str, Any]) -> str:
    """Return the decision of a *line* of the loader, or the reason of a refusal, as in the vectors."""
    return str(line.get("reason", line["decision"]))


def ask_loader(loader: Path, stores: Path, work: Path, *, emulator: Path | None = None) -> dict[str, str]:
    """Return the loader's decision about each vector, by name; for the rest see `loader_lines`."""
    lines = loader_lines(loader, stores, work, emulator=emulator)
    return {name: decision(line) for name, line in lines.items()}


def loader_lines(
    loader: Path, stores: Path, work: Path, *, emulator: Path | None = None
) -> dict[str, dict[str, Any]]:
    """
    Return the loader's line about each vector, by name. Each store and platform has its own runs.

    *stores* is the directory of the good trust stores, *work* an empty directory for objects.
    """
    groups: dict[tuple[str, str], list[dict[str, str]]] = {}
    for vector in INDEX["vectors"]:
        groups.setdefault((vector["trust"], vector["platform"]), []).append(vector)
    found: dict[str, dict[str, Any]] = {}
    for number, ((store, platform), vectors) in enumerate(groups.items()):
        options = ["--trust", stores / store, "--platform", platform, "--time", INDEX["now"]]
        for first in range(0, len(vectors), MAX_OBJECTS):
            directory = work / f"{number}-{first}"
            directory.mkdir()
            paths = {}
            for index, vector in enumerate(vectors[first : first + MAX_OBJECTS]):
                path = directory / f"{index}.bpf.o"
                path.write_bytes(b64decode(vector["file"]))
                paths[path.name] = vector["name"]
            code, lines = run_loader(loader, "--objects", directory, *options, emulator=emulator)
            said = {paths[Path(line["object"]).name]: line for line in lines if line["event"] == "verify"}
            assert len(said) == len(paths)
            assert code == (0 if set(map(decision, said.values())) == {"accepted"} else 3)
            found.update(said)
    return found
