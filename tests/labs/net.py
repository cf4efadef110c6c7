# SPDX-License-Identifier: Apache-2.0
"""
A network on this machine for kernel tests: namespaces, veth pairs, cgroups and loaded programs.

Everything here is a context manager that removes what it made, also when the test fails. Names carry the
process id, so that test runs beside each other do not meet.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import Any

REPOSITORY = Path(__file__).parents[2]
CLONE_NEWNET = 0x40000000
BPF_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351}
BPF_MAP_UPDATE_ELEM = 2
BPF_OBJ_GET = 7
BPF_MAP_GET_FD_BY_ID = 14
BPF_RAW_TRACEPOINT_OPEN = 17
SUBNET = "10.77.0.0/24"
WAIT_SECONDS = 20.0

_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()


def run(*argv: str | Path) -> str:
    """Run *argv* to its end and return its output; a failure is a failed test that shows what it said."""
    done = subprocess.run([str(arg) for arg in argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, argv))}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def wait_until(condition: Callable[[], bool]) -> bool:
    """Return whether *condition* came true in time: packets are handled in a softirq, after the send."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """A network namespace made by `ip netns`."""

    name: str

    def run(self, *argv: str | Path) -> str:
        """Run *argv* inside."""
        return run("ip", "netns", "exec", self.name, *argv)

    @property
    def inode(self) -> int:
        """Return the number that the kernel knows the namespace by."""
        return (Path("/run/netns") / self.name).stat().st_ino

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Move this thread inside; a socket stays in the namespace where it was made."""
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
    # os.setns() came with Python 3.12.
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextmanager
def namespace() -> Iterator[Namespace]:
    """Make a network namespace with its loopback up and without packets of its own."""
    made = Namespace(name=f"netlab-{os.getpid()}-{next(_numbers)}")
    run("ip", "netns", "add", made.name)
    try:
        # Neighbour and router discovery would add packets that no test sent.
        made.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
        run("ip", "-n", made.name, "link", "set", "lo", "up")
        yield made
    finally:
        # A socket of a failed test would keep the namespace alive, and with it the pair.
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
    # A busy machine must not make TCP send again what it sent: tests count segments.
    run(
        "ip", "-n", inside.name, "route", "replace", SUBNET, "dev", "veth0",
        "proto", "kernel", "scope", "link", "src", address, "rto_min", "10s",
    )  # fmt: skip
    [link] = json.loads(run("ip", "-n", inside.name, "-j", "link", "show", "veth0"))
    mac = bytes.fromhex(link["address"].replace(":", ""))
    return Interface(namespace=inside, name="veth0", index=link["ifindex"], mac=mac, ipv4=address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The programs and maps of one object, pinned in a BPF file system of its own."""

    programs: Path
    map_ids: dict[str, int]

    def program(self, name: str) -> Path:
        """Return the pin of program *name*."""
        return self.programs / name

    def dump(self, name: str) -> dict[bytes, list[bytes]]:
        """Return the entries of map *name*: key to the values of all CPUs (one where it is not per CPU)."""
        entries: list[dict[str, Any]] = json.loads(
            run("bpftool", "-j", "map", "dump", "id", str(self.map_ids[name]))
        )
        return {_bytes(entry["key"]): _values(entry) for entry in entries}

    def sums(self, name: str, words: int = 1) -> dict[bytes, tuple[int, ...]]:
        """Return key to the sums over all CPUs of the *words* 64-bit numbers that a value begins with."""
        totals = {}
        for key, values in self.dump(name).items():
            cpus = [[_number(value[at * 8 : at * 8 + 8]) for at in range(words)] for value in values]
            totals[key] = tuple(map(sum, zip(*cpus, strict=True)))
        return totals

    def fill(self, name: str, keys: Iterable[bytes], value_bytes: int) -> None:
        """Put *keys* into map *name* with zero values, as a busy machine would fill it."""
        number, value = self.map_ids[name], " ".join(["0"] * value_bytes)
        lines = [f"map update id {number} key {' '.join(map(str, key))} value {value}" for key in keys]
        with NamedTemporaryFile("w", suffix=".batch") as batch:
            batch.write("\n".join(lines) + "\n")
            batch.flush()
            run("bpftool", "batch", "file", batch.name)


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _bytes(words: Sequence[str]) -> bytes:
    return bytes(int(word, 16) for word in words)


def _values(entry: dict[str, Any]) -> list[bytes]:
    if "values" in entry:
        return [_bytes(cpu["value"]) for cpu in entry["values"]]
    return [_bytes(entry["value"])]


@contextmanager
def bpf_file_system() -> Iterator[Path]:
    """Mount a BPF file system of our own; the machine's may be absent or covered."""
    with TemporaryDirectory(prefix="netlab-bpf-") as directory:
        run("mount", "-t", "bpf", "bpf", directory)
        try:
            yield Path(directory)
        finally:
            unmount(Path(directory))


@contextmanager
def loaded(path: Path) -> Iterator[Loaded]:
    """Load all programs of the object at *path*."""
    with bpf_file_system() as mount:
        pins = mount / "programs"
        run("bpftool", "prog", "loadall", path, pins)
        yield Loaded(programs=pins, map_ids=_map_ids(pins))


def _map_ids(pins: Path) -> dict[str, int]:
    numbers = {number for pin in pins.iterdir() for number in _program_maps(pin)}
    return {
        json.loads(run("bpftool", "-j", "map", "show", "id", str(number)))["name"]: number
        for number in numbers
    }


def _program_maps(pin: Path) -> list[int]:
    return list(json.loads(run("bpftool", "-j", "prog", "show", "pinned", pin)).get("map_ids", []))


@contextmanager
def tracing_attached(*programs: Path) -> Iterator[None]:
    """Attach tracing programs to what their sections name; closing the descriptors detaches them."""
    # bpftool learned to attach these (autoattach) after the version that Debian 12 has.
    with ExitStack() as stack:
        for program in programs:
            stack.callback(os.close, attach_tracing(program))
        yield


def attach_tracing(program: Path) -> int:
    """
    Return the descriptor of a link from the pinned *program* to its tracepoint.

    Raises: OSError when the kernel refuses.
    """
    pinned = open_pin(program)
    try:
        return _bpf(BPF_RAW_TRACEPOINT_OPEN, struct.pack("<QII", 0, pinned, 0))
    finally:
        os.close(pinned)


def open_pin(path: Path) -> int:
    """
    Return a descriptor of what is pinned there.

    Raises: OSError when the kernel refuses.
    """
    buffer = ctypes.create_string_buffer(str(path).encode() + b"\0")
    return _bpf(BPF_OBJ_GET, struct.pack("<QII", ctypes.addressof(buffer), 0, 0))


def pin_number(path: Path, member: str) -> int:
    """Return a number that the kernel tells of what is pinned there; also what bpftool doesn't know."""
    descriptor = open_pin(path)
    try:
        text = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
    finally:
        os.close(descriptor)
    return int(dict(line.split(":\t", 1) for line in text.splitlines())[member])


def update_map(number: int, key: bytes, value: bytes) -> None:
    """
    Put an entry into the map of that id.

    Raises: OSError when the kernel refuses.
    """
    descriptor = _bpf(BPF_MAP_GET_FD_BY_ID, struct.pack("<III", number, 0, 0))
    buffers = [ctypes.create_string_buffer(data, len(data)) for data in (key, value)]
    try:
        _bpf(BPF_MAP_UPDATE_ELEM, struct.pack("<IIQQQ", descriptor, 0, *map(ctypes.addressof, buffers), 0))
    finally:
        os.close(descriptor)


def _bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = int(_libc.syscall(BPF_SYSCALL[os.uname().machine], command, buffer, len(attributes)))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


@contextmanager
def xdp_attached(interface: Interface, program: Path, mode: str = "xdpdrv") -> Iterator[None]:
    """Attach *program* to *interface*: `xdpdrv` in the driver, `xdpgeneric` in the stack."""
    interface.namespace.run("bpftool", "net", "attach", mode, "pinned", program, "dev", interface.name)
    try:
        yield
    finally:
        interface.namespace.run("bpftool", "net", "detach", mode, "dev", interface.name)


@contextmanager
def cgroup2() -> Iterator[Path]:
    """Mount the cgroup v2 hierarchy and make a cgroup in it; yields its directory."""
    with TemporaryDirectory(prefix="netlab-cgroup-") as directory:
        run("mount", "-t", "cgroup2", "cgroup2", directory)
        made = Path(directory) / f"netlab-{os.getpid()}-{next(_numbers)}"
        try:
            made.mkdir()
            yield made
        finally:
            remove_cgroup(made)
            unmount(Path(directory))


def remove_cgroup(directory: Path) -> None:
    """Remove a cgroup and those below it; no process may be left in them."""
    if not directory.is_dir():
        return
    for child in (entry for entry in directory.iterdir() if entry.is_dir()):
        remove_cgroup(child)
    directory.rmdir()


@contextmanager
def inside_cgroup(directory: Path) -> Iterator[None]:
    """Move this process into a cgroup: a socket belongs to the one that its maker was in."""
    home = next(
        line.removeprefix("0::/")
        for line in Path("/proc/self/cgroup").read_text().splitlines()
        if line.startswith("0::")
    )
    mount = next(parent for parent in directory.parents if parent.is_mount())
    (directory / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (mount / home / "cgroup.procs").write_text(str(os.getpid()))


@contextmanager
def cgroup_attached(directory: Path, kind: str, program: Path) -> Iterator[None]:
    """Attach *program* to the cgroup beside others: *kind* as bpftool names it."""
    run("bpftool", "cgroup", "attach", directory, kind, "pinned", program, "multi")
    try:
        yield
    finally:
        run("bpftool", "cgroup", "detach", directory, kind, "pinned", program)


def unmount(directory: Path) -> None:
    """Unmount *directory*, detached when something still holds it."""
    if subprocess.run(["umount", directory], capture_output=True, check=False).returncode != 0:
        run("umount", "--lazy", directory)


def compile_object(name: str, directory: Path, *options: str) -> Path:
    """Compile `bpf/NAME.bpf.c` with the product into *directory*, for this machine unless told else."""
    command = [sys.executable, "-m", "buildtool", "compile", f"bpf/{name}.bpf.c", "--output", str(directory)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    return directory / f"{name}.bpf.o"
