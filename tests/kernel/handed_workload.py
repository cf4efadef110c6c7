# SPDX-License-Identifier: Apache-2.0
"""A workload that loads objects itself: reports what it was handed, and loads it, as one JSON object."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import json
import mmap
import os
import sys
from collections.abc import Callable
from pathlib import Path

PREFIX = "BUILDTOOL_OBJECT_FD_"
OURS = ("BUILDTOOL_OBJECT", "BUILDTOOL_FD_")
CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Uid")
libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
libbpf.bpf_object__open_mem.restype = ctypes.c_void_p
libbpf.bpf_object__open_mem.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p]
libbpf.bpf_object__load.argtypes = [ctypes.c_void_p]
libbpf.libbpf_set_print(None)  # stderr has only lines of the loader


def attempt(change: Callable[[], object]) -> str:
    """Return the name of the error of *change*, or an empty string."""
    try:
        change()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


def try_changes(descriptor: int) -> dict[str, str]:
    """Try all ways to change what *descriptor* holds, and return the errors."""

    def map_shared() -> None:
        mmap.mmap(descriptor, 0, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)

    def write_reopened() -> None:
        fd = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR)
        try:
            os.pwrite(fd, b"x", 0)
        finally:
            os.close(fd)

    return {
        "write": attempt(lambda: os.pwrite(descriptor, b"x", 0)),
        "reopen": attempt(write_reopened),
        "grow": attempt(lambda: os.ftruncate(descriptor, 1 << 20)),
        "shrink": attempt(lambda: os.ftruncate(descriptor, 0)),
        "map": attempt(map_shared),
        "seal": attempt(lambda: fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, 0)),
    }


def load(data: bytes) -> str:
    """Load object *data* with libbpf and return the error's name, or an empty string."""
    opened = libbpf.bpf_object__open_mem(data, len(data), None)
    if not opened:
        return errno.errorcode[ctypes.get_errno()]
    return errno.errorcode[-error] if (error := libbpf.bpf_object__load(opened)) else ""


def report() -> dict[str, object]:
    """Return what this process was handed and may do."""
    given = {name: int(value) for name, value in os.environ.items() if name.startswith(PREFIX)}
    listed = {
        name: int(value)
        for name, value in (word.split("=") for word in os.environ.get("BUILDTOOL_OBJECTS", "").split())
    }
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    objects = {}
    for name, descriptor in listed.items():
        data = Path(f"/proc/self/fd/{descriptor}").read_bytes()
        objects[name] = {
            "offset": os.lseek(descriptor, 0, os.SEEK_CUR),
            "sha256": hashlib.sha256(data).hexdigest(),
            "changes": try_changes(descriptor),
            "unchanged": os.pread(descriptor, len(data) + 1, 0) == data,
            "load": load(data),
        }
    return {
        "variables": {name: value for name, value in os.environ.items() if name.startswith(OURS)},
        "agree": sorted(given.values()) == sorted(listed.values()),
        "objects": objects,
        "status": {name: status[name].split("\t")[0] for name in CAPABILITY_SETS},
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(report()))
