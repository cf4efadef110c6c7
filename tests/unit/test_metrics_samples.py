# SPDX-License-Identifier: Apache-2.0
"""Series of entries: numbers of all sizes, labels of all kinds, sums, slots, and hostile keys."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
from labs.metrics import parse_text
from prometheus_client import Metric as Family
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from buildtool.metrics.bpfcall import MapFacts
from buildtool.metrics.declared import FieldPlace, Label, Metric, Table
from buildtool.metrics.grammar import How, Kind
from buildtool.metrics.maps import Block, Map
from buildtool.metrics.names import Names
from buildtool.metrics.samples import read_table

U32, U64 = FieldPlace(offset=0, size=4), FieldPlace(offset=0, size=8)


@dataclass
class Entries:
    """Stands for a map, whose entries a real kernel could not make as wrong."""

    keys: Sequence[bytes]
    values: Sequence[bytes]
    cpus: int = 1
    cut: bool = False
    blocks_of: int = 2
    facts: MapFacts = field(init=False)

    def __post_init__(self) -> None:
        """Describe the map."""
        self.facts = MapFacts(
            type=1,
            id=1,
            key_size=len(self.keys[0]),
            value_size=len(self.values[0]) // self.cpus,
            max_entries=len(self.keys),
            flags=0,
            name="m",
            btf_id=0,
        )

    @property
    def cpu_stride(self) -> int:
        """Return the bytes of one CPU's value."""
        return self.facts.value_size

    def blocks(self, limit: int) -> Iterator[Block]:
        """Yield small blocks."""
        for at in range(0, min(limit, len(self.keys)), self.blocks_of):
            keys, values = self.keys[at : at + self.blocks_of], self.values[at : at + self.blocks_of]
            yield Block(
                count=len(keys),
                keys=memoryview(b"".join(keys)),
                values=memoryview(b"".join(values)),
                stride=len(values[0]),
            )


def series(metric: Metric, entries: Entries, **limits: int) -> dict[tuple[str, ...], list[int]]:
    """Return the numbers of *metric* by labels."""
    facts = entries.facts
    table = Table(name="m", key_size=facts.key_size, value_size=facts.value_size, metrics=(metric,))
    found = read_table(table, cast("Map", entries), Names(), **limits)
    return found[0].numbers if found else {}


def metric(*labels: Label, kind: Kind = Kind.COUNTER, **more: object) -> Metric:
    """Return a metric of a value of 8 bytes."""
    values = {"value": U64, **more}
    return Metric(name="a_total", kind=kind, help="A", labels=labels, **values)  # type: ignore[arg-type]


def label(how: How = How.NUMBER, place: FieldPlace = U32, **more: object) -> Label:
    """Return a label of the key."""
    return Label(name="l", how=how, field=place, **more)  # type: ignore[arg-type]


def words(*numbers: int) -> bytes:
    """Return words of 8 bytes."""
    return struct.pack(f"={len(numbers)}Q", *numbers)


def test_cpus_and_equal_labels_are_added_up() -> None:
    """Three keys with two labels on two CPUs, in blocks of two entries."""
    keys = [struct.pack("=II", *key) for key in ((1, 1), (1, 2), (2, 1))]
    entries = Entries(keys, [words(1, 10), words(2, 20), words(2**64 - 1, 1)], cpus=2)
    assert series(metric(label()), entries) == {("1",): [33], ("2",): [2**64]}


@pytest.mark.parametrize(("size", "code"), [(1, "B"), (2, "H"), (4, "I"), (8, "Q")])
@pytest.mark.parametrize("signed", [False, True])
def test_numbers_of_all_sizes(size: int, code: str, *, signed: bool) -> None:
    """The highest number, and -1 for those with a sign, at an odd place."""
    place = FieldPlace(offset=3, size=size, signed=signed)
    value = b"abc" + b"\xff" * size + b"z"
    expected = -1 if signed else struct.unpack(f"={code}", b"\xff" * size)[0]
    found = series(metric(kind=Kind.GAUGE, value=place), Entries([bytes(4)], [value]))
    assert found == {(): [expected]}


TEXT = FieldPlace(offset=0, size=16, is_integer=False)
LABELS = {
    "number": (label(), struct.pack("=I", 7), "7"),
    "hex": (label(How.HEX), struct.pack("=I", 255), "0xff"),
    "enum": (label(How.ENUM, names={7: "SEVEN"}), struct.pack("=I", 7), "SEVEN"),
    "enum without a name": (label(How.ENUM, names={7: "SEVEN"}), struct.pack("=I", 8), "8"),
    "quotient": (label(place=FieldPlace(offset=0, size=4, divide=32)), struct.pack("=I", 100), "3"),
    "remainder": (label(place=FieldPlace(offset=0, size=4, modulo=32)), struct.pack("=I", 100), "4"),
    "both": (label(place=FieldPlace(offset=0, size=4, divide=10, modulo=4)), struct.pack("=I", 107), "2"),
    "text": (label(How.TEXT, TEXT), b"eth0\0garbage-----", "eth0"),
    "text without an end": (label(How.TEXT, TEXT), b"0123456789abcdef", "0123456789abcdef"),
    "text that is none": (label(How.TEXT, TEXT), b"\xff\xfe\0".ljust(16, b"x"), "\ufffd\ufffd"),
    "ipv4": (
        label(How.IPV4, FieldPlace(offset=0, size=4, is_integer=False)),
        bytes([10, 0, 0, 1]),
        "10.0.0.1",
    ),
    "ipv6": (label(How.IPV6, TEXT), bytes.fromhex("20010db8" + "0" * 23 + "1"), "2001:db8::1"),
    "mac": (
        label(How.MAC, FieldPlace(offset=0, size=6, is_integer=False)),
        bytes(range(6)),
        "00:01:02:03:04:05",
    ),
    "loopback": (label(How.IFNAME), struct.pack("=I", 1), "lo"),
    "no interface": (label(How.IFNAME), struct.pack("=I", 2**31), "2147483648"),
    "interface of another namespace": (
        label(How.IFNAME, FieldPlace(offset=4, size=4), netns=U32),
        struct.pack("=II", 5, 1),
        "1",
    ),
    "no namespace": (label(How.NETNS), struct.pack("=I", 5), "5"),
    "no cgroup": (label(How.CGROUP, U64), words(2**63 + 5), str(2**63 + 5)),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels(name: str) -> None:
    """Each way to write a label, and numbers without a name."""
    made, key, expected = LABELS[name]
    assert series(metric(made), Entries([key], [words(1)])) == {(expected,): [1]}


def test_interfaces_are_looked_up_once_in_a_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand labels cost one look-up, and the next reading sees a new name."""
    asked: list[int] = []

    def interfaces() -> list[tuple[int, str]]:
        asked.append(1)
        return [(3, f"name{len(asked)}")]

    monkeypatch.setattr("buildtool.metrics.names.socket.if_nameindex", interfaces)
    names = Names()
    for reading in (1, 2):
        names.begin()
        own = Path("/proc/self/ns/net").stat().st_ino
        assert {names.interface(index) for index in [3] * 1000} == {f"name{reading}"}
        assert {names.interface(3, own) for _ in range(1000)} == {f"name{reading}"}
    assert len(asked) == 2


def test_a_slot_beyond_the_last_counts_in_the_last() -> None:
    """A key may come from packets: no slot is lost, and none is outside of the histogram."""
    keys = [struct.pack("=I", slot) for slot in (0, 3, 4, 2**32 - 1)]
    made = metric(kind=Kind.LOG2, slot=U32, slots=4)
    assert series(made, Entries(keys, [words(n) for n in (1, 2, 4, 8)])) == {(): [1, 0, 0, 14, 0]}


def test_slots_in_the_value_with_a_sum() -> None:
    """Slots and sums of two CPUs are added up."""
    place = FieldPlace(offset=0, size=8, count=3)
    made = metric(kind=Kind.LOG2, value=place, slots=3, sum=FieldPlace(offset=24, size=8))
    entries = Entries([bytes(4)], [words(1, 2, 3, 50, 10, 20, 30, 500)], cpus=2)
    assert series(made, entries) == {(): [11, 22, 33, 550]}


def test_kept_series_have_whole_numbers() -> None:
    """Each label comes with two keys: however they are mixed, a kept series has both."""
    keys = [struct.pack("=II", n * 37 % 100, part) for part in range(2) for n in range(100)]
    found = series(metric(label()), Entries(keys, [words(1)] * 200), max_series=5)
    lowest = sorted(str(n) for n in range(100))[:5]
    assert found == {(name,): [2] for name in lowest}


def test_a_cut_map_shows_no_partial_sum() -> None:
    """A metric whose labels do not tell all keys apart is left out."""
    keys = [struct.pack("=II", n, 1) for n in range(4)]
    both = (label(), Label(name="k", field=FieldPlace(offset=4, size=4)))
    entries = Entries(keys, [words(1)] * 4, cut=True)
    assert series(metric(label()), entries) == {}
    assert len(series(metric(*both), entries)) == 4


@pytest.mark.parametrize(("key_size", "value_size"), [(8, 8), (4, 16)])
def test_a_map_of_other_sizes_is_refused(key_size: int, value_size: int) -> None:
    """A declaration of another object would read the wrong bytes."""
    entries = Entries([bytes(4)], [bytes(8)])
    table = Table(name="m", key_size=key_size, value_size=value_size, metrics=(metric(),))
    with pytest.raises(struct.error, match="another size"):
        read_table(table, cast("Map", entries), Names())


def test_hostile_labels_are_escaped() -> None:
    """Quotes, backslashes and line feeds from a packet stay inside of their label."""
    text = b'a"} 1\nb_total{c="\\\0'.ljust(32, b"\0")
    made = label(How.TEXT, FieldPlace(offset=0, size=32, is_integer=False))
    ((row, _),) = series(metric(made), Entries([text], [words(1)])).items()
    family = Family("a", "A", "counter")
    family.add_sample("a_total", {"l": row[0]}, 1)

    class Found:
        """Something to collect from."""

        def collect(self) -> Iterator[Family]:
            """Yield the family."""
            yield family

    written = generate_latest(cast("Collector", Found())).decode()
    assert parse_text(written) == {("a_total", (("l", 'a"} 1\nb_total{c="\\'),)): 1}
