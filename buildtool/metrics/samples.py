# SPDX-License-Identifier: Apache-2.0
"""
Make the series of declared metrics from the entries of a map, within bounds. Source: spec/metrics.md.

Keys that give equal labels are added up. If a metric has more series than the limit, those with the lowest
labels are kept, so that each reading keeps the same ones and the memory stays bounded.
"""

from __future__ import annotations

import heapq
import ipaddress
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from buildtool.metrics.declared import FieldPlace, Label, Metric, Table
from buildtool.metrics.grammar import MAX_LOG2_SLOTS, How, Kind
from buildtool.metrics.maps import Block, Map
from buildtool.metrics.names import Names

MAX_ENTRIES = 1_000_000
MAX_SERIES = 10_000
_CODES = {1: "b", 2: "h", 4: "i", 8: "q"}

Labels = tuple[str, ...]
# A number, or the counts of slots with the sum of all values at the end.
Numbers = list[int]


@dataclass(slots=True)
class Series:
    """
    The series of one *metric*: numbers by labels. *is_cut*: it had more than the limit.

    *adds_up*: a series may be the sum of several keys. *cpus* are the sums of all series by CPU, if they were
    asked for and the map has values for each CPU.
    """

    metric: Metric
    numbers: dict[Labels, Numbers]
    is_cut: bool = False
    adds_up: bool = False
    cpus: list[int] = field(default_factory=list)


def read_table(
    table: Table,
    source: Map,
    names: Names,
    *,
    max_entries: int = MAX_ENTRIES,
    max_series: int = MAX_SERIES,
    by_cpu: bool = False,
) -> list[Series]:
    """
    Return the series of all metrics of *table*, from the map *source*.

    If the map has more entries than *max_entries*, *source* is cut, and metrics that may add up several keys
    are left out.

    Raises: OSError; struct.error, if the map is not the one that was declared.
    """
    makers = [_Maker(metric, table, names, max_series, source) for metric in table.metrics]
    if by_cpu and source.facts.is_per_cpu:
        for maker in makers:
            maker.cpus = [0] * source.cpus
    for block in _variable(table, source) if table.section else source.blocks(max_entries):
        for maker in makers:
            maker.add(block)
    found = [maker for maker in makers if not (source.cut and maker.adds_up)]
    return [maker.finish() for maker in found]


def _variable(table: Table, source: Map) -> Iterator[Block]:
    """Yield the elements of a global variable, which is a part of the only element of a map."""
    size = table.count * table.value_size
    for block in source.blocks(1):
        keys = struct.pack(f"={table.count}I", *range(table.count))
        values = block.values[table.offset : table.offset + size]
        if len(values) != size:
            raise struct.error("variable outside of its section")
        yield Block(
            count=table.count, keys=memoryview(keys), values=memoryview(values), stride=table.value_size
        )


class _Maker:
    """Adds blocks of entries to the series of one metric."""

    def __init__(self, metric: Metric, table: Table, names: Names, limit: int, source: Map) -> None:
        self._metric = metric
        self._limit = limit
        self._series: dict[Labels, Numbers] = {}
        self._highest: Labels | None = None
        self._names = names
        self._is_cut = False
        self.cpus: list[int] = []
        cpus, stride = (1, table.value_size) if table.section else (source.cpus, source.cpu_stride)
        if not table.section and (source.facts.key_size, source.facts.value_size) != (
            table.key_size,
            table.value_size,
        ):
            raise struct.error("map of another size than declared")
        self._read_labels = [self._label_reader(label, table) for label in metric.labels]
        self._key_size = table.key_size
        self._slot = metric.slot
        self._value = _ValueReader(metric.value, cpus, stride) if metric.value else None
        self._sum = _ValueReader(metric.sum, cpus, stride) if metric.sum else None
        self._slots = metric.slots or (MAX_LOG2_SLOTS if metric.kind is Kind.LOG2 else 0)
        self.adds_up = metric.slot is not None or not _covers(metric.labels, table)

    def add(self, block: Block) -> None:
        """Add the entries of *block*."""
        labels = [reader(block.keys, block) for reader in self._read_labels]
        rows: Iterator[Labels] = zip(*labels, strict=True) if labels else iter([()] * block.count)
        if self._metric.kind is Kind.INFO:
            for row in rows:
                self._slot_of(row, 1)[0] = 1
            return
        assert self._value is not None
        values = self._value(block)
        if self.cpus:
            self._value.add_by_cpu(block, self.cpus)
        if self._slot is not None:
            slots = _read_numbers(self._slot, block.keys, self._key_size, block.count)
            for row, slot, (number,) in zip(rows, slots, values, strict=True):
                if number:
                    self._slot_of(row, self._slots + 1)[min(slot, self._slots - 1)] += number
            return
        sums = self._sum(block) if self._sum else None
        size = self._slots + 1 if self._metric.kind.is_histogram else 1
        for at, (row, numbers) in enumerate(zip(rows, values, strict=True)):
            mine = self._slot_of(row, size)
            for place, number in enumerate(numbers):
                mine[place] += number
            if sums is not None:
                mine[-1] += sums[at][0]

    def _slot_of(self, row: Labels, size: int) -> Numbers:
        """Return the numbers of the series *row*, a list nobody keeps if the series is above the limit."""
        found = self._series.get(row)
        if found is not None:
            return found
        if self._highest is not None and row > self._highest:
            self._is_cut = True
            return [0] * size
        found = self._series[row] = [0] * size
        if len(self._series) > 2 * self._limit:
            self._shrink()
        return self._series.get(row, found)

    def _shrink(self) -> None:
        """
        Keep the lowest series.

        Their numbers are whole: a series that is dropped here is above all kept ones, now and later.
        """
        if len(self._series) <= self._limit:
            return
        kept = heapq.nsmallest(self._limit, self._series)
        self._series = {row: self._series[row] for row in kept}
        self._highest = kept[-1]
        self._is_cut = True

    def finish(self) -> Series:
        """Return the series."""
        self._shrink()
        return Series(
            metric=self._metric,
            numbers=self._series,
            is_cut=self._is_cut,
            adds_up=self.adds_up,
            cpus=self.cpus,
        )

    def _label_reader(self, label: Label, table: Table) -> Callable[[memoryview, Block], Sequence[str]]:
        if label.field is None:
            return lambda _, block: [label.constant] * block.count
        return _LabelReader(label, table, self._names)


class _LabelReader:
    """Reads one label of each entry of a block."""

    def __init__(self, label: Label, table: Table, names: Names) -> None:
        assert label.field is not None
        self._label, self._field, self._key_size, self._names = label, label.field, table.key_size, names
        self._show = self._shower()

    def __call__(self, keys: memoryview, block: Block) -> Sequence[str]:
        data, stride = (block.values, block.stride) if self._label.in_value else (keys, self._key_size)
        place, show = self._field, self._show
        if not place.is_integer:
            end = place.offset + place.size
            return [
                show(bytes(data[at + place.offset : at + end]))
                for at in range(0, block.count * stride, stride)
            ]
        numbers = _read_numbers(place, data, stride, block.count)
        if self._label.netns is not None:
            others = _read_numbers(self._label.netns, data, stride, block.count)
            interface = self._names.interface
            return [interface(number, other) for number, other in zip(numbers, others, strict=True)]
        return [show(number) for number in numbers]

    def _shower(self) -> Callable[..., str]:
        how, names = self._label.how, self._names
        showers: dict[How, Callable[..., str]] = {
            How.NUMBER: str,
            How.HEX: hex,
            How.ENUM: lambda number: self._label.names.get(number) or str(number),
            How.TEXT: lambda data: data.partition(b"\0")[0].decode("utf-8", "replace"),
            How.IFNAME: names.interface,
            How.NETNS: names.namespace,
            How.CGROUP: names.cgroup,
            How.IPV4: lambda data: str(ipaddress.IPv4Address(data)),
            How.IPV6: lambda data: str(ipaddress.IPv6Address(data)),
            How.MAC: lambda data: data.hex(":"),
        }
        return showers[how]


class _ValueReader:
    """Reads one field of the values of a block, added up over the CPUs."""

    def __init__(self, place: FieldPlace, cpus: int, stride: int) -> None:
        after = stride - place.offset - place.size * place.count
        one = f"{place.offset}x{place.count}{_code(place)}{after}x"
        self._unpack = struct.Struct(f"={one * cpus}").iter_unpack
        self._count, self._is_plain = place.count, cpus == 1
        self._size = stride * cpus

    def __call__(self, block: Block) -> list[Sequence[int]]:
        if self._size != block.stride:
            raise struct.error("entry of another size than declared")
        rows = self._unpack(block.values[: block.count * block.stride])
        if self._is_plain:
            return list(rows)
        if self._count == 1:
            return [(sum(row),) for row in rows]
        count = self._count
        return [[sum(row[at::count]) for at in range(count)] for row in rows]

    def add_by_cpu(self, block: Block, sums: list[int]) -> None:
        """Add the numbers of the values of *block* to the *sums* of the CPUs."""
        rows = self._unpack(block.values[: block.count * block.stride])
        for at, column in enumerate(zip(*rows, strict=True)):
            sums[at // self._count] += sum(column)


def upper_bound(metric: Metric, slot: int) -> int:
    """Return the greatest number that *slot* of a histogram holds. The last slot also holds greater ones."""
    if metric.kind is Kind.LOG2:
        return (2 << slot) - 1
    return metric.start + (slot + 1) * metric.step - 1


def convert(metric: Metric, number: int) -> float:
    """Return *number* in the base unit. One division rounds once."""
    return number * metric.factor / metric.divisor


def _read_numbers(place: FieldPlace, data: memoryview, stride: int, count: int) -> list[int]:
    after = stride - place.offset - place.size
    unpack = struct.Struct(f"={place.offset}x{_code(place)}{after}x").iter_unpack
    numbers = [number for (number,) in unpack(data[: count * stride])]
    if place.divide:
        numbers = [number // place.divide for number in numbers]
    return [number % place.modulo for number in numbers] if place.modulo else numbers


def _code(place: FieldPlace) -> str:
    code = _CODES[place.size]
    return code if place.signed else code.upper()


def _covers(labels: Sequence[Label], table: Table) -> bool:
    """Return whether two different keys always give different labels."""
    if table.section:
        return True  # a variable is never cut
    covered = set[int]()
    for label in labels:
        place = label.field
        if place is not None and not label.in_value and not place.divide and not place.modulo:
            covered.update(range(place.offset, place.offset + place.size))
    return len(covered) == table.key_size
