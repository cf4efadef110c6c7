# SPDX-License-Identifier: Apache-2.0
"""The loader's verifier on every vector: the same answers as the Python one, from other code."""

from __future__ import annotations

import subprocess
from base64 import b64decode
from pathlib import Path

import pytest
from labs.vectors.index import INDEX, write_store
from labs.verifiers import run_loader

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module", params=["release", "sanitized"])
def verifier(request: pytest.FixtureRequest, loader_binary: Path, clang: Path) -> Path:
    """Give the loader as it ships, and its verifier under ASan and UBSan."""
    if request.param == "release":
        return loader_binary
    output = loader_binary.with_name("sanitized")
    argv = ["make", "-C", HERE.parents[1] / "loader", "sanitized", f"CLANG={clang}", f"OUT={output}"]
    subprocess.run(argv, check=True, capture_output=True)
    return output


def test_there_are_vectors() -> None:
    """An empty list would prove nothing."""
    assert len(INDEX["vectors"]) > 150
    assert len(INDEX["badTrust"]) > 30


@pytest.mark.parametrize("vector", INDEX["vectors"], ids=lambda vector: str(vector["name"]))
def test_vector(vector: dict[str, str], stores: Path, verifier: Path, tmp_path: Path) -> None:
    """The loader says what the vector expects, with the exit code that belongs to it."""
    path = tmp_path / "x.bpf.o"
    path.write_bytes(b64decode(vector["file"]))
    options = ["--platform", vector["platform"], "--time", INDEX["now"]]
    store = str(stores / vector["trust"])
    code, lines = run_loader(verifier, "--objects", str(path), "--trust", store, *options)
    assert lines[0].get("reason", lines[0]["decision"]) == vector["expect"], lines
    assert code == (0 if vector["expect"] == "accepted" else 3)


@pytest.mark.parametrize("name", INDEX["badTrust"])
def test_bad_trust_store_is_a_configuration_error(name: str, verifier: Path, tmp_path: Path) -> None:
    """Nothing is verified with a store that breaks a rule."""
    store = write_store(tmp_path / "store", INDEX["badTrust"][name])
    code, lines = run_loader(verifier, "--objects", str(tmp_path), "--trust", str(store))
    assert code == 2
    assert [line["event"] for line in lines] == ["error"]
