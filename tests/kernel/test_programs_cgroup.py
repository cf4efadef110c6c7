# SPDX-License-Identifier: Apache-2.0
"""cgroup_traffic counts the traffic of real sockets, each for its own cgroup."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from labs import kernel, net
from labs.compile import compile_shipped
from labs.run import WAIT_SECONDS, wait_until

IPV4_UDP_BYTES = 28
MAX_CGROUPS = 4096  # CGROUP_MAX of bpf/cgroup_traffic.h
COUNTERS_BYTES = 32
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """The traffic of one cgroup: (packets, bytes) in each direction."""

    ingress: tuple[int, int] = (0, 0)
    egress: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """The program attached to *cgroup*; sockets talk over the loopback of *namespace*."""

    cgroup: Path
    namespace: net.Namespace
    objects: kernel.Loaded

    def traffic(self) -> dict[int, Traffic]:
        """Return the traffic by cgroup id."""
        return {
            int.from_bytes(key, "little"): Traffic(ingress=(sums[0], sums[1]), egress=(sums[2], sums[3]))
            for key, sums in self.objects.sums("cgroup_traffic", words=4).items()
        }

    def missed(self) -> tuple[int, ...]:
        """Return (packets, bytes) that found no free element in the map."""
        return self.objects.sums("cgroup_missed", words=2)[bytes(4)]

    def child(self, name: str) -> Path:
        """Make a cgroup below *cgroup*."""
        made = self.cgroup / name
        made.mkdir()
        return made

    def socket(self, cgroup: Path | None, kind: int) -> socket.socket:
        """Return a bound socket that belongs to *cgroup*, or to a cgroup outside of the test."""
        with ExitStack() as stack:
            if cgroup:
                stack.enter_context(kernel.inside_cgroup(cgroup))
            made = self.namespace.socket(socket.AF_INET, kind)
        made.settimeout(WAIT_SECONDS)
        made.bind((LOOPBACK, 0))
        return made


@pytest.fixture(scope="module")
def meter_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the compiled program."""
    return compile_shipped("cgroup_traffic", tmp_path_factory.mktemp("objects"))


@pytest.fixture
def meter(meter_object: Path) -> Iterator[Meter]:
    """Attach both programs to a new cgroup."""
    with (
        net.namespace() as namespace,
        kernel.cgroup2() as cgroup,
        kernel.loaded(meter_object) as objects,
        kernel.cgroup_attached(cgroup, "cgroup_inet_ingress", objects.program("cgroup_ingress")),
        kernel.cgroup_attached(cgroup, "cgroup_inet_egress", objects.program("cgroup_egress")),
    ):
        yield Meter(cgroup=cgroup, namespace=namespace, objects=objects)


def send_datagrams(sender: socket.socket, receiver: socket.socket, sizes: list[int]) -> None:
    """Send datagrams and receive them."""
    for size in sizes:
        sender.sendto(bytes(size), receiver.getsockname())
        assert len(receiver.recv(65536)) == size


def test_datagrams_are_counted_for_the_cgroup_of_their_socket(meter: Meter) -> None:
    """The sender's cgroup counts them as egress, the receiver's as ingress, to the byte."""
    one, two = meter.child("one"), meter.child("two")
    sizes = [0, 1, 100, 1400, 9000]
    with meter.socket(one, socket.SOCK_DGRAM) as sender, meter.socket(two, socket.SOCK_DGRAM) as receiver:
        send_datagrams(sender, receiver, sizes)
    expected = (len(sizes), sum(sizes) + IPV4_UDP_BYTES * len(sizes))
    assert meter.traffic() == {
        one.stat().st_ino: Traffic(egress=expected),
        two.stat().st_ino: Traffic(ingress=expected),
    }
    assert meter.missed() == (0, 0)


def test_a_cgroup_below_is_counted_by_itself(meter: Meter) -> None:
    """Traffic of a nested cgroup counts for that cgroup, not for the one with the program."""
    inner = meter.child("outer") / "inner"
    inner.mkdir()
    with (
        meter.socket(inner, socket.SOCK_DGRAM) as sender,
        meter.socket(meter.cgroup, socket.SOCK_DGRAM) as receiver,
    ):
        send_datagrams(sender, receiver, [10] * 3)
        send_datagrams(receiver, sender, [20] * 2)
    assert meter.traffic() == {
        inner.stat().st_ino: Traffic(egress=(3, 114), ingress=(2, 96)),
        meter.cgroup.stat().st_ino: Traffic(egress=(2, 96), ingress=(3, 114)),
    }


def test_other_cgroups_are_not_counted(meter: Meter) -> None:
    """Sockets outside of the cgroup are not counted, even when they talk to a socket inside."""
    with (
        meter.socket(None, socket.SOCK_DGRAM) as outside,
        meter.socket(None, socket.SOCK_DGRAM) as other,
        meter.socket(meter.cgroup, socket.SOCK_DGRAM) as inside,
    ):
        send_datagrams(outside, other, [5])
        send_datagrams(outside, inside, [7])
    assert meter.traffic() == {meter.cgroup.stat().st_ino: Traffic(ingress=(1, 35))}


def test_a_tcp_transfer_is_the_same_on_both_sides(meter: Meter) -> None:
    """Egress of one cgroup equals ingress of the other, and every byte arrives."""
    one, two, size = meter.child("one"), meter.child("two"), 1_000_000
    with (
        meter.socket(one, socket.SOCK_STREAM) as client,
        meter.socket(two, socket.SOCK_STREAM) as listener,
    ):
        _transfer(client, listener, size)

    def settled() -> bool:
        sums = meter.traffic()
        client_sums, server_sums = sums[one.stat().st_ino], sums[two.stat().st_ino]
        return client_sums.egress == server_sums.ingress and client_sums.ingress == server_sums.egress

    assert wait_until(settled), meter.traffic()
    packets, sent = meter.traffic()[one.stat().st_ino].egress
    assert size < sent < size * 1.1
    assert packets >= size // 65536
    assert meter.missed() == (0, 0)


def _transfer(client: socket.socket, listener: socket.socket, size: int) -> None:
    listener.listen()
    client.connect(listener.getsockname())
    server, _ = listener.accept()
    with server:
        server.settimeout(WAIT_SECONDS)
        arrived = 0
        for _ in range(10):
            client.sendall(bytes(size // 10))
            while arrived < size // 10:
                arrived += len(server.recv(65536))
            arrived -= size // 10


def test_a_full_map_is_counted(meter: Meter) -> None:
    """Traffic of a cgroup without a free element still passes and is counted as missed."""
    keys = ((1 << 40 | number).to_bytes(8, "little") for number in range(MAX_CGROUPS))
    meter.objects.fill("cgroup_traffic", keys, COUNTERS_BYTES)
    with (
        meter.socket(meter.cgroup, socket.SOCK_DGRAM) as sender,
        meter.socket(meter.cgroup, socket.SOCK_DGRAM) as receiver,
    ):
        send_datagrams(sender, receiver, [100] * 4)
    assert meter.missed() == (8, 8 * 128)
    assert meter.cgroup.stat().st_ino not in meter.traffic()
