# SPDX-License-Identifier: Apache-2.0
"""
tx_latency measures how long packets wait in queues.

The program sees the whole machine. A test therefore reads the histogram of its own devices only, and compares
totals as lower bounds.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path

import pytest
from labs import frames as f
from labs import kernel, net
from labs.compile import compile_shipped
from labs.run import wait_until

MAX_SLOTS = 128 * 64  # TX_MAX_DEVICES * TX_SLOTS of bpf/tx_latency.h
UDP = 17
# 1000 bytes on the wire, to a port without a listener
FRAME = f.ethernet(f.ipv4(f.udp(bytes(958), destination=9), UDP), f.ETH_IPV4)


class Total(IntEnum):
    """Keys of the map tx_totals, as in bpf/tx_latency.h."""

    QUEUED = 0
    SENT = 1
    DROPPED = 2
    LOST = 3
    UNMATCHED = 4
    NO_ROOM = 5


@pytest.fixture(scope="module")
def tx_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the compiled program."""
    return compile_shipped("tx_latency", tmp_path_factory.mktemp("objects"))


@pytest.fixture
def left() -> Iterator[net.Interface]:
    """Return the sending end of a veth pair."""
    with net.veth_pair() as (end, _):
        yield end


@contextmanager
def attached(objects: kernel.Loaded) -> Iterator[None]:
    """Attach the programs, those for the end of a wait first: otherwise some waits would never end."""
    with kernel.tracing_attached(*map(objects.program, ("tx_start", "tx_drop", "tx_queue"))):
        yield


@contextmanager
def measuring(path: Path) -> Iterator[kernel.Loaded]:
    """Load and attach the programs for the duration of the context."""
    with kernel.loaded(path) as objects, attached(objects):
        yield objects


@pytest.fixture
def latency(left: net.Interface, tx_object: Path) -> Iterator[kernel.Loaded]:
    """Attach the programs to the tracepoints after the pair is up."""
    with measuring(tx_object) as objects:
        yield objects


def histogram(objects: kernel.Loaded, interface: net.Interface, index: int | None = None) -> dict[int, int]:
    """Return packets by slot for *interface*, or for another device of its namespace."""
    device = (interface.namespace.inode, index or interface.index)
    slots = {struct.unpack("<III", key): n for key, (n,) in objects.sums("tx_histogram").items()}
    return {slot: n for (netns, ifindex, slot), n in slots.items() if (netns, ifindex) == device}


def totals(objects: kernel.Loaded) -> dict[Total, int]:
    """Return the totals of the whole machine."""
    return {Total(int.from_bytes(key, "little")): n for key, (n,) in objects.sums("tx_totals").items()}


def shape(interface: net.Interface, *options: str) -> None:
    """Make packets wait at *interface* in a token bucket of one frame."""
    interface.namespace.run(
        "tc", "qdisc", "replace", "dev", interface.name, "root", "tbf", "burst", "1500b", *options
    )


def test_every_packet_of_a_device_is_counted_once(left: net.Interface, latency: kernel.Loaded) -> None:
    """A hundred packets make a histogram of a hundred."""
    before = totals(latency)
    left.send(*[FRAME] * 100)
    slots = histogram(latency, left)
    assert sum(slots.values()) == 100
    after = totals(latency)
    assert after[Total.QUEUED] - before[Total.QUEUED] >= 100
    assert after[Total.SENT] - before[Total.SENT] >= 100
    assert after[Total.NO_ROOM] == 0


def test_packets_that_wait_are_in_the_slots_of_their_wait(
    left: net.Interface, latency: kernel.Loaded
) -> None:
    """At 1 Mbit/s a 1000-byte packet takes 8 ms, so the last of ten waited 68 ms or more."""
    shape(left, "rate", "1mbit", "limit", "100kb")
    left.send(*[FRAME] * 10)
    assert wait_until(lambda: sum(histogram(latency, left).values()) == 10), totals(latency)
    slots = histogram(latency, left)
    four_ms, sixty_seven_ms, four_seconds = 22, 26, 32
    assert sum(n for slot, n in slots.items() if slot >= four_ms) >= 8, slots
    assert max(slots) in range(sixty_seven_ms, four_seconds), slots


def test_dropped_packets_are_counted_and_not_measured(left: net.Interface, latency: kernel.Loaded) -> None:
    """Packets that a full queue drops are in no slot and do not stay in flight."""
    # The queue sends the second packet after four seconds, long after the test has ended.
    shape(left, "rate", "1kbit", "limit", "2000b")
    before = totals(latency)
    dropped = _send_and_count_drops(left, 20)
    assert dropped >= 16
    assert sum(histogram(latency, left).values()) == 1
    assert totals(latency)[Total.DROPPED] - before[Total.DROPPED] >= dropped
    # Removing the queue frees the packets that wait in it.
    left.namespace.run("tc", "qdisc", "del", "dev", left.name, "root")
    assert wait_until(lambda: totals(latency)[Total.DROPPED] - before[Total.DROPPED] >= 19)
    assert sum(histogram(latency, left).values()) == 1


def _send_and_count_drops(interface: net.Interface, number: int) -> int:
    dropped = 0
    with interface.namespace.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
        out.bind((interface.name, 0))
        for _ in range(number):
            try:
                out.send(FRAME)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                dropped += 1
    return dropped


def test_stacked_devices_are_measured_each(left: net.Interface, latency: kernel.Loaded) -> None:
    """A packet to a bridge is measured at the bridge and again at its port, with the same buffer."""
    run = left.namespace.run
    run("ip", "link", "add", "bridge0", "type", "bridge", "mcast_snooping", "0")
    run("ip", "link", "set", left.name, "master", "bridge0")
    run("ip", "link", "set", "bridge0", "up")
    before = totals(latency)
    with left.namespace.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
        out.bind(("bridge0", 0))
        for _ in range(30):
            out.send(FRAME)
    with left.namespace.entered():
        bridge = socket.if_nametoindex("bridge0")
    assert sum(histogram(latency, left, bridge).values()) == 30
    assert sum(histogram(latency, left).values()) == 30
    # A start time left from the bridge would count as lost when the buffer reaches the port.
    assert totals(latency)[Total.LOST] - before[Total.LOST] < 30


def test_equal_indexes_of_two_namespaces_are_apart(tx_object: Path) -> None:
    """Both ends of a pair have the same interface index, and each has its own histogram."""
    with net.veth_pair() as (left, right), measuring(tx_object) as latency:
        assert left.index == right.index
        left.send(*[FRAME] * 3)
        right.send(*[FRAME] * 5)
        assert sum(histogram(latency, left).values()) == 3
        assert sum(histogram(latency, right).values()) == 5


def test_a_full_histogram_is_counted(left: net.Interface, tx_object: Path) -> None:
    """Packets without a free slot still go out and are counted."""
    with kernel.loaded(tx_object) as objects:
        # Fill before the programs run: packets of the machine would take slots meanwhile.
        objects.fill("tx_histogram", (struct.pack("<III", 1, number, 0) for number in range(MAX_SLOTS)), 8)
        with attached(objects):
            left.send(*[FRAME] * 10)
            assert totals(objects)[Total.NO_ROOM] >= 10
            assert histogram(objects, left) == {}
