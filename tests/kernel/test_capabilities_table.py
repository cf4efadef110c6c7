# SPDX-License-Identifier: Apache-2.0
"""The kernel requires exactly the capabilities that `buildtool.objects.capabilities` names for a section."""

from __future__ import annotations

from pathlib import Path

import pytest
from labs.handsig import sign
from labs.loader import PREFIX, Lab
from labs.privileges import root_with

from buildtool.objects.capabilities import find_capabilities
from buildtool.objects.helpers import HELPER_NUMBERS

pytestmark = pytest.mark.usefixtures("nothing_left")

# Section: the value that an empty program returns there. CI's kernel lacks fentry and lsm.
SECTIONS = {
    "socket": 0,
    "sk_reuseport": 1,
    "tc": 0,
    "tcx/egress": 0,
    "action": 0,
    "netkit/primary": 0,
    "raw_tp/sys_enter": 0,
    "raw_tp.w/sys_enter": 0,
    "tp_btf/sys_enter": 0,
    "tracepoint/a/b": 0,
    "xdp": 2,
    "perf_event": 0,
    "lwt_in": 0,
    "lwt_out": 0,
    "lwt_xmit": 0,
    "lwt_seg6local": 0,
    "sockops": 1,
    "sk_skb": 1,
    "sk_skb/stream_parser": 1,
    "sk_msg": 1,
    "flow_dissector": 0,
    "cgroup_skb/egress": 1,
    "cgroup/sock_create": 1,
    "cgroup/connect4": 1,
    "cgroup/sysctl": 1,
    "cgroup/getsockopt": 1,
    "cgroup/dev": 1,
    "sk_lookup": 1,
    "netfilter": 1,
    "syscall": 0,
    "iter/task": 0,
    "kprobe/do_exit": 0,
}
# Only attaching needs this capability (test_programs_capabilities.py).
ATTACH_ONLY = {("cgroup_skb/egress", "NET_ADMIN")}
HELPERS = {
    "bpf_trace_printk": 'char t[] = "x"; bpf_trace_printk(t, 2);',
    "bpf_get_current_task": "bpf_get_current_task();",
    "bpf_probe_read_kernel": "long v; bpf_probe_read_kernel(&v, 8, (void *)8);",
}
SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
SEC("{section}") int {name}(void *c) {{ {body} return {value}; }}
"""


def loads(lab: Lab, directory: Path, capabilities: tuple[str, ...]) -> bool:
    """Return whether the loader loads the object of *directory* with only *capabilities*."""
    # The statements of these objects list no programs, so the loader computes only CAP_BPF from them.
    options = ["--capabilities", ",".join(("BPF", *capabilities)), f"--attach={PREFIX}_f=none"]
    result = lab.run(directory, *options, "--", "true", before=root_with(*capabilities))
    assert result.code in (0, 1), result.lines
    return result.code == 0


def check(lab: Lab, tmp_path: Path, source: str, needed: tuple[str, ...], keep: set[str]) -> None:
    """Check that *needed* are enough, and that each one is necessary, except those in *keep*."""
    objects = lab.put(tmp_path)
    (objects / "f.bpf.o").write_bytes(sign(lab.compile(tmp_path, source), [lab.key], name="f.bpf.o"))
    assert loads(lab, tmp_path, needed)
    for name in set(needed) - keep:
        assert not loads(lab, tmp_path, tuple(other for other in needed if other != name)), name


@pytest.mark.parametrize("section", SECTIONS)
def test_the_kernel_agrees(lab: Lab, tmp_path: Path, section: str) -> None:
    """The kernel loads with the capabilities of the table, and refuses with one fewer."""
    source = SOURCE.format(section=section, name=f"{PREFIX}_f", body="", value=SECTIONS[section])
    keep = {name for other, name in ATTACH_ONLY if other == section}
    check(lab, tmp_path, source, find_capabilities([section]), keep)


@pytest.mark.parametrize("helper", HELPERS)
def test_helpers_that_need_perfmon(lab: Lab, tmp_path: Path, helper: str) -> None:
    """A socket filter that calls one of these helpers needs CAP_PERFMON."""
    needed = find_capabilities(["socket"], helpers=[HELPER_NUMBERS[helper]])
    assert needed == ("BPF", "PERFMON")
    body = HELPERS[helper]
    check(
        lab, tmp_path, SOURCE.format(section="socket", name=f"{PREFIX}_f", body=body, value=0), needed, set()
    )
