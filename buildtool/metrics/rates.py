# SPDX-License-Identifier: Apache-2.0
"""
What counted from one reading of declared metrics to the next.

A change is given only where it is certain. It is None in the first interval of a metric; for a series that
comes in when others were left out; and for a sum of several keys that falls, because a key was removed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from buildtool.metrics.declared import Metric
from buildtool.metrics.grammar import Kind
from buildtool.metrics.reading import ObjectSeries, Problem, SeriesReader
from buildtool.metrics.samples import Labels, Numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesChange:
    """
    A series of *labels* in the program's own units: its *total*, for a histogram the count of all slots.

    *change* is what was added to it, and *slots* are the changes of each slot. A gauge has no change.
    """

    labels: Labels
    total: int
    change: int | None
    slots: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricChange:
    """
    The *series* of a *metric* of the object that the labels *owner* name.

    *change* is the sum of those of the series, and *cpus* has it by CPU for a map with values for each CPU.
    Both are None if they are not known. *is_cut*: some series were left out.
    """

    owner: Mapping[str, str]
    metric: Metric
    series: tuple[SeriesChange, ...]
    change: int | None
    cpus: tuple[int, ...] | None
    is_cut: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """What happened in some *seconds*, to the metrics of *objects* objects. *problems*: what is left out."""

    seconds: float
    objects: int
    metrics: tuple[MetricChange, ...]
    problems: tuple[Problem, ...]


@dataclass(slots=True)
class _Before:
    """One metric in the reading before."""

    map_id: int
    is_cut: bool
    numbers: dict[Labels, Numbers]
    cpus: list[int]


@dataclass(slots=True)
class RateMeter:
    """Compares readings of *reader*. Call `begin` once, and then `read` for each interval."""

    reader: SeriesReader
    clock: Callable[[], float] = time.monotonic
    _before: dict[tuple[object, ...], _Before] = field(default_factory=dict)
    _at: float = 0.0

    def begin(self) -> None:
        """
        Take the reading with which the first interval begins.

        Raises: BuildtoolError, if a directory of pins cannot be read.
        """
        self.read()

    def read(self) -> Interval:
        """
        Return what changed since the reading before.

        Raises: BuildtoolError, if a directory of pins cannot be read.
        """
        at = self.clock()
        reading = self.reader.read()
        before, self._before = self._before, {}
        metrics = []
        for found in reading.series:
            metric = found.series.metric
            constants = tuple(label.constant for label in metric.labels)
            key = (*found.owner.items(), found.table, metric.name, constants)
            metrics.append(_compare(found, before.get(key)))
            self._before[key] = _Before(
                found.map_id, found.series.is_cut, found.series.numbers, found.series.cpus
            )
        seconds, self._at = at - self._at, at
        return Interval(
            seconds=seconds,
            objects=reading.objects,
            metrics=tuple(metrics),
            problems=tuple(reading.problems),
        )


def _compare(found: ObjectSeries, before: _Before | None) -> MetricChange:
    series = found.series
    is_new_map = before is not None and before.map_id != found.map_id
    changes = []
    for labels, numbers in sorted(series.numbers.items()):
        counts = numbers[:-1] if series.metric.kind.is_histogram else numbers
        total = sum(counts)
        if before is None or series.metric.kind in (Kind.GAUGE, Kind.INFO):
            changes.append(SeriesChange(labels=labels, total=total, change=None))
            continue
        old = None if is_new_map else before.numbers.get(labels)
        slots = _differences(
            counts,
            old[: len(counts)] if old else None,
            is_certain=is_new_map or not before.is_cut,
            adds_up=series.adds_up,
        )
        if slots is None:
            changes.append(SeriesChange(labels=labels, total=total, change=None))
        else:
            shown = slots if series.metric.kind.is_histogram else ()
            changes.append(SeriesChange(labels=labels, total=total, change=sum(slots), slots=shown))
    known = [each.change for each in changes if each.change is not None]
    return MetricChange(
        owner=found.owner,
        metric=series.metric,
        series=tuple(changes),
        change=sum(known) if known and not series.is_cut else None,
        cpus=_compare_cpus(series.cpus, before, is_new_map=is_new_map),
        is_cut=series.is_cut,
    )


def _differences(
    now: Numbers, before: Numbers | None, *, is_certain: bool, adds_up: bool
) -> tuple[int, ...] | None:
    """Return what was added to each number of a series, or None if that cannot be known."""
    if before is None:
        # An entry that was not there counts from 0, if all entries were seen.
        return tuple(now) if is_certain else None
    changes = tuple(a - b for a, b in zip(now, before, strict=True))
    if min(changes) >= 0:
        return changes
    # The entry was removed and made again.
    return None if adds_up else tuple(now)


def _compare_cpus(now: list[int], before: _Before | None, *, is_new_map: bool) -> tuple[int, ...] | None:
    if not now or before is None:
        return None
    if is_new_map:
        return tuple(now)
    changes = tuple(a - b for a, b in zip(now, before.cpus, strict=True))
    return changes if min(changes) >= 0 else None
