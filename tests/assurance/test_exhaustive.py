# SPDX-License-Identifier: Apache-2.0
"""Every small change of a small object is refused by both verifiers for the same reason."""

from __future__ import annotations

from base64 import b64decode
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from labs.vectors.index import INDEX, write_store
from labs.verifiers import ask_all, build_c_verifier, python_verdict, question

from buildtool.core.strictjson import parse_time
from buildtool.trust.store import load_trust

# Both byte orders, and one signer or two that are both required. A signature beyond the threshold may be
# damaged or missing, like one of an unknown key.
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


@pytest.fixture(scope="module")
def program(clang: Path) -> Path:
    """Return the C verifier that answers questions, under sanitizers."""
    return build_c_verifier(clang)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", SMALL_OBJECTS)
def test_every_change_is_refused_alike(
    name: str, change: str, program: Path, tmp_path: Path, record_property: Any
) -> None:
    """A changed bit, length or byte of a signed object is refused, with the same reason by both verifiers."""
    (vector,) = [item for item in INDEX["vectors"] if item["name"] == name]
    write_store(tmp_path, INDEX["trust"][vector["trust"]])
    data, platform, now = b64decode(vector["file"]), vector["platform"], parse_time(INDEX["now"])
    trust = load_trust([tmp_path])
    assert python_verdict(data, trust, platform, now).startswith("accepted ")
    changed = [data, *CHANGES[change](data)]
    settings = (
        question("T", bytes(tmp_path)),
        question("P", platform.encode()),
        question("N", str(now).encode()),
    )
    said_trust, *theirs = ask_all(program, settings, (question("O", case) for case in changed))
    ours = [python_verdict(case, trust, platform, now) for case in changed]
    assert said_trust == "trust"
    assert theirs == ours
    assert len(ours) > len(data)
    assert not [at for at, word in enumerate(ours[1:]) if word.startswith("accepted")]
    record_property("cases", len(ours) - 1)
    record_property("reasons", dict(Counter(ours[1:])))
