# SPDX-License-Identifier: Apache-2.0
"""Read the series of all metrics of all objects in directories of pins."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from buildtool.core.errors import BuildtoolError, FileAccessError, ObjectFormatError, system_reason
from buildtool.core.text import escape, replace_bytes
from buildtool.metrics.bpfcall import NATIVE_ORDER, open_btf, read_btf
from buildtool.metrics.declared import Metric, Table, read_metrics
from buildtool.metrics.names import Names
from buildtool.metrics.pinned import PinnedObject, Place, list_entries, open_object
from buildtool.metrics.samples import MAX_ENTRIES, MAX_SERIES, Series, read_table
from buildtool.objects.btf import Btf

_SECTIONS = (".bss", ".data", ".rodata")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectSeries:
    """
    The *series* of one metric of an object, from one *table* of its declarations.

    *owner* has the labels that name the object. *map_id* is the kernel's number of the map.
    """

    owner: Mapping[str, str]
    table: str
    map_id: int
    series: Series


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A metric about something that was left out: its *name*, its *help* and its *labels*."""

    name: str
    help: str
    labels: Mapping[str, str]


@dataclass(slots=True)
class Reading:
    """One reading of *objects* objects."""

    series: list[ObjectSeries] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    objects: int = 0


@dataclass(slots=True)
class _Declarations:
    """The metrics of one BTF in the kernel, or the *error* in them. Its *descriptor* keeps the id in use."""

    descriptor: int
    tables: tuple[Table, ...] = ()
    error: ObjectFormatError | None = None


@dataclass(slots=True, kw_only=True)
class SeriesReader:
    """
    Reads the metrics of all objects in *places*.

    *max_series* of one metric of one object are shown. *warn* gets a line when something is left out, once
    until it is no longer so. *failed* is the number of objects whose metrics the last reading could not read.
    With *by_cpu*, series have the numbers of each CPU, too.
    """

    places: Sequence[Place]
    warn: Callable[[str], None]
    max_series: int = MAX_SERIES
    max_entries: int = MAX_ENTRIES
    names: Names = field(default_factory=Names)
    failed: int = 0
    by_cpu: bool = False
    _declared: dict[int, _Declarations] = field(default_factory=dict)
    _warned: set[str] = field(default_factory=set)

    def read(self) -> Reading:
        """
        Return one reading of all objects.

        Raises: BuildtoolError, if a directory of pins cannot be read.
        """
        self.names.begin()
        run = _Run(self)
        for place in self.places:
            for entry in list_entries(place):
                pinned = open_object(place, entry)
                if pinned is not None:
                    try:
                        run.add(pinned)
                    finally:
                        pinned.close()
        self._forget(run.used)
        for line in sorted(run.lines - self._warned):
            self.warn(line)
        self._warned, self.failed = run.lines, run.failed
        return run.reading

    def declarations(self, number: int) -> _Declarations:
        """
        Return the metrics in the BTF with id *number*. They are read once.

        Raises: OSError.
        """
        if number not in self._declared:
            found = _Declarations(open_btf(number))
            self._declared[number] = found
            try:
                found.tables = read_metrics(Btf(read_btf(found.descriptor), NATIVE_ORDER))
            except ObjectFormatError as error:
                found.error = error
        return self._declared[number]

    def _forget(self, used: set[int]) -> None:
        for number in self._declared.keys() - used:
            os.close(self._declared.pop(number).descriptor)


class _Run:
    """One reading."""

    def __init__(self, reader: SeriesReader) -> None:
        self._reader = reader
        self._known: dict[str, Metric] = {}
        self.reading = Reading()
        self.lines = set[str]()
        self.used = set[int]()
        self.failed = 0

    def add(self, pinned: PinnedObject) -> None:
        """Add the metrics of one object. A fault becomes a line and a metric, and leaves other maps alone."""
        if not pinned.btf_ids:
            return
        self.reading.objects += 1
        problems = []
        try:
            declared = self._declarations(pinned.btf_ids[0])
        except OSError as error:
            declared = _Declarations(-1, error=ObjectFormatError(f"BTF: cannot read: {system_reason(error)}"))
        if declared.error is not None:
            problems.append(declared.error.message)
        for table in declared.tables:
            try:
                self._add_table(pinned, table)
            except (BuildtoolError, OSError, struct.error) as error:
                problems.append(f"{table.name}: {_reason(error)}")
        if problems:
            self.failed += 1
            self._problem(pinned, "buildtool_metrics_object_failed", "Objects with unreadable metrics", {})
            self.lines |= {f"{escape(pinned.name)}: no metrics: {problem}" for problem in problems}

    def _declarations(self, number: int) -> _Declarations:
        self.used.add(number)
        return self._reader.declarations(number)

    def _add_table(self, pinned: PinnedObject, table: Table) -> None:
        source = next(
            (each for name, each in pinned.maps.items() if _is_of(table, name)),
            None,
        )
        if source is None:
            raise FileAccessError("not among the pinned maps")
        reader = self._reader
        for series in read_table(
            table,
            source,
            reader.names,
            max_entries=reader.max_entries,
            max_series=reader.max_series,
            by_cpu=reader.by_cpu,
        ):
            self._add_series(pinned, table, source.facts.id, series)
        if source.cut:
            label = {"map": table.name}
            self._problem(pinned, "buildtool_metrics_map_cut", "Maps with more entries than are read", label)
            self.lines.add(
                f"{escape(pinned.name)}: map {table.name}: more than {reader.max_entries} entries:"
                " only these were read, and metrics that add up several keys are left out"
            )

    def _add_series(self, pinned: PinnedObject, table: Table, map_id: int, series: Series) -> None:
        metric = series.metric
        known = self._known.setdefault(metric.family, metric)
        if (known.name, known.kind) != (metric.name, metric.kind):
            raise ObjectFormatError(f"metric {metric.name}: another object declares it with another kind")
        owner = self._labels(pinned)
        self.reading.series.append(
            ObjectSeries(owner=owner, table=table.section + table.name, map_id=map_id, series=series)
        )
        if series.is_cut:
            label = {"metric": metric.name}
            text = "Metrics with more series than are shown"
            self._problem(pinned, "buildtool_metrics_series_cut", text, label)
            self.lines.add(
                f"{escape(pinned.name)}: metric {metric.name}: more than {self._reader.max_series} series:"
                " those with the lowest labels are shown"
            )

    def _labels(self, pinned: PinnedObject) -> dict[str, str]:
        labels = {"object": pinned.name}
        if len(self._reader.places) > 1:
            labels["place"] = replace_bytes(str(pinned.place.directory))
        if pinned.entry:
            labels["entry"] = replace_bytes(pinned.entry)
        return labels

    def _problem(self, pinned: PinnedObject, name: str, text: str, more: dict[str, str]) -> None:
        labels = {**self._labels(pinned), **more}
        self.reading.problems.append(Problem(name=name, help=text, labels=labels))


def _reason(error: Exception) -> str:
    if isinstance(error, BuildtoolError):
        return error.message
    return system_reason(error) if isinstance(error, OSError) else str(error)


def _is_of(table: Table, name: str) -> bool:
    """Return whether the map that libbpf calls *name* is that of *table*: PREFIX.bss is the map of .bss."""
    if not table.section:
        return name == table.name
    return name == table.section or (
        table.section in _SECTIONS and not name.startswith(".") and name.endswith(table.section)
    )
