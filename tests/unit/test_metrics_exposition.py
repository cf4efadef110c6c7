# SPDX-License-Identifier: Apache-2.0
"""The formats in which metrics are written."""

from __future__ import annotations

import random

import pytest

from buildtool.metrics.exposition import Reader
from buildtool.metrics.pinned import decode_name, read_object_name

PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPEN = "application/openmetrics-text; version=1.0.0; charset=utf-8"
# What Prometheus 2.53 and 3.5 send.
OLD = (
    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
NEW = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [("", PLAIN), ("text/plain", PLAIN), ("text/html, */*", PLAIN), (OLD, OPEN), (NEW, OPEN)],
)
def test_the_client_chooses_the_format(accept: str, media_type: str) -> None:
    """OpenMetrics has an end; the text format is for everybody else."""
    text, found = Reader(places=[], warn=print).render(accept)
    assert found.startswith(media_type)
    assert text.endswith(b"# EOF\n") == (media_type == OPEN)


def test_no_header_of_a_client_is_an_error() -> None:
    """Two thousand headers of good and bad parts."""
    reader, source = Reader(places=[], warn=print), random.Random(16)  # noqa: S311 - test data
    parts = [
        "text/plain",
        "application/openmetrics-text",
        "version",
        "escaping",
        "=",
        ";",
        ",",
        "1.0.0",
        "9.x",
    ]
    parts += ["dots", "values", "allow-utf-8", "q", "*/*", " ", "0.0.4", "\u0663", "%", "{}"]
    for _ in range(2000):
        text, media_type = reader.render("".join(source.choices(parts, k=source.randrange(14))))
        assert b"buildtool_metrics_objects 0.0" in text
        assert media_type.isprintable()


def test_names_of_objects_have_an_encoding() -> None:
    """Whoever may pin chooses the bytes of names, and whoever may write a record its halves of characters."""
    assert decode_name("a\udcff,b%FF") == "a\ufffd.b\ufffd"
    assert read_object_name(b'{"object": "a\\ud800b"}') == "a\ufffdb"
    assert read_object_name(b'{"object": ') == "unknown"
