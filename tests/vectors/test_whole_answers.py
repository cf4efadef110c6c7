# SPDX-License-Identifier: Apache-2.0
"""All verifiers give the same whole answers: digest and counted keys, and all that they read of a store."""

from __future__ import annotations

from base64 import b64decode
from pathlib import Path

import pytest
from labs.vectors.index import INDEX
from labs.verifiers import Verifier, python_store, python_verdict

from buildtool.core.strictjson import parse_time
from buildtool.trust.store import load_trust

FILES = {
    f"{name}-{file}": (file, text)
    for kind in ("trust", "badTrust")
    for name, listed in INDEX[kind].items()
    for file, text in listed.items()
    if file == "policy.json" or file.endswith(".pub")
}


@pytest.mark.parametrize("vector", INDEX["vectors"], ids=lambda vector: str(vector["name"]))
def test_object(vector: dict[str, str], verifier: Verifier, stores: Path) -> None:
    """An accepted object has one digest and one list of counted keys."""
    data, store, now = b64decode(vector["file"]), stores / vector["trust"], parse_time(INDEX["now"])
    assert verifier.ask("T", bytes(store)) == "trust"
    verifier.setting("P", vector["platform"].encode())
    verifier.setting("N", str(now).encode())
    answer = python_verdict(data, load_trust([store]), vector["platform"], now)
    assert verifier.ask("O", data) == answer
    assert answer.split()[0] == vector["expect"]


@pytest.mark.parametrize("name", FILES)
def test_store(name: str, verifier: Verifier, tmp_path: Path) -> None:
    """A policy or key has one digest, and the same threshold, limits, times and keys."""
    file, text = FILES[name]
    (tmp_path / file).write_bytes(text.encode())
    is_key = file.endswith(".pub")
    answer = python_store(tmp_path / file, is_key=is_key)
    assert verifier.ask("K" if is_key else "Y", text.encode()) == answer
