# SPDX-License-Identifier: Apache-2.0
"""opcua_monitor counts real packets exactly: valid ones, malformed ones and those of a TCP session."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from labs import frames as f
from labs import kernel, net
from labs.compile import compile_shipped
from labs.opcua import CASES, HELLO, MESSAGES, UADP, Count, Counts, tcp4, udp4
from labs.run import WAIT_SECONDS, wait_until

ETH_P_ALL = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitor:
    """The program attached to *right*; frames are sent from *left*."""

    left: net.Interface
    right: net.Interface
    objects: kernel.Loaded

    def counts(self) -> Counts:
        """Return (messages, bytes) by kind."""
        sums = self.objects.sums("opcua_counts", words=2)
        return {Count(_key(key)): (n, size) for key, (n, size) in sums.items() if n or size}

    def sizes(self) -> dict[tuple[Count, int], int]:
        """Return the number of messages by kind and size class."""
        sums = self.objects.sums("opcua_sizes")
        return {(Count(_key(key) // 32), _key(key) % 32): n for key, (n,) in sums.items() if n}

    def expect(self, expected: Counts) -> None:
        """Assert that exactly *expected* is counted."""
        wait_until(lambda: self.counts() == expected)
        assert self.counts() == expected


def _key(key: bytes) -> int:
    return int.from_bytes(key, "little")


@pytest.fixture(scope="module")
def monitor_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the compiled program."""
    return compile_shipped("opcua_monitor", tmp_path_factory.mktemp("objects"))


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[net.Interface, net.Interface]]:
    """Make one veth pair for all tests of this module; each test loads the program again."""
    with net.veth_pair() as ends:
        yield ends


@contextmanager
def monitoring(pair: tuple[net.Interface, net.Interface], path: Path, mode: str) -> Iterator[Monitor]:
    """Attach a fresh copy of the program to the right end."""
    left, right = pair
    with (
        kernel.loaded(path) as objects,
        kernel.xdp_attached(right, objects.program("opcua_monitor"), mode),
    ):
        yield Monitor(left=left, right=right, objects=objects)


@pytest.fixture
def monitor(pair: tuple[net.Interface, net.Interface], monitor_object: Path) -> Iterator[Monitor]:
    """Attach the program in the driver's XDP mode."""
    with monitoring(pair, monitor_object, "xdpdrv") as attached:
        yield attached


def total(*parts: Counts) -> Counts:
    """Return the sum of *parts*."""
    result: Counts = {}
    for part in parts:
        for what, (number, size) in part.items():
            before = result.get(what, (0, 0))
            result[what] = (before[0] + number, before[1] + size)
    return result


@pytest.mark.parametrize("name", CASES)
def test_each_frame_is_counted_for_what_it_is(monitor: Monitor, name: str) -> None:
    """One frame raises exactly its own counts. The known frame after it shows that it was handled."""
    frame, expected = CASES[name]
    monitor.left.send(frame, udp4(UADP))
    monitor.expect(total(expected, {Count.UADP: (1, 41)}))


def test_every_count_has_a_frame() -> None:
    """A test frame exists for every count of the header file."""
    assert {what for _, counts in CASES.values() for what in counts} == set(Count)


@pytest.mark.parametrize("mode", ["xdpdrv", "xdpgeneric"])
def test_a_mix_of_all_frames_adds_up(
    pair: tuple[net.Interface, net.Interface], monitor_object: Path, mode: str
) -> None:
    """Fifty rounds of all frames are counted completely, in driver and generic mode."""
    rounds = 50
    with monitoring(pair, monitor_object, mode) as monitor:
        for _ in range(rounds):
            monitor.left.send(*(frame for frame, _ in CASES.values()))
        monitor.expect(total(*[counts for _, counts in CASES.values()] * rounds))


def test_sizes_fall_into_their_classes(monitor: Monitor) -> None:
    """Class n holds 2^n to 2^(n+1) - 1 bytes, per message type."""
    sizes = [8, 15, 16, 31, 32, 65535, 65536, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
    monitor.left.send(*(tcp4(f.message(b"MSG", size=size)) for size in sizes), tcp4(HELLO), udp4(UADP))
    expected = {
        **{(Count.MSG, order): 2 for order in (3, 4, 31)},
        **{(Count.MSG, order): 1 for order in (5, 15, 16, 30)},
        (Count.HEL, 5): 1,
        (Count.UADP, 5): 1,
    }
    wait_until(lambda: monitor.sizes() == expected)
    assert monitor.sizes() == expected


def test_every_packet_passes(monitor: Monitor) -> None:
    """Every frame, valid or malformed, arrives unchanged behind the program."""
    sent = [f.padded(frame) for frame, _ in CASES.values()]
    with monitor.right.namespace.socket(socket.AF_PACKET, socket.SOCK_RAW) as sink:
        sink.bind((monitor.right.name, ETH_P_ALL))
        sink.settimeout(WAIT_SECONDS)
        arrived = []
        for frame in sent:
            monitor.left.send(frame)
            arrived.append(_receive(sink))
    assert arrived == [_without_tag(frame) for frame in sent]


def _receive(sink: socket.socket) -> bytes:
    """Return the next frame of the test, and skip frames of the host itself."""
    while True:
        frame = sink.recv(2048)
        if frame.startswith(f.TEST_ADDRESSES):
            return frame


def _without_tag(frame: bytes) -> bytes:
    """Return *frame* without its outer VLAN tag, which the kernel strips after XDP."""
    tagged = int.from_bytes(frame[12:14], "big") in (f.ETH_8021Q, f.ETH_8021AD)
    return frame[:12] + frame[16:] if tagged else frame


def test_a_tcp_session_is_counted_on_both_sides(monitor: Monitor) -> None:
    """Each side's interface counts what the other one sends, split at TCP's segments."""
    program = monitor.objects.program("opcua_monitor")
    with (
        kernel.xdp_attached(monitor.left, program),
        monitor.right.namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as listener,
    ):
        segment = _talk(listener, monitor)
    big = 4000
    rest = big - segment
    monitor.expect(
        {
            Count.HEL: (1, len(HELLO)),
            Count.ACK: (1, 28),
            Count.OPN: (2, 264),
            Count.MSG: (3, big + 216),
            Count.OTHER: (-(-rest // segment), rest),
            Count.CLO: (1, 57),
        }
    )


def _talk(listener: socket.socket, monitor: Monitor) -> int:
    """Hold an OPC UA conversation; return the bytes that one segment carries."""
    listener.bind((monitor.right.ipv4, f.OPCUA_PORT))
    listener.listen()
    big = f.message(b"MSG", bytes(3992))
    with monitor.left.namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(WAIT_SECONDS)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.connect((monitor.right.ipv4, f.OPCUA_PORT))
        server, _ = listener.accept()
        with server:
            server.settimeout(WAIT_SECONDS)
            _pass(client, server, HELLO)
            _pass(server, client, f.acknowledge())
            _pass(client, server, MESSAGES[Count.OPN])
            _pass(server, client, MESSAGES[Count.OPN])
            _pass(client, server, MESSAGES[Count.MSG] * 2)
            _pass(client, server, big)
            _pass(client, server, MESSAGES[Count.CLO])
            return client.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)


def _pass(sender: socket.socket, receiver: socket.socket, data: bytes) -> None:
    sender.sendall(data)
    arrived = b""
    while len(arrived) < len(data):
        arrived += receiver.recv(65536)
    assert arrived == data
