# SPDX-License-Identifier: Apache-2.0
"""gadget.yaml from labels of any text: a reader of YAML finds the same text."""

from __future__ import annotations

import io

import pytest
import yaml
from ruamel.yaml import YAML

from buildtool.core.platforms import PLATFORMS
from buildtool.publish.gadget import gadget_annotations, gadget_part

TEXTS = {
    "plain": "Counts packets",
    "syntax": "a: {b} # \"c\" \\ 'd'",
    "delete": "a\x7fb",
    "a control character of eight bits": "a\x9bb",
    "a line end of YAML 1.1": "a\x85b\u2028c\u2029d",
    "line ends": "a\r\nb\tc",
    "a byte order mark": "\ufeffa\ufffe",
    "beyond 16 bits": "\u00e9 \U0001f41d",
}


def metadata(text: str) -> bytes:
    """Return the gadget.yaml of an image with the description *text*."""
    annotations = gadget_annotations("x", {"org.opencontainers.image.description": text}, "now")
    return gadget_part(PLATFORMS["amd64"], b"", metadata=None, annotations=annotations).config.data


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_labels_are_read_back(text: str) -> None:
    """By readers of YAML 1.1 and 1.2."""
    data = metadata(text)
    wanted = {"name": "x", "description": text}
    assert yaml.safe_load(data) == wanted
    assert YAML(typ="safe", pure=True).load(io.BytesIO(data)) == wanted


def test_half_a_character_is_replaced() -> None:
    """A lone surrogate, which JSON can write, has no bytes in UTF-8."""
    found = yaml.safe_load(metadata("a\ud800b"))["description"]
    assert set(found) == set("a\ufffdb")
