# SPDX-License-Identifier: Apache-2.0
"""
Feeds both verifiers the same input with Atheris, and stops on any disagreement, crash or foreign exception.

    python tests/fuzz/differential.py object|policy CHECK STORES [libFuzzer options]

CHECK is the C verifier of loader/fuzz (under ASan and UBSan), STORES the directory of the vectors' trust
stores. An input has the form of the C targets: one byte that selects, then the file.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS))

with atheris.instrument_imports(include=["buildtool"]):
    from labs.verifiers import CVerifier, python_store, python_verdict

    from buildtool.trust.store import load_trust

from mutations import mutate_json, mutate_object  # noqa: E402 - found on the path of this folder

NOW = 1_780_272_000  # 2026-06-01T00:00:00Z, the time of the vectors
ANY_PLATFORM = 0x80
PLATFORM = "linux/amd64"


def object_target(c: CVerifier, stores: Path) -> Callable[[bytes], None]:
    """Return the target for objects."""
    paths = sorted(stores.iterdir())
    loaded = [load_trust([path]) for path in paths]
    state = {"store": -1, "platform": b"?"}
    c.setting("N", str(NOW).encode())

    def compare(data: bytes) -> None:
        if not data:
            return
        store, platform = (data[0] & ~ANY_PLATFORM) % len(paths), None if data[0] & ANY_PLATFORM else PLATFORM
        if state["store"] != store:
            assert c.ask("T", bytes(paths[store])) == "trust"
        if state["platform"] != platform:
            c.setting("P", (platform or "").encode())
        state.update(store=store, platform=platform)
        theirs, ours = c.ask("O", data[1:]), python_verdict(data[1:], loaded[store], platform, NOW)
        assert theirs == ours, f"{paths[store].name}: C says {theirs}, Python says {ours}"

    return compare


def policy_target(c: CVerifier, work: Path) -> Callable[[bytes], None]:
    """Return the target for trust stores."""
    names = work / "store", work / "store.pub"

    def compare(data: bytes) -> None:
        if not data:
            return
        is_key = bool(data[0] & 1)
        names[is_key].write_bytes(data[1:])
        theirs, ours = c.ask("K" if is_key else "Y", data[1:]), python_store(names[is_key], is_key=is_key)
        assert theirs == ours, f"C says {theirs}, Python says {ours}"

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
    kind, program, stores = sys.argv[1:4]
    # In memory: each input is a file for Python to read.
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as work:
        c = CVerifier(Path(program))
        target = object_target(c, Path(stores)) if kind == "object" else policy_target(c, Path(work))
        atheris.Setup([sys.argv[0], *sys.argv[4:]], target, custom_mutator=mutator(kind))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
