# SPDX-License-Identifier: Apache-2.0
"""
Releases of one object for the tests of pins, and runs of the loader on them.

All releases have the same source with different constants, so two releases are different programs that share
a map.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labs.handsig import sign
from labs.loader import PREFIX, Lab, Result, parse

NAME = "count.bpf.o"

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
    "tracepoint/syscalls/sys_enter_getpgid": "tracepoint",
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
        """Write a signed release as the only object of the directory, made from *built* if it is given."""
        objects = self.directory / "objects"
        objects.mkdir(exist_ok=True)
        self.lab.trust(self.directory)
        changes.setdefault("programs", self._statement())
        signed = sign(
            built or self.build(release, value), [self.lab.key], name=NAME, version=version, **changes
        )
        (objects / NAME).write_bytes(signed)

    def _statement(self) -> list[dict[str, str]]:
        """Return the programs for the statement, by which the loader keeps capabilities."""
        section, name = re.findall(r'SEC\("([a-z_/]+)"\) int @(\w+)', self.programs)[0]
        return [{"name": PREFIX + name, "section": section, "type": TYPES[section]}]

    def command(self, word: str, *arguments: str, before: Sequence[str] = ()) -> Result:
        """Run one of the loader's commands on the pins; *before* is a command that runs it."""
        argv = [*before, str(self.lab.pins), word, f"--pin-root={self.root}", *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        return Result(done.returncode, parse(done.stderr), done.stdout)

    def options(self, *targets: str) -> list[str]:
        """Return the options of a start with pins."""
        return [f"--pin-root={self.root}", *(f"--attach={PREFIX}_{target}" for target in targets)]

    @property
    def home(self) -> Path:
        """Return the directory of the object's pins."""
        return self.root / NAME.replace(".", ",")

    def counts(self) -> list[int]:
        """Return three counters, summed over the CPUs, of the pinned map or of the only map."""
        pin = self.home / "current/maps" / f"{PREFIX}_map"
        which = ["pinned", pin] if pin.exists() else ["name", f"{PREFIX}_map"]
        argv = ["bpftool", "-j", "map", "dump", *which]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        entries = json.loads(done.stdout)
        return [sum(_number(cpu["value"]) for cpu in entry["values"]) for entry in entries]

    def link(self, name: str) -> dict[str, Any]:
        """Return bpftool's description of a pinned link."""
        argv = ["bpftool", "-j", "link", "show", "pinned", self.home / "links" / name]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        return dict(json.loads(done.stdout))


def _number(value: list[str]) -> int:
    return int.from_bytes(bytes(int(byte, 16) for byte in value[:8]), sys.byteorder)
