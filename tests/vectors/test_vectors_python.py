# SPDX-License-Identifier: Apache-2.0
"""The Python verifier gives the expected answer to every vector."""

from __future__ import annotations

import subprocess
import sys
from base64 import b64decode
from pathlib import Path

import pytest
from labs.vectors.index import INDEX, write_store

from buildtool.core.errors import ConfigError, RefusedError
from buildtool.core.strictjson import parse_time
from buildtool.trust.store import load_trust
from buildtool.trust.verify import verify_object

HERE = Path(__file__).resolve().parent


def test_there_are_vectors() -> None:
    """The lists are not empty."""
    assert len(INDEX["vectors"]) > 150
    assert len(INDEX["badTrust"]) > 30


@pytest.mark.parametrize("vector", INDEX["vectors"], ids=lambda vector: str(vector["name"]))
def test_vector(vector: dict[str, str], stores: Path) -> None:
    """The verifier gives the answer that the vector expects."""
    trust = load_trust([stores / vector["trust"]])
    now = parse_time(INDEX["now"])
    try:
        verify_object(b64decode(vector["file"]), trust, platform=vector["platform"], now=now)
        decision = "accepted"
    except RefusedError as error:
        decision = error.reason
    assert decision == vector["expect"]


@pytest.mark.parametrize("name", INDEX["badTrust"])
def test_bad_trust_store_is_a_configuration_error(name: str, tmp_path: Path) -> None:
    """A bad trust store is a configuration error."""
    with pytest.raises(ConfigError) as caught:
        load_trust([write_store(tmp_path / "store", INDEX["badTrust"][name])])
    assert "\n" not in caught.value.message


def test_vectors_are_what_the_generator_makes() -> None:
    """A second run of the generator gives the same bytes."""
    subprocess.run([sys.executable, HERE / "generate.py", "--check"], check=True)
