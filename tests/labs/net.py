# SPDX-License-Identifier: Apache-2.0
"""
A network on this machine for kernel tests: namespaces and veth pairs.

Each function that makes something is a context manager, which removes it even if the test fails. Names
contain the process id, so that parallel test runs do not collide.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from labs.run import run

CLONE_NEWNET = 0x40000000
SUBNET = "10.77.0.0/24"

_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()
FRAME = bytes.fromhex("ffffffffffff02000000000188b5") + bytes(50)  # an experimental type of Ethernet


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """A network namespace made by `ip netns`."""

    name: str

    def run(self, *argv: str | Path) -> str:
        """Run *argv* inside."""
        return run("ip", "netns", "exec", self.name, *argv)

    @property
    def inode(self) -> int:
        """Return the kernel's number of the namespace."""
        return (Path("/run/netns") / self.name).stat().st_ino

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Move this thread into the namespace during the block. Sockets made in the block stay there."""
        with Path("/proc/thread-self/ns/net").open("rb") as home:
            _enter(Path("/run/netns") / self.name)
            try:
                yield
            finally:
                _set_namespace(home.fileno())

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Return a new socket of this namespace."""
        with self.entered():
            return socket.socket(family, kind, protocol)


def _enter(path: Path) -> None:
    with path.open("rb") as there:
        _set_namespace(there.fileno())


def _set_namespace(descriptor: int) -> None:
    # os.setns() requires Python 3.12.
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextmanager
def namespace() -> Iterator[Namespace]:
    """Make a network namespace whose loopback is up and which sends no packets by itself."""
    made = Namespace(name=f"lab-{os.getpid()}-{next(_numbers)}")
    run("ip", "netns", "add", made.name)
    try:
        # Neighbour and router discovery would add packets that no test sent.
        made.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
        run("ip", "-n", made.name, "link", "set", "lo", "up")
        yield made
    finally:
        # A socket of a failed test would keep the namespace and the veth pair.
        subprocess.run(["ip", "-n", made.name, "link", "del", "veth0"], capture_output=True, check=False)
        run("ip", "netns", "del", made.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """One end of a veth pair."""

    namespace: Namespace
    name: str
    index: int
    mac: bytes
    ipv4: str

    def send(self, *frames: bytes) -> None:
        """Send whole Ethernet frames out of this end."""
        with self.namespace.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
            out.bind((self.name, 0))
            for frame in frames:
                out.send(frame)


@contextmanager
def veth_pair() -> Iterator[tuple[Interface, Interface]]:
    """Make two namespaces joined by a veth pair, 10.77.0.1 and 10.77.0.2."""
    with namespace() as left, namespace() as right:
        run(
            "ip",
            "-n",
            left.name,
            "link",
            "add",
            "veth0",
            "type",
            "veth",
            "peer",
            "name",
            "veth0",
            "netns",
            right.name,
        )
        yield _interface(left, "10.77.0.1"), _interface(right, "10.77.0.2")


def _interface(inside: Namespace, address: str) -> Interface:
    run("ip", "-n", inside.name, "address", "add", f"{address}/24", "dev", "veth0")
    run("ip", "-n", inside.name, "link", "set", "veth0", "up")
    # Tests count segments, so TCP must not send one again because the machine is busy.
    run(
        "ip", "-n", inside.name, "route", "replace", SUBNET, "dev", "veth0",
        "proto", "kernel", "scope", "link", "src", address, "rto_min", "10s",
    )  # fmt: skip
    [link] = json.loads(run("ip", "-n", inside.name, "-j", "link", "show", "veth0"))
    mac = bytes.fromhex(link["address"].replace(":", ""))
    return Interface(namespace=inside, name="veth0", index=link["ifindex"], mac=mac, ipv4=address)


@contextmanager
def flood(interface: str) -> Iterator[list[int]]:
    """Send frames as fast as possible during the block. The list then has the number of sent frames."""
    sent: list[int] = []
    stop = threading.Event()

    def run() -> None:
        count = 0
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind((interface, 0))
            while not stop.is_set():
                for _ in range(16):
                    sender.send(FRAME)
                    count += 1
                # On two CPUs, let the receiver run, because a full queue drops frames.
                os.sched_yield()
        sent.append(count)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield sent
    finally:
        stop.set()
        thread.join()


def send(interface: str, count: int) -> None:
    """Send *count* frames of an experimental type."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((interface, 0))
        for _ in range(count):
            sender.send(FRAME)


def statistic(interface: str, name: str) -> int:
    """Return one of the kernel's own counts of an interface."""
    return int(Path(f"/sys/class/net/{interface}/statistics/{name}").read_text())


@contextmanager
def veth() -> Iterator[tuple[str, str]]:
    """Make a veth pair and yield both names. Frames sent to the second device arrive at the first."""
    number = next(_numbers)
    left, right = f"lt{os.getpid() % 100000}a{number}", f"lt{os.getpid() % 100000}b{number}"
    subprocess.run(["ip", "link", "add", left, "type", "veth", "peer", "name", right], check=True)
    try:
        for name in (left, right):
            Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
            subprocess.run(["ip", "link", "set", name, "up"], check=True)
        yield left, right
    finally:
        subprocess.run(["ip", "link", "del", left], check=True)
