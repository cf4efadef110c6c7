# SPDX-License-Identifier: Apache-2.0
"""The vectors of metric tags are those of the tables, and the reader in Python gives their answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from labs import TOP
from labs.vectors.metrictags import describe_metric, make_document

from buildtool.core.errors import MetricTagError
from buildtool.metrics.grammar import PREFIX, parse_metric

PATH = TOP / "tests/vectors/metrics.json"
DOCUMENT = json.loads(PATH.read_text("utf-8"))


def test_the_vectors_are_those_of_the_tables() -> None:
    """A change of a table is a change of the vectors."""
    assert PATH.read_text("utf-8") == make_document(), "run labs.vectors.metrictags, see there"
    assert len(DOCUMENT["read"]) > 5
    assert len(DOCUMENT["refused"]) > 80


@pytest.mark.parametrize("vector", DOCUMENT["read"], ids=lambda vector: vector["tag"])
def test_read(vector: dict[str, Any]) -> None:
    """The tag is read, with all of its parts."""
    found = parse_metric(vector["tag"].removeprefix(PREFIX.decode()))
    assert describe_metric(found) == vector["metric"]


@pytest.mark.parametrize("vector", DOCUMENT["refused"], ids=lambda vector: vector["why"])
def test_refused(vector: dict[str, str]) -> None:
    """The tag is refused."""
    with pytest.raises(MetricTagError):
        parse_metric(vector["tag"].removeprefix(PREFIX.decode()))
