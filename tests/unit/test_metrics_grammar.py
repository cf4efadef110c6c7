# SPDX-License-Identifier: Apache-2.0
"""Metric tags: what spec/metrics.md allows is read, and everything else is refused with its reason."""

from __future__ import annotations

import re

import pytest
from labs import TOP
from labs.vectors.metrictags import CONTRADICTORY, GOOD, WRONG

from buildtool.core.errors import MetricTagError
from buildtool.metrics.grammar import (
    RESERVED_LABELS,
    UNITS,
    How,
    Kind,
    LabelText,
    parse_label,
    parse_metric,
)


@pytest.mark.parametrize("text", GOOD)
def test_good_tags(text: str) -> None:
    """Each option is read."""
    assert parse_metric(text) == GOOD[text]


@pytest.mark.parametrize("rest", WRONG)
def test_wrong_options(rest: str) -> None:
    """Each fault has a reason, in one short line without control characters, and the name for its line."""
    with pytest.raises(MetricTagError, match=re.escape(WRONG[rest])) as caught:
        parse_metric(f"a_total counter {rest}")
    assert caught.value.word == "a_total"
    assert caught.value.hint
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("text", CONTRADICTORY)
def test_contradictory_tags(text: str) -> None:
    """Names and options must fit the kind and the unit."""
    with pytest.raises(MetricTagError, match=re.escape(CONTRADICTORY[text])) as caught:
        parse_metric(text)
    assert caught.value.word == (text.split() or [""])[0]


def test_labels_at_members() -> None:
    """A label tag is a name, perhaps with a way to write it."""
    assert parse_label(" netns") == LabelText(name="netns")
    assert parse_label(" interface:ifname(netns) ") == LabelText(
        name="interface", how=How.IFNAME, argument="netns"
    )
    for text in ("", "a b", "a=b", "A", "le", "a:x"):
        with pytest.raises(MetricTagError):
            parse_label(text)


def test_the_specification_has_the_words_of_the_code() -> None:
    """Kinds, units, ways of labels and reserved labels are those of spec/metrics.md."""
    text = (TOP / "spec/metrics.md").read_text("utf-8")
    kinds = re.findall(r"^\| `(\w+)` \| (?:counter|gauge|histogram)", text, re.MULTILINE)
    assert kinds == [*Kind]
    units = text.partition("| unit | base unit")[2].partition("\n- ")[0]
    listed = [row.split("|") for row in units.splitlines() if row.startswith("| `")]
    found = {
        unit: re.findall(r"`(\w+)`", row[2])[0] for row in listed for unit in re.findall(r"`(\w+)`", row[1])
    }
    assert found == {name: unit.base for name, unit in UNITS.items()}
    ways = text.partition("| how | field")[2].partition("\n\n")[0]
    first = [row.split("|")[1] for row in ways.splitlines() if row.startswith("| `")]
    assert sorted(word for cell in first for word in re.findall(r"`(\w+)`", cell)) == sorted(How)
    reserved = re.search(r"underscores\. (.+) are reserved", text)
    assert reserved
    assert set(re.findall(r"`(\w+)`", reserved[1])) == RESERVED_LABELS
