# SPDX-License-Identifier: Apache-2.0
"""A workload that reports its identity, its descriptors, and the answers of bpf(2), as one JSON object."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import struct
import sys
from collections.abc import Callable
from pathlib import Path

BPF_CALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361, "loongarch64": 280}
PREFIX = "BUILDTOOL_FD_"
MAP_CREATE, MAP_LOOKUP, MAP_UPDATE, PROG_LOAD, GET_INFO, NO_COMMAND = 0, 1, 2, 5, 15, 999
libc = ctypes.CDLL(None, use_errno=True)


def bpf(command: int, attributes: bytes) -> str:
    """Return the name of the error that the kernel gives, or an empty string."""
    buffer = ctypes.create_string_buffer(attributes, 128)
    done = libc.syscall(BPF_CALL[platform.machine()], command, buffer, 128)
    return errno.errorcode[ctypes.get_errno()] if done < 0 else ""


def element(command: int, descriptor: int, value: int = 0) -> tuple[str, int]:
    """Look up or update element 0 of an array of integers; return the error's name and the value."""
    key, room = ctypes.c_uint32(0), ctypes.c_uint64(value)
    pointers = (ctypes.addressof(key), ctypes.addressof(room))
    return bpf(command, struct.pack("=IIQQQ", descriptor, 0, *pointers, 0)), room.value


def describe(descriptor: int) -> str:
    """Return the kernel's answer to BPF_OBJ_GET_INFO_BY_FD for a map."""
    room = ctypes.create_string_buffer(128)
    return bpf(GET_INFO, struct.pack("=IIQ", descriptor, len(room), ctypes.addressof(room)))


def load_program() -> str:
    """Load a socket filter that returns 0."""
    code = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0), 16)
    license_ = ctypes.create_string_buffer(b"GPL")
    return bpf(PROG_LOAD, struct.pack("=IIQQ", 1, 2, ctypes.addressof(code), ctypes.addressof(license_)))


def status(name: str) -> str:
    """Return a member of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith(f"{name}:"))


def read_parent() -> list[str]:
    """Try to read the parent's memory and one of its descriptors; return the errors."""
    parent = Path(f"/proc/{os.getppid()}")
    tries = ((parent / "mem").open, (parent / "fd/0").readlink)
    found = []
    for attempt in tries:
        try:
            attempt()
        except OSError as error:
            found.append(errno.errorcode[error.errno or 0])
        else:
            found.append("")
    return found


def open_descriptors() -> list[int]:
    """Return the open descriptors above the standard streams."""
    with os.scandir("/proc/self/fd") as listing:
        return sorted(fd for fd in (int(entry.name) for entry in listing) if fd > 2 and _is_open(fd))


def _is_open(descriptor: int) -> bool:
    try:
        return "/fd" not in str(Path(f"/proc/self/fd/{descriptor}").readlink())
    except OSError:
        return False  # the descriptor of the listing itself, closed by now


def main() -> None:
    """Collect the report and print it."""
    maps = {name.removeprefix(PREFIX): int(fd) for name, fd in os.environ.items() if name.startswith(PREFIX)}
    tries: dict[str, Callable[[], str]] = {
        "mapCreate": lambda: bpf(MAP_CREATE, struct.pack("=IIII", 2, 4, 8, 1)),
        "progLoad": load_program,
        "noCommand": lambda: bpf(NO_COMMAND, b""),
    }
    report = {
        "uid": os.getuid(),
        "parent": read_parent(),
        "open": open_descriptors(),
        "maps": sorted(maps.values()),
        "capabilities": {name: int(status(f"Cap{name}"), 16) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")},
        "noNewPrivs": status("NoNewPrivs"),
        "seccomp": status("Seccomp"),
        "blocked": int(status("SigBlk"), 16),
        "lookups": {name: element(MAP_LOOKUP, fd) for name, fd in maps.items()},
        "updates": {name: element(MAP_UPDATE, fd, 1 << 40)[0] for name, fd in maps.items()},
        "descriptions": {name: describe(fd) for name, fd in maps.items()},
        "tries": {name: attempt() for name, attempt in tries.items()},
    }
    sys.stdout.write(json.dumps(report))


main()
