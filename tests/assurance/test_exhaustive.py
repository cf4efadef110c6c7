# SPDX-License-Identifier: Apache-2.0
"""Every small change of a small object, refused by every verifier for the same reason."""

from __future__ import annotations

import functools
import tempfile
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from labs.vectors.index import INDEX, write_store
from labs.verifiers import ask_all, python_verdict, question

from buildtool.core.strictjson import parse_time
from buildtool.trust.store import load_trust

NOW = parse_time(INDEX["now"])
# Both byte orders, one signer and two that are both needed: a signature more than the policy asks for may be
# damaged or go, as one of an unknown key may.
SMALL_OBJECTS = ("plain", "two-of-three", "big-endian")


def flip_bits(data: bytes) -> Iterator[bytes]:
    """Yield *data* with one bit changed, for every bit."""
    for at in range(len(data)):
        for bit in range(8):
            yield data[:at] + bytes((data[at] ^ 1 << bit,)) + data[at + 1 :]


def truncate(data: bytes) -> Iterator[bytes]:
    """Yield every prefix of *data*."""
    return (data[:size] for size in range(len(data)))


def extend(data: bytes) -> Iterator[bytes]:
    """Yield *data* with one byte more: every byte at its end, and a zero at every offset."""
    for byte in range(256):
        yield data + bytes((byte,))
    for at in range(len(data)):
        yield data[:at] + b"\0" + data[at:]


def remove(data: bytes) -> Iterator[bytes]:
    """Yield *data* without one byte, for every byte."""
    return (data[:at] + data[at + 1 :] for at in range(len(data)))


CHANGES = {"bits": flip_bits, "truncations": truncate, "extensions": extend, "removals": remove}


@functools.cache
def find_vector(name: str) -> dict[str, str]:
    """Return the vector of this name."""
    (vector,) = [item for item in INDEX["vectors"] if item["name"] == name]
    return vector


@functools.cache
def make_changes(name: str, change: str) -> list[bytes]:
    """Return the vector's object, and all its changes of a kind."""
    data = b64decode(find_vector(name)["file"])
    return [data, *CHANGES[change](data)]


@functools.cache
def python_verdicts(name: str, change: str) -> list[str]:
    """Return what the Python verifier says about each of these; the other verifiers are compared with it."""
    vector = find_vector(name)
    with tempfile.TemporaryDirectory() as directory:
        trust = load_trust([write_store(Path(directory), INDEX["trust"][vector["trust"]])])
    return [python_verdict(case, trust, vector["platform"], NOW) for case in make_changes(name, change)]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", SMALL_OBJECTS)
def test_every_change_is_refused_alike(
    name: str, change: str, verifier_program: Path, tmp_path: Path, record_property: Any
) -> None:
    """No bit, length or byte of a signed object can change unnoticed, and all say the same word."""
    vector = find_vector(name)
    settings = (
        question("T", bytes(write_store(tmp_path / "store", INDEX["trust"][vector["trust"]]))),
        question("P", vector["platform"].encode()),
        question("N", str(NOW).encode()),
    )
    changed = make_changes(name, change)
    said_trust, *theirs = ask_all(verifier_program, settings, (question("O", case) for case in changed))
    ours = python_verdicts(name, change)
    assert said_trust == "trust"
    assert theirs == ours
    assert ours[0].startswith("accepted ")
    assert len(ours) > len(changed[0])
    assert not [at for at, word in enumerate(ours[1:]) if word.startswith("accepted")]
    record_property("cases", len(ours) - 1)
    record_property("reasons", dict(Counter(ours[1:])))
