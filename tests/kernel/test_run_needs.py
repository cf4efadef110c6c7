# SPDX-License-Identifier: Apache-2.0
"""The loader and the tool compute the same capabilities for an object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from labs.loader import Lab

from buildtool.objects.capabilities import CAPABILITY_NUMBERS, find_capabilities
from buildtool.objects.helpers import HELPER_NUMBERS
from buildtool.objects.types import program_type

SECTIONS = [
    "socket",
    "sk_reuseport",
    "kprobe/x",
    "uprobe//bin/x:y",
    "tc/ingress",
    "tcx/egress",
    "netkit/primary",
    "action",
    "tracepoint/x/y",
    "raw_tp/x",
    "raw_tp.w/x",
    "tp_btf/x",
    "fentry/x",
    "iter/x",
    "freplace/x",
    "lsm/x",
    "lsm_cgroup/x",
    "syscall",
    "xdp",
    "perf_event",
    "lwt_in",
    "lwt_out",
    "lwt_xmit",
    "lwt_seg6local",
    "sockops",
    "sk_skb",
    "sk_msg",
    "lirc_mode2",
    "flow_dissector",
    "cgroup_skb/egress",
    "cgroup/sock",
    "cgroup/bind4",
    "cgroup/sysctl",
    "cgroup/getsockopt",
    "cgroup/dev",
    "struct_ops",
    "sk_lookup",
    "netfilter",
]
MAPS = [
    "hash",
    "array",
    "sockmap",
    "sockhash",
    "devmap",
    "devmap_hash",
    "xskmap",
    "cpumap",
    "ringbuf",
    "prog_array",
]


def said(lab: Lab, tmp_path: Path, **statement: Any) -> set[str]:
    """Return the capabilities that the loader reports for an object with *statement*."""
    lab.put(tmp_path, "raw_tp", **statement)
    (line,) = lab.run(tmp_path, "--verify-only").lines
    assert line["decision"] == "accepted"
    names = line["capabilities"]
    assert [CAPABILITY_NUMBERS[name] for name in names] == sorted(CAPABILITY_NUMBERS[name] for name in names)
    return set(names)


@pytest.mark.parametrize("section", SECTIONS)
def test_by_program_type(lab: Lab, tmp_path: Path, section: str) -> None:
    """Both agree for each program type."""
    program = {"name": "x", "section": section, "type": program_type(section)}
    assert said(lab, tmp_path, programs=[program]) == set(find_capabilities([section]))


@pytest.mark.parametrize("kind", MAPS)
def test_by_map_type(lab: Lab, tmp_path: Path, kind: str) -> None:
    """Both agree for map types that need more capabilities, and for some that do not."""
    maps = [{"name": "x", "type": kind, "keySize": 4, "valueSize": 4, "maxEntries": 1}]
    assert said(lab, tmp_path, maps=maps) == set(find_capabilities([], maps=[kind]))


def test_by_helper(lab: Lab, tmp_path: Path) -> None:
    """Both agree for every helper: the directory has one object for each."""
    objects = lab.put(tmp_path)
    numbers = sorted(HELPER_NUMBERS.values())
    expected = {}
    for number in numbers:
        name = f"{number:03}.bpf.o"
        (objects / name).write_bytes(lab.signed("raw_tp", helpers=[number]))
        expected[name] = set(find_capabilities([], helpers=[number]))
    lines = lab.run(tmp_path, "--verify-only").lines
    assert {line["object"]: set(line["capabilities"]) for line in lines} == expected
