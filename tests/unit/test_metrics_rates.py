# SPDX-License-Identifier: Apache-2.0
"""Changes between readings: restarts, new maps, removed keys, and what is not certain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest

from buildtool.metrics.declared import FieldPlace, Label, Metric
from buildtool.metrics.grammar import Kind
from buildtool.metrics.rates import MetricChange, RateMeter
from buildtool.metrics.reading import ObjectSeries, Reading, SeriesReader
from buildtool.metrics.samples import Labels, Series

Numbers = dict[Labels, list[int]]
COUNTER = Metric(
    name="a_total", kind=Kind.COUNTER, help="A", labels=(Label(name="x", field=FieldPlace(offset=0, size=4)),)
)


def reading(
    numbers: Numbers,
    *,
    kind: Kind = Kind.COUNTER,
    map_id: int = 1,
    is_cut: bool = False,
    adds_up: bool = False,
    cpus: Sequence[int] = (),
) -> Reading:
    """Return a reading of one metric."""
    metric = Metric(name="a_total", kind=kind, help="A", labels=COUNTER.labels)
    series = Series(metric=metric, numbers=numbers, is_cut=is_cut, adds_up=adds_up, cpus=list(cpus))
    found = ObjectSeries(owner={"object": "x"}, table="t", map_id=map_id, series=series)
    return Reading(series=[found], objects=1)


def compare(*readings: Reading) -> MetricChange:
    """Return the metric in the interval between the last two of *readings*."""

    class Reader:
        def __init__(self) -> None:
            self.left = list(readings)

        def read(self) -> Reading:
            return self.left.pop(0)

    ticks = iter(range(0, 100, 2))
    meter = RateMeter(cast("SeriesReader", Reader()), clock=lambda: next(ticks))
    meter.begin()
    for _ in readings[2:]:
        meter.read()
    found = meter.read()
    assert found.seconds == 2
    return found.metrics[0]


def changes(found: MetricChange) -> dict[str, int | None]:
    """Return the changes by label."""
    return {series.labels[0]: series.change for series in found.series}


ONE: Numbers = {("1",): [10]}


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        ([reading(ONE), reading({("1",): [14]})], {"1": 4}),
        ([reading(ONE), reading({("1",): [14], ("2",): [3]})], {"1": 4, "2": 3}),
        ([reading({("1",): [10], ("2",): [3]}), reading(ONE)], {"1": 0}),
        # An entry that was removed and made again; a sum of several keys may have lost one of them.
        ([reading(ONE), reading({("1",): [4]})], {"1": 4}),
        ([reading(ONE), reading({("1",): [4]}, adds_up=True)], {"1": None}),
        # A map that an update made begins at 0.
        ([reading(ONE), reading({("1",): [14]}, map_id=2)], {"1": 14}),
        # A series that was left out before has counted for longer than the interval.
        ([reading(ONE, is_cut=True), reading({("1",): [11], ("2",): [9]})], {"1": 1, "2": None}),
        ([reading(ONE, kind=Kind.GAUGE), reading(ONE, kind=Kind.GAUGE)], {"1": None}),
        # A reading that failed, or an object that was not loaded: nobody knows when it began.
        ([reading(ONE), Reading(), reading({("1",): [14]})], {"1": None}),
    ],
)
def test_changes(readings: list[Reading], expected: dict[str, int | None]) -> None:
    """A change is given where it is certain."""
    found = compare(*readings)
    assert changes(found) == expected
    known = [change for change in expected.values() if change is not None]
    assert found.change == (sum(known) if known else None)


def test_slots_of_histograms() -> None:
    """Each slot has its change, and the sum at the end of the numbers is none of them."""
    before, after = {("1",): [1, 2, 3, 100]}, {("1",): [1, 4, 4, 900]}
    found = compare(reading(before, kind=Kind.LOG2), reading(after, kind=Kind.LOG2))
    assert (found.series[0].slots, found.series[0].change, found.series[0].total) == ((0, 2, 1), 3, 9)


def test_changes_of_cpus() -> None:
    """CPUs are compared one by one; after a removal of keys they are not known; a new map begins at 0."""
    assert compare(reading(ONE, cpus=(4, 6)), reading(ONE, cpus=(4, 9))).cpus == (0, 3)
    assert compare(reading(ONE, cpus=(4, 6)), reading(ONE, cpus=(9, 5))).cpus is None
    assert compare(reading(ONE, cpus=(4, 6)), reading(ONE, cpus=(9, 5), map_id=2)).cpus == (9, 5)
    assert compare(reading(ONE), reading(ONE)).cpus is None


def test_a_sum_of_a_part_is_not_shown() -> None:
    """The rate of a metric with series left out would be too low."""
    found = compare(reading(ONE), reading(ONE, is_cut=True))
    assert (found.change, found.is_cut, changes(found)) == (None, True, {"1": 0})
