# SPDX-License-Identifier: Apache-2.0
"""Objects that kernels load and refuse, the probe that loads them, and `buildtool check`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import jsonschema

from labs import TOP

# A part of Jenkins' schema of JUnit XML (xunit-plugin, junit-10.xsd): required attributes, optional
# attributes and allowed children of each element.
JUNIT: dict[str, tuple[set[str], set[str], set[str]]] = {
    "testsuites": (set(), {"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors"},
        {"time", "skipped", "timestamp", "hostname", "id", "package"},
        {"properties", "testcase", "system-out", "system-err"},
    ),
    "testcase": (
        {"name"},
        {"time", "classname"},
        {"skipped", "error", "failure", "system-out", "system-err"},
    ),
    "failure": (set(), {"type", "message"}, set()),
    "system-out": (set(), set(), set()),
}

# The name of a program describes on which kernels it loads.
SOURCE = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4);
         __type(key, __u32); __type(value, __u64); } counts SEC(".maps");
struct task_struct { int no_such_member; } __attribute__((preserve_access_index));
extern void bpf_rcu_read_lock(void) __ksym __weak;
extern void bpf_rcu_read_unlock(void) __ksym __weak;

SEC("xdp") int everywhere(struct xdp_md *ctx)
{
	__u32 key = 0;
	__u64 *value = bpf_map_lookup_elem(&counts, &key);

	return value && *value ? XDP_DROP : XDP_PASS;
}

SEC("xdp") int out_of_bounds(struct xdp_md *ctx)
{
	char *data = (void *)(long)ctx->data;

	return data[0];
}

SEC("tp_btf/no_such_tracepoint") int no_target(void *ctx)
{
	return 0;
}

SEC("tp_btf/sched_switch") int no_member(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[1];

	return task->no_such_member;
}

SEC("?xdp") int optional(struct xdp_md *ctx)
{
	return XDP_PASS;
}

struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 1); __type(key, __u32);
         __array(values, int(void *)); } tails SEC(".maps") = { .values = { (void *)&everywhere } };

SEC("xdp") int tail_call(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &tails, 0);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
"""
# Linux 6.1 lacks the kernel function and the first helper of 6.2, number 210. It has helper 209.
NEWER = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

extern int bpf_dynptr_from_xdp(struct xdp_md *ctx, __u64 flags, struct bpf_dynptr *out) __ksym __weak;
static long (*of_6_1)(void) = (void *)209;
static long (*of_6_2)(void) = (void *)210;

SEC("xdp") int everywhere(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("xdp") int kernel_function(struct xdp_md *ctx)
{
	struct bpf_dynptr packet;

	return bpf_dynptr_from_xdp(ctx, 0, &packet) ? XDP_PASS : XDP_DROP;
}

SEC("cgroup_skb/egress") int last_helper(void *ctx)
{
	return of_6_1();
}

SEC("cgroup_skb/egress") int next_helper(void *ctx)
{
	return of_6_2();
}

SEC("fentry/veth_xmit") int in_a_module(void *ctx)
{
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
"""


# Loads with PERFMON alone: a packet pointer that a variable moved, and a helper that shows kernel memory.
PRIVILEGED = """\
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_helpers.h>

SEC("xdp") int plain(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("xdp") int options(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = data + sizeof(struct ethhdr);
	struct udphdr *udp;

	if ((void *)(ip + 1) > end)
		return XDP_PASS;
	udp = (void *)ip + ip->ihl * 4;
	if ((void *)(udp + 1) > end)
		return XDP_PASS;
	return udp->dest ? XDP_PASS : XDP_DROP;
}
PRINT
char LICENSE[] SEC("license") = "GPL";
"""
PRINT = """
SEC("xdp") int print(struct xdp_md *ctx)
{
	bpf_printk("seen");
	return XDP_PASS;
}
"""


def build_probes(directory: Path, clang: Path, sysroot: Path, arch: str, options: list[str]) -> Path:
    """Link bpf-probe for *arch* into *directory*, unless it is newer than its source. Return *directory*."""
    output = directory / arch / "bpf-probe"
    sources = [TOP / "loader/probe/probe.c", TOP / "loader/base/static_gaps.c", TOP / "loader/flags.txt"]
    if output.exists() and output.stat().st_mtime > max(path.stat().st_mtime for path in sources):
        return directory
    output.parent.mkdir(parents=True, exist_ok=True)
    aside = output.with_suffix(".new")
    argv = [clang, *options, f"--sysroot={sysroot}", "probe/probe.c", "base/static_gaps.c", "@flags.txt"]
    subprocess.run([*argv, "-o", aside], cwd=TOP / "loader", check=True)
    aside.rename(output)
    return directory


def read_junit(path: Path) -> ET.Element:
    """Return the JUnit XML of *path*, checked against Jenkins' schema."""
    top = ET.parse(path).getroot()  # noqa: S314 - our own file
    assert top.tag == "testsuites"
    for element in top.iter():
        required, optional, inside = JUNIT[element.tag]
        assert required <= set(element.attrib) <= required | optional, element.tag
        assert {child.tag for child in element} <= inside, element.tag
    return top


def check_report(text: str) -> None:
    """Check *text*, the output of --json, against its schema."""
    schema = json.loads((TOP / "spec/check-report.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(json.loads(text))


def run_check(
    probes: Path,
    *arguments: str | Path,
    code: int = 1,
    prefix: tuple[str, ...] = (),
    **env: str,
) -> subprocess.CompletedProcess[str]:
    """Run `buildtool check` with *probes*, check the exit *code*, and return the finished process."""
    argv = [*prefix, sys.executable, "-m", "buildtool", "check", *arguments]
    settings = {**os.environ, "BUILDTOOL_PROBES": str(probes), **env}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=settings)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    if "--json" in arguments and done.stdout:
        check_report(done.stdout)
    return done
