# SPDX-License-Identifier: Apache-2.0
"""The C verifier gives the expected answer to every vector."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from labs.vectors.index import INDEX, write_store
from labs.verifiers import Verifier, decision, loader_lines, run_loader

from buildtool.core.errors import RefusedError
from buildtool.core.strictjson import parse_time
from buildtool.trust.store import load_trust
from buildtool.trust.verify import verify_object

# Each test asks for its verifier's fixture by name, so that it builds only this one. The marks are therefore
# explicit.
pytestmark = [pytest.mark.tools, pytest.mark.network]

Answer = Callable[[str], str]


@pytest.fixture(scope="module")
def lines(
    loader_binary: Path, stores: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """Return the line of the loader as it ships about each vector, in one run for each store and platform."""
    return loader_lines(loader_binary, stores, tmp_path_factory.mktemp("vectors"))


@pytest.fixture(scope="module")
def answers(lines: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return the decision of the loader as it ships about each vector."""
    return {name: decision(line) for name, line in lines.items()}


@pytest.fixture(params=["release", "sanitized"])
def answer(request: pytest.FixtureRequest, stores: Path) -> Answer:
    """Return a function that answers a vector: the shipped loader, or its verifier under ASan and UBSan."""
    vectors = {vector["name"]: vector for vector in INDEX["vectors"]}
    if request.param == "release":
        found: dict[str, str] = request.getfixturevalue("answers")
        return found.__getitem__
    c_verifier: Verifier = request.getfixturevalue("c_verifier")

    def ask(name: str) -> str:
        vector = vectors[name]
        assert c_verifier.ask("T", bytes(stores / vector["trust"])) == "trust"
        c_verifier.setting("P", vector["platform"].encode())
        c_verifier.setting("N", str(parse_time(INDEX["now"])).encode())
        return c_verifier.ask("O", b64decode(vector["file"])).split()[0]

    return ask


def test_there_are_vectors() -> None:
    """The lists are not empty."""
    assert len(INDEX["vectors"]) > 150
    assert len(INDEX["badTrust"]) > 30


@pytest.mark.parametrize("vector", INDEX["vectors"], ids=lambda vector: str(vector["name"]))
def test_vector(vector: dict[str, str], answer: Answer) -> None:
    """The verifier gives the answer that the vector expects."""
    assert answer(vector["name"]) == vector["expect"]


# Parsers have words of their own. C knows the helpers' numbers only, keeps flavours, and shows no surrogates.
OWN_WORDS = re.compile(r"the (code|maps) cannot be read: |the code calls (helper |.*___)|.*\ufffd")


def test_both_verifiers_say_the_same_words(lines: dict[str, dict[str, Any]], stores: Path) -> None:
    """A refusal of an object that can be read has one text, with object, value and bound, and then a hint."""
    same = 0
    for vector in INDEX["vectors"]:
        line = lines[vector["name"]]
        if decision(line) in ("accepted", "malformed") or OWN_WORDS.match(line["message"]):
            continue
        with pytest.raises(RefusedError) as caught:
            verify_object(
                b64decode(vector["file"]),
                load_trust([stores / vector["trust"]]),
                platform=vector["platform"],
                now=parse_time(INDEX["now"]),
            )
        assert line["message"].partition("; ")[0] == caught.value.message, vector["name"]
        same += 1
    assert same > 100


@pytest.mark.parametrize("expect", ["accepted", "malformed", "unknown-key"])
def test_exit_code_of_one_object(expect: str, loader_binary: Path, stores: Path, tmp_path: Path) -> None:
    """The exit code of a run with one object is that of its decision."""
    vector = next(vector for vector in INDEX["vectors"] if vector["expect"] == expect)
    path = tmp_path / "x.bpf.o"
    path.write_bytes(b64decode(vector["file"]))
    options = ["--trust", stores / vector["trust"], "--platform", vector["platform"], "--time", INDEX["now"]]
    code, lines = run_loader(loader_binary, "--objects", path, *options)
    assert [decision(line) for line in lines if line["event"] == "verify"] == [expect]
    assert code == (0 if expect == "accepted" else 3)


@pytest.mark.parametrize("name", INDEX["badTrust"])
@pytest.mark.parametrize("build", ["release", "sanitized"])
def test_bad_trust_store_is_a_configuration_error(
    name: str, build: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """A bad trust store is exit code 2, and nothing is verified."""
    store = write_store(tmp_path / "store", INDEX["badTrust"][name])
    if build == "sanitized":
        c_verifier: Verifier = request.getfixturevalue("c_verifier")
        assert c_verifier.ask("T", bytes(store)) == "bad-trust"
        return
    loader: Path = request.getfixturevalue("loader_binary")
    code, lines = run_loader(loader, "--objects", tmp_path, "--trust", store)
    assert code == 2
    assert [line["event"] for line in lines] == ["error"]
