# SPDX-License-Identifier: Apache-2.0
"""Write the metrics of pinned objects as families of `prometheus_client`, which writes the text formats."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import Metric as Family
from prometheus_client.exposition import choose_encoder

from buildtool.metrics.declared import Metric
from buildtool.metrics.grammar import Kind
from buildtool.metrics.reading import Reading, SeriesReader
from buildtool.metrics.samples import Numbers, convert, upper_bound

log = logging.getLogger(__name__)

_TYPES = {
    Kind.COUNTER: "counter",
    Kind.GAUGE: "gauge",
    Kind.LOG2: "histogram",
    Kind.LINEAR: "histogram",
    Kind.INFO: "info",
}


@dataclass(slots=True, kw_only=True)
class Reader(SeriesReader):
    """Reads the metrics of all objects in its places, and writes them in the formats of Prometheus."""

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
        reading = self.read()
        yield from _families(reading)
        yield _own("buildtool_metrics_objects", "Objects that were read", reading.objects)
        seconds = time.perf_counter() - started
        yield _own("buildtool_metrics_read_seconds", "Time that this reading took", seconds)


@dataclass(slots=True)
class _Collected:
    """What prometheus_client calls a registry: something to collect from."""

    found: Sequence[Family]

    def collect(self) -> Iterator[Family]:
        """Yield the families."""
        yield from self.found


def _families(reading: Reading) -> Iterator[Family]:
    """Yield the families of *reading* in the order of their names, then those about problems."""
    families: dict[str, Family] = {}
    for found in reading.series:
        metric = found.series.metric
        family = families.get(metric.family)
        if family is None:
            kind = _TYPES[metric.kind]
            families[metric.family] = family = Family(_family_name(metric), metric.help, kind, metric.unit)
        names = metric.label_names
        for row, numbers in sorted(found.series.numbers.items()):
            labels = {**found.owner, **dict(zip(names, row, strict=True))}
            _add_samples(family, metric, labels, numbers)
    yield from (family for _, family in sorted(families.items()))
    problems: dict[str, Family] = {}
    for problem in reading.problems:
        family = problems.setdefault(problem.name, Family(problem.name, problem.help, "gauge"))
        family.add_sample(problem.name, dict(problem.labels), 1)
    yield from (family for _, family in sorted(problems.items()))


def _family_name(metric: Metric) -> str:
    return metric.family if metric.kind in (Kind.COUNTER, Kind.INFO) else metric.name


def _own(name: str, text: str, value: float) -> Family:
    family = Family(name, text, "gauge")
    family.add_sample(name, {}, value)
    return family


def _add_samples(family: Family, metric: Metric, labels: dict[str, str], numbers: Numbers) -> None:
    if not metric.kind.is_histogram:
        family.add_sample(metric.name, labels, convert(metric, numbers[0]))
        return
    total, last = 0, len(numbers) - 2
    for slot, number in enumerate(numbers[:-1]):
        total += number
        bound = "+Inf" if slot == last else repr(convert(metric, upper_bound(metric, slot)))
        family.add_sample(f"{metric.name}_bucket", {**labels, "le": bound}, total)
    family.add_sample(f"{metric.name}_count", labels, total)
    if metric.sum is not None:
        family.add_sample(f"{metric.name}_sum", labels, convert(metric, numbers[-1]))
