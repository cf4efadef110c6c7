# SPDX-License-Identifier: Apache-2.0
"""
Releases of one object, a BPF file system of our own, and frames in numbers, for the tests of pins.

A release is compiled from one source with another constant, so that two of them are different programs that
share a map.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labs.handsig import sign
from labs.loader import PREFIX, Lab

NAME = "count.bpf.o"
FRAME = bytes.fromhex("ffffffffffff02000000000188b5") + bytes(50)

SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 3); __type(key, __u32);
    __type(value, VALUE); } @_map SEC(".maps");
static __always_inline void count(__u32 key)
{
    VALUE *value = bpf_map_lookup_elem(&@_map, &key);
    if (value)
        *(__u64 *)value += 1;
}
PROGRAMS
char LICENSE[] SEC("license") = "GPL";
"""
XDP = 'SEC("xdp") int @_xdp(struct xdp_md *c) { count(0); count(RELEASE); return XDP_PASS; }'
TCX = 'SEC("tcx/ingress") int @_tcx(struct __sk_buff *c) { count(0); count(RELEASE); return TCX_NEXT; }'
CGROUP = 'SEC("cgroup_skb/egress") int @_cg(struct __sk_buff *c) { count(0); count(RELEASE); return 1; }'
RAW = 'SEC("raw_tp/sys_enter") int @_raw(void *c) { count(RELEASE); return 0; }'
TYPES = {
    "xdp": "xdp",
    "tcx/ingress": "sched_cls",
    "tc": "sched_cls",
    "raw_tp/sys_enter": "raw_tracepoint",
    "cgroup_skb/egress": "cgroup_skb",
}


@dataclass
class Releases:
    """Signs releases of one object and runs the loader on them."""

    lab: Lab
    directory: Path
    root: Path
    programs: str = XDP
    _objects: dict[tuple[int, str], bytes] = field(default_factory=dict)

    def build(self, release: int, value: str = "__u64") -> bytes:
        """Return the unsigned object of a release."""
        if (release, value) not in self._objects:
            source = SOURCE.replace("PROGRAMS", self.programs).replace("@", PREFIX)
            source = source.replace("RELEASE", str(release)).replace("VALUE", value)
            self._objects[release, value] = self.lab.compile(self.directory, source)
        return self._objects[release, value]

    def put(
        self, version: int, *, release: int = 1, value: str = "__u64", built: bytes = b"", **changes: Any
    ) -> None:
        """Make a release the one object of the directory: what is *built* already, or one of *value*."""
        objects = self.directory / "objects"
        objects.mkdir(exist_ok=True)
        self.lab.trust(self.directory)
        changes.setdefault("programs", self._statement())
        signed = sign(
            built or self.build(release, value), [self.lab.key], name=NAME, version=version, **changes
        )
        (objects / NAME).write_bytes(signed)

    def _statement(self) -> list[dict[str, str]]:
        """Return the statement's programs: the loader keeps the capabilities that they need."""
        section, name = re.findall(r'SEC\("([a-z_/]+)"\) int @(\w+)', self.programs)[0]
        return [{"name": PREFIX + name, "section": section, "type": TYPES[section]}]

    def options(self, *targets: str) -> list[str]:
        """Return the options of a start with pins."""
        return [f"--pin-root={self.root}", *(f"--attach={PREFIX}_{target}" for target in targets)]

    @property
    def home(self) -> Path:
        """Return where the object's pins are."""
        return self.root / NAME.replace(".", ",")

    def counts(self) -> list[int]:
        """Return the three counters of the pinned map, or of the only one there is, summed over the CPUs."""
        pin = self.home / "current/maps" / f"{PREFIX}_map"
        which = ["pinned", pin] if pin.exists() else ["name", f"{PREFIX}_map"]
        argv = ["bpftool", "-j", "map", "dump", *which]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        entries = json.loads(done.stdout)
        return [sum(_number(cpu["value"]) for cpu in entry["values"]) for entry in entries]

    def link(self, name: str) -> dict[str, Any]:
        """Return what the kernel says of a pinned link."""
        argv = ["bpftool", "-j", "link", "show", "pinned", self.home / "links" / name]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        return dict(json.loads(done.stdout))


def _number(value: list[str]) -> int:
    return int.from_bytes(bytes(int(byte, 16) for byte in value[:8]), sys.byteorder)


@contextmanager
def bpffs(directory: Path) -> Iterator[Path]:
    """Mount a BPF file system; what is pinned in it goes with it."""
    mount = directory / "bpffs"
    mount.mkdir()
    subprocess.run(["mount", "-t", "bpf", "none", mount], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True)


@contextmanager
def flood(interface: str) -> Iterator[list[int]]:
    """Send frames as fast as they are taken; after the block the list has the number of those sent."""
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
                # Two CPUs for all: let what was sent be received, a full queue drops.
                os.sched_yield()
        sent.append(count)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield sent
    finally:
        stop.set()
        thread.join()


def statistic(interface: str, name: str) -> int:
    """Return one of the kernel's own counts of an interface."""
    return int(Path(f"/sys/class/net/{interface}/statistics/{name}").read_text())


def kill_at(argv: list[str], call: str, number: int, more: Sequence[str] = ()) -> bool:
    """Run *argv* and kill it when it makes a system call for the *number*th time; whether it came to that."""
    trace = ["strace", "-o", "/dev/null", "-e", f"inject={call}:signal=SIGKILL:when={number}"]
    done = subprocess.run([*trace, *more, *argv], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0
