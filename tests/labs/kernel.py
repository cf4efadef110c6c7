# SPDX-License-Identifier: Apache-2.0
"""
Load, pin, attach and read programs and maps of this kernel without the loader; mount bpffs and cgroup2.

Each function that makes something is a context manager, which removes it even if the test fails. Names
contain the process id, so that parallel test runs do not collide.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import struct
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import Any

import pytest

from labs.net import Interface
from labs.run import run

BPF_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351}

BPF_MAP_CREATE = 0

BPF_MAP_LOOKUP_ELEM = 1

BPF_MAP_UPDATE_ELEM = 2

BPF_OBJ_PIN = 6

BPF_OBJ_GET = 7

BPF_MAP_FREEZE = 22

BPF_LINK_UPDATE = 29

BPF_MAP_GET_FD_BY_ID = 14

BPF_RAW_TRACEPOINT_OPEN = 17


# Starts a program where tracefs is mounted.
_MOUNT_TRACEFS = 'mountpoint -q /sys/kernel/tracing || mount -t tracefs none /sys/kernel/tracing; exec "$@"'
TRACEFS = ["unshare", "--mount", "sh", "-c", _MOUNT_TRACEFS, "sh"]

_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The programs and maps of one object, pinned in a separate BPF file system."""

    programs: Path
    map_ids: dict[str, int]

    def program(self, name: str) -> Path:
        """Return the pin of program *name*."""
        return self.programs / name

    def dump(self, name: str) -> dict[bytes, list[bytes]]:
        """Return the entries of map *name*: key to the values of all CPUs, or to one value."""
        entries: list[dict[str, Any]] = json.loads(
            run("bpftool", "-j", "map", "dump", "id", str(self.map_ids[name]))
        )
        return {_bytes(entry["key"]): _values(entry) for entry in entries}

    def sums(self, name: str, words: int = 1) -> dict[bytes, tuple[int, ...]]:
        """Return, by key, the sums over all CPUs of the first *words* 64-bit numbers of each value."""
        totals = {}
        for key, values in self.dump(name).items():
            cpus = [[_number(value[at * 8 : at * 8 + 8]) for at in range(words)] for value in values]
            totals[key] = tuple(map(sum, zip(*cpus, strict=True)))
        return totals

    def fill(self, name: str, keys: Iterable[bytes], value_bytes: int) -> None:
        """Add *keys* with zero values to map *name*."""
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
def bpf_file_system(directory: Path | None = None) -> Iterator[Path]:
    """Mount a BPF file system in a new directory below *directory*: the machine's may be missing."""
    with TemporaryDirectory(prefix="bpffs-", dir=directory) as made:
        mount = Path(made)
        mount.chmod(0o755)
        run("mount", "-t", "bpf", "bpf", mount)
        try:
            yield mount
        finally:
            # A file system still in use shows a process that the test left running.
            was_free = unmount(mount)
        assert was_free, f"{mount}: still in use"


@contextmanager
def loaded(path: Path) -> Iterator[Loaded]:
    """Load all programs of the object at *path*."""
    with bpf_file_system() as mount:
        pins = mount / "programs"
        run("bpftool", "prog", "loadall", path, pins)
        yield Loaded(programs=pins, map_ids=_map_ids(pins))


def need_program_type(path: Path) -> None:
    """Skip the test if bpftool, as root, may not load object *path* on this kernel."""
    with bpf_file_system() as mount:
        argv = ["bpftool", "prog", "loadall", path, mount / "tried"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if "failed to load: -1" in done.stderr or "Operation not permitted" in done.stderr:
        pytest.skip(f"needs-kernel-feature: bpftool may not load {path.name} either; a VM runs it")


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
    """Attach tracing *programs* to the targets in their sections during the block."""
    # The bpftool of Debian 12 has no autoattach.
    with ExitStack() as stack:
        for program in programs:
            stack.callback(os.close, attach_tracing(program))
        yield


def attach_tracing(program: Path, name: str = "") -> int:
    """
    Return the descriptor of a link from the pinned *program* to its tracepoint, or the raw one called *name*.

    Raises: OSError when the kernel refuses.
    """
    pinned = open_pin(program)
    try:
        buffer = ctypes.create_string_buffer(name.encode() + b"\0")
        where = ctypes.addressof(buffer) if name else 0
        return _bpf(BPF_RAW_TRACEPOINT_OPEN, struct.pack("<QII", where, pinned, 0))
    finally:
        os.close(pinned)


def open_pin(path: Path) -> int:
    """
    Return a descriptor of the object pinned at *path*.

    Raises: OSError, if the kernel refuses.
    """
    buffer = ctypes.create_string_buffer(str(path).encode() + b"\0")
    return _bpf(BPF_OBJ_GET, struct.pack("<QII", ctypes.addressof(buffer), 0, 0))


def pin_number(path: Path, member: str) -> int:
    """Return the number *member* in the kernel's fdinfo of the object pinned at *path*."""
    descriptor = open_pin(path)
    try:
        text = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
    finally:
        os.close(descriptor)
    return int(dict(line.split(":\t", 1) for line in text.splitlines())[member])


def update_map(number: int, key: bytes, value: bytes) -> None:
    """
    Write an entry into the map with id *number*.

    Raises: OSError, if the kernel refuses.
    """
    descriptor = _bpf(BPF_MAP_GET_FD_BY_ID, struct.pack("<III", number, 0, 0))
    buffers = [ctypes.create_string_buffer(data, len(data)) for data in (key, value)]
    try:
        _bpf(BPF_MAP_UPDATE_ELEM, struct.pack("<IIQQQ", descriptor, 0, *map(ctypes.addressof, buffers), 0))
    finally:
        os.close(descriptor)


def create_array(name: str, value: bytes, *, entries: int = 1) -> int:
    """
    Make an array map whose first element is *value*; return its descriptor.

    Raises: OSError when the kernel refuses.
    """
    attributes = struct.pack("<IIIIIII16s", 2, 4, len(value), entries, 0, 0, 0, name.encode())
    descriptor = _bpf(BPF_MAP_CREATE, attributes)
    buffers = [ctypes.create_string_buffer(data, len(data)) for data in (bytes(4), value)]
    _bpf(BPF_MAP_UPDATE_ELEM, struct.pack("<IIQQQ", descriptor, 0, *map(ctypes.addressof, buffers), 0))
    return descriptor


def freeze_map(descriptor: int) -> None:
    """
    Let user space no longer write to a map.

    Raises: OSError when the kernel refuses.
    """
    _bpf(BPF_MAP_FREEZE, struct.pack("<I", descriptor))


def lookup_map(descriptor: int, size: int) -> bytes:
    """
    Return element 0 of an array map, whose values are of at most *size* bytes.

    Raises: OSError when the kernel refuses.
    """
    key, value = ctypes.create_string_buffer(4), ctypes.create_string_buffer(size)
    pointers = (ctypes.addressof(key), ctypes.addressof(value))
    _bpf(BPF_MAP_LOOKUP_ELEM, struct.pack("<IIQQQ", descriptor, 0, *pointers, 0))
    return value.raw


def pin_descriptor(descriptor: int, path: Path) -> None:
    """
    Pin what is behind a descriptor.

    Raises: OSError when the kernel refuses.
    """
    buffer = ctypes.create_string_buffer(str(path).encode() + b"\0")
    _bpf(BPF_OBJ_PIN, struct.pack("<QII", ctypes.addressof(buffer), descriptor, 0))


def update_link(link: int, program: int) -> None:
    """
    Give a link another program.

    Raises: OSError when the kernel refuses.
    """
    _bpf(BPF_LINK_UPDATE, struct.pack("<IIII", link, program, 0, 0))


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
    """Mount the cgroup v2 hierarchy, make a cgroup in it, and yield its directory."""
    with TemporaryDirectory(prefix="lab-cgroup-") as directory:
        run("mount", "-t", "cgroup2", "cgroup2", directory)
        made = Path(directory) / f"lab-{os.getpid()}-{next(_numbers)}"
        try:
            made.mkdir()
            yield made
        finally:
            remove_cgroup(made)
            unmount(Path(directory))


def remove_cgroup(directory: Path) -> None:
    """Remove a cgroup and those below it, none of which may contain a process."""
    if not directory.is_dir():
        return
    for child in (entry for entry in directory.iterdir() if entry.is_dir()):
        remove_cgroup(child)
    directory.rmdir()


@contextmanager
def inside_cgroup(directory: Path) -> Iterator[None]:
    """Move this process into a cgroup during the block. A socket belongs to the cgroup of its creator."""
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


def unmount(directory: Path) -> bool:
    """Unmount *directory*, lazily if it is busy. Return whether it was free."""
    if subprocess.run(["umount", directory], capture_output=True, check=False).returncode == 0:
        return True
    run("umount", "--lazy", directory)
    return False


def list_bpf(kind: str) -> list[dict[str, Any]]:
    """Return bpftool's list of all programs, maps or links. *kind* is `prog`, `map` or `link`."""
    done = subprocess.run(["bpftool", "-j", kind, "show"], capture_output=True, text=True, check=False)
    return list(json.loads(done.stdout or "[]"))


def program_ids(*names: str) -> set[int]:
    """Return the ids of the programs called *names* that the kernel holds; others may come and go."""
    return {program["id"] for program in list_bpf("prog") if program.get("name") in names}
