# SPDX-License-Identifier: Apache-2.0
"""
Atheris: feed all verifiers the same input and stop on any disagreement, crash or foreign exception.

    python tests/fuzz/differential.py object|policy CHECKS STORES [libFuzzer options]

CHECKS are the programs of the other verifiers, with colons between them: C of loader/fuzz (under ASan and
UBSan), and those of bindings/ whose toolchains are installed. STORES is the directory of the vectors' trust
stores. Inputs look like those of the C targets: a byte that selects, then the file.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import atheris

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS))

with atheris.instrument_imports(include=["buildtool"]):
    from labs.verifiers import Verifier, python_store, python_verdict

    from buildtool.trust.store import load_trust

from mutations import mutate_json, mutate_object  # noqa: E402 - found on the path of this folder

NOW = 1_780_272_000  # 2026-06-01T00:00:00Z, the time of the vectors
ANY_PLATFORM = 0x80
PLATFORM = "linux/amd64"
Others = Mapping[str, Verifier]


def check_alike(others: Others, kind: str, data: bytes, ours: str, about: str) -> None:
    """Ask the *others* the same question. Their answers must be that of Python."""
    for name, verifier in others.items():
        theirs = verifier.ask(kind, data)
        assert theirs == ours, f"{about}: {name} says {theirs}, Python says {ours}"


def object_target(others: Others, stores: Path) -> Callable[[bytes], None]:
    """Return the target for objects."""
    paths = sorted(stores.iterdir())
    loaded = [load_trust([path]) for path in paths]
    state = {"store": -1, "platform": b"?"}
    for verifier in others.values():
        verifier.setting("N", str(NOW).encode())

    def compare(data: bytes) -> None:
        if not data:
            return
        store, platform = (data[0] & ~ANY_PLATFORM) % len(paths), None if data[0] & ANY_PLATFORM else PLATFORM
        if state["store"] != store:
            check_alike(others, "T", bytes(paths[store]), "trust", paths[store].name)
        if state["platform"] != platform:
            for verifier in others.values():
                verifier.setting("P", (platform or "").encode())
        state.update(store=store, platform=platform)
        ours = python_verdict(data[1:], loaded[store], platform, NOW)
        check_alike(others, "O", data[1:], ours, paths[store].name)

    return compare


def policy_target(others: Others, work: Path) -> Callable[[bytes], None]:
    """Return the target for trust stores."""
    names = work / "store", work / "store.pub"

    def compare(data: bytes) -> None:
        if not data:
            return
        is_key = bool(data[0] & 1)
        names[is_key].write_bytes(data[1:])
        ours = python_store(names[is_key], is_key=is_key)
        check_alike(others, "K" if is_key else "Y", data[1:], ours, names[is_key].name)

    return compare


def mutator(kind: str) -> Callable[[bytes, int, int], bytes]:
    """Return a function that changes inputs, mostly by the structure of policies and objects."""

    def change(data: bytes, room: int, seed: int) -> bytes:
        rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
        if len(data) < 2 or rng.random() < 0.05:
            return atheris.Mutate(data, room)
        head, body = data[:1], data[1:]
        if rng.random() < 0.1:
            head = bytes((rng.randrange(256),))
        if kind == "object":
            body = mutate_object(body, rng, atheris.Mutate, room - 1)
        elif not head[0] & 1 and rng.random() < 0.8:
            body = mutate_json(body, rng, atheris.Mutate)
        else:
            body = atheris.Mutate(body, room - 1)
        return (head + body)[:room]

    return change


def main() -> None:
    """Fuzz until the options or a finding end it."""
    kind, programs, stores = sys.argv[1:4]
    # In memory: each input is a file for Python to read.
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as work:
        others = {program: Verifier(Path(program)) for program in programs.split(":")}
        target = (
            object_target(others, Path(stores)) if kind == "object" else policy_target(others, Path(work))
        )
        atheris.Setup([sys.argv[0], *sys.argv[4:]], target, custom_mutator=mutator(kind))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
