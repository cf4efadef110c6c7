# SPDX-License-Identifier: Apache-2.0
"""Read the metrics of pinned objects, as families of `prometheus_client`, which writes the text formats."""

from __future__ import annotations

import logging
import os
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from prometheus_client import Metric as Family
from prometheus_client.exposition import choose_encoder

from buildtool.core.errors import BuildtoolError, FileAccessError, ObjectFormatError, system_reason
from buildtool.core.text import escape, replace_bytes
from buildtool.metrics.bpfcall import open_btf, read_btf
from buildtool.metrics.declared import Metric, Table, read_metrics
from buildtool.metrics.grammar import Kind
from buildtool.metrics.names import Names
from buildtool.metrics.pinned import PinnedObject, Place, list_entries, open_object
from buildtool.metrics.samples import MAX_ENTRIES, MAX_SERIES, Numbers, Series, read_table
from buildtool.objects.btf import Btf

log = logging.getLogger(__name__)

_ORDER = "<" if struct.pack("=H", 1) == b"\1\0" else ">"
_TYPES = {
    Kind.COUNTER: "counter",
    Kind.GAUGE: "gauge",
    Kind.LOG2: "histogram",
    Kind.LINEAR: "histogram",
    Kind.INFO: "info",
}
_SECTIONS = (".bss", ".data", ".rodata")


@dataclass(slots=True)
class _Declarations:
    """The metrics of one BTF in the kernel, or the *error* in them. Its *descriptor* keeps the id in use."""

    descriptor: int
    tables: tuple[Table, ...] = ()
    error: ObjectFormatError | None = None


@dataclass(slots=True, kw_only=True)
class Reader:
    """
    Reads the metrics of all objects in *places*.

    *max_series* of one metric of one object are shown. *warn* gets a line when something is left out, once
    until it is no longer so. *failed* is the number of objects whose metrics the last reading could not read.
    """

    places: Sequence[Place]
    warn: Callable[[str], None]
    max_series: int = MAX_SERIES
    max_entries: int = MAX_ENTRIES
    names: Names = field(default_factory=Names)
    failed: int = 0
    _declared: dict[int, _Declarations] = field(default_factory=dict)
    _warned: set[str] = field(default_factory=set)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """
        Return the text of one reading and its media type, in the format that HTTP's *accept* asks for.

        Raises: BuildtoolError, if a directory of pins cannot be read.
        """
        found = _Collected(list(self.collect()))
        try:
            encode, media_type = choose_encoder(accept)
            return encode(found), media_type
        except (ValueError, TypeError, LookupError, AttributeError):  # of a header that no client sends
            encode, media_type = choose_encoder("")
            return encode(found), media_type

    def collect(self) -> Iterator[Family]:
        """
        Yield the families of one reading.

        Raises: BuildtoolError, if a directory of pins cannot be read.
        """
        started = time.perf_counter()
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
        yield from run.families()
        yield _own("buildtool_metrics_objects", "Objects that were read", run.objects)
        seconds = time.perf_counter() - started
        yield _own("buildtool_metrics_read_seconds", "Time that this reading took", seconds)

    def declarations(self, number: int) -> _Declarations:
        """
        Return the metrics in the BTF with id *number*. They are read once.

        Raises: OSError.
        """
        if number not in self._declared:
            found = _Declarations(open_btf(number))
            self._declared[number] = found
            try:
                found.tables = read_metrics(Btf(read_btf(found.descriptor), _ORDER))
            except ObjectFormatError as error:
                found.error = error
        return self._declared[number]

    def _forget(self, used: set[int]) -> None:
        for number in self._declared.keys() - used:
            os.close(self._declared.pop(number).descriptor)


@dataclass(slots=True)
class _Collected:
    """What prometheus_client calls a registry: something to collect from."""

    found: Sequence[Family]

    def collect(self) -> Iterator[Family]:
        """Yield the families."""
        yield from self.found


class _Run:
    """One reading."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._families: dict[str, tuple[Metric, Family]] = {}
        self._problems: dict[str, Family] = {}
        self.lines = set[str]()
        self.used = set[int]()
        self.objects = self.failed = 0

    def families(self) -> Iterator[Family]:
        """Yield the families in the order of their names."""
        yield from (family for _, (_, family) in sorted(self._families.items()))
        yield from (family for _, family in sorted(self._problems.items()))

    def add(self, pinned: PinnedObject) -> None:
        """Add the metrics of one object. A fault becomes a line and a metric, and leaves other maps alone."""
        if not pinned.btf_ids:
            return
        self.objects += 1
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
        limits = {"max_entries": reader.max_entries, "max_series": reader.max_series}
        for series in read_table(table, source, reader.names, **limits):
            self._add_series(pinned, series)
        if source.cut:
            label = {"map": table.name}
            self._problem(pinned, "buildtool_metrics_map_cut", "Maps with more entries than are read", label)
            self.lines.add(
                f"{escape(pinned.name)}: map {table.name}: more than {reader.max_entries} entries:"
                " only these were read, and metrics that add up several keys are left out"
            )

    def _add_series(self, pinned: PinnedObject, series: Series) -> None:
        metric = series.metric
        known, family = self._families.setdefault(
            metric.family,
            (metric, Family(_family_name(metric), metric.help, _TYPES[metric.kind], metric.unit)),
        )
        if (known.name, known.kind) != (metric.name, metric.kind):
            raise ObjectFormatError(f"metric {metric.name}: another object declares it with another kind")
        own, names = self._labels(pinned), metric.label_names
        for row, numbers in sorted(series.numbers.items()):
            labels = {**own, **dict(zip(names, row, strict=True))}
            _add_samples(family, metric, labels, numbers)
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
        family = self._problems.setdefault(name, Family(name, text, "gauge"))
        family.add_sample(name, {**self._labels(pinned), **more}, 1)


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


def _family_name(metric: Metric) -> str:
    return metric.family if metric.kind in (Kind.COUNTER, Kind.INFO) else metric.name


def _own(name: str, text: str, value: float) -> Family:
    family = Family(name, text, "gauge")
    family.add_sample(name, {}, value)
    return family


def _add_samples(family: Family, metric: Metric, labels: dict[str, str], numbers: Numbers) -> None:
    if not metric.kind.is_histogram:
        family.add_sample(metric.name, labels, _convert(metric, numbers[0]))
        return
    total, last = 0, len(numbers) - 2
    for slot, number in enumerate(numbers[:-1]):
        total += number
        bound = "+Inf" if slot == last else repr(_convert(metric, _upper(metric, slot)))
        family.add_sample(f"{metric.name}_bucket", {**labels, "le": bound}, total)
    family.add_sample(f"{metric.name}_count", labels, total)
    if metric.sum is not None:
        family.add_sample(f"{metric.name}_sum", labels, _convert(metric, numbers[-1]))


def _upper(metric: Metric, slot: int) -> int:
    """Return the greatest number that *slot* holds."""
    if metric.kind is Kind.LOG2:
        return (2 << slot) - 1
    return metric.start + (slot + 1) * metric.step - 1


def _convert(metric: Metric, number: int) -> float:
    """Return *number* in the base unit. One division rounds once."""
    return number * metric.factor / metric.divisor
