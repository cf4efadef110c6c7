# SPDX-License-Identifier: Apache-2.0
"""Objects that kernels load and refuse, the probe that loads them, and `buildtool check`."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import jsonschema

from buildtool.runtime.carried import LINKED_FROM
from labs import TOP
from labs.libbpf import compile_libbpf
from labs.vectors.builder import CODE, LICENSE, SHT_STRTAB, Part, Recipe, build

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
    "skipped": (set(), {"type", "message"}, set()),
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


NEVER_HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct bpf_map_def { unsigned type, key_size, value_size, max_entries; };
#define MAP(...) struct { __VA_ARGS__ } m SEC(".maps")
#define KIND(name) __uint(type, BPF_MAP_TYPE_##name);
#define ENTRIES(number) __uint(max_entries, number);
#define SIZES(key, value) __uint(key_size, key); __uint(value_size, value);
#define TYPES __type(key, int); __type(value, __u64);
#define ON_DEMAND __uint(map_flags, BPF_F_NO_PREALLOC);
#define GOOD SEC("xdp") int good(void *c) { return 2; }
char LICENSE[] SEC("license") = "GPL";
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Never:
    """
    A *source* that no kernel loads, with a finding of *rule* about *says*.

    *mended* is a copy that loads.
    """

    rule: str
    says: str
    source: str
    mended: str


def _map(says: str, source: str, mended: str) -> Never:
    sources = (f"MAP({text}); GOOD" for text in (source, mended))
    return Never(rule="BT013", says=f"map m: {says}", source=next(sources), mended=next(sources))


def _opened(says: str, source: str, mended: str) -> Never:
    return Never(rule="BT007", says=says, source=source, mended=mended)


_PROGRAM = 'SEC("xdp") int p(int *c)'
_NOINLINE = "__attribute__((noinline))"
_SUB = 'int sub(int x) { asm volatile(""); return x; }'
# Sources that libbpf does not open, and sources that it opens and no kernel accepts.
NEVER = {
    "legacy-maps": _opened(
        "legacy map definitions in 'maps' section",
        'struct bpf_map_def m SEC("maps") = { 2, 4, 8, 1 }; GOOD',
        "MAP(KIND(ARRAY) ENTRIES(1) TYPES); GOOD",
    ),
    "undefined-function": _opened(
        "extern 'other'",
        f"extern int other(int); {_PROGRAM} {{ return other(1); }}",
        f"{_NOINLINE} int other(int x) {{ return x; }} {_PROGRAM} {{ return other(1); }}",
    ),
    "static-program": _opened(
        "program 'p' is static and not supported (remove static from p",
        'SEC("xdp") static int p(void *c) { return 2; }',
        f"{_PROGRAM} {{ return 2; }}",
    ),
    "static-function-elsewhere": _opened(
        "program 'sub' is static",
        f'static {_NOINLINE} SEC(".text.hot") {_SUB} {_PROGRAM} {{ return sub(*c); }}',
        f"static {_NOINLINE} {_SUB} {_PROGRAM} {{ return sub(*c); }}",
    ),
    "misspelt-field": _opened(
        "unknown field 'max_entry' (did you mean max_entries?)",
        "MAP(KIND(ARRAY) ENTRIES(1) __uint(max_entry, 2); TYPES); GOOD",
        "MAP(KIND(ARRAY) ENTRIES(1) TYPES); GOOD",
    ),
    "map-without-type": _opened(
        "map type isn't specified (add",
        "MAP(ENTRIES(1) TYPES); GOOD",
        "MAP(KIND(HASH) ENTRIES(1) TYPES); GOOD",
    ),
    "no-entries": _map("max_entries is missing", "KIND(ARRAY) TYPES", "KIND(ARRAY) ENTRIES(1) TYPES"),
    "no-size-of-a-ring": _map("max_entries is missing", "KIND(RINGBUF)", "KIND(RINGBUF) ENTRIES(4000)"),
    "no-value": _map(
        "the value has no size", "KIND(HASH) ENTRIES(1) SIZES(4, 0)", "KIND(HASH) ENTRIES(1) SIZES(4, 1)"
    ),
    "no-key": _map(
        "the key has no size", "KIND(HASH) ENTRIES(1) SIZES(0, 4)", "KIND(HASH) ENTRIES(1) SIZES(1, 4)"
    ),
    "index-of-8-bytes": _map(
        "the key has 8 bytes, not 4",
        "KIND(ARRAY) ENTRIES(1) SIZES(8, 4)",
        "KIND(ARRAY) ENTRIES(1) SIZES(4, 4)",
    ),
    "trie-that-preallocates": _map(
        "map_flags lacks BPF_F_NO_PREALLOC",
        "KIND(LPM_TRIE) ENTRIES(1) SIZES(8, 4)",
        "KIND(LPM_TRIE) ENTRIES(1) SIZES(8, 4) ON_DEMAND",
    ),
    "trie-without-data": _map(
        "the key has 4 bytes, and the length of the prefix takes 4",
        "KIND(LPM_TRIE) ENTRIES(1) SIZES(4, 4) ON_DEMAND",
        "KIND(LPM_TRIE) ENTRIES(1) SIZES(5, 4) ON_DEMAND",
    ),
    "storage-that-preallocates": _map(
        "map_flags lacks BPF_F_NO_PREALLOC", "KIND(TASK_STORAGE) TYPES", "KIND(TASK_STORAGE) TYPES ON_DEMAND"
    ),
    "storage-with-entries": _map(
        "max_entries is 1", "KIND(SK_STORAGE) ENTRIES(1) TYPES ON_DEMAND", "KIND(SK_STORAGE) TYPES ON_DEMAND"
    ),
    "storage-without-types": _map(
        "key and value need types",
        "KIND(CGRP_STORAGE) SIZES(4, 8) ON_DEMAND",
        "KIND(CGRP_STORAGE) TYPES ON_DEMAND",
    ),
    "queue-with-key": _map(
        "a queue has no key", "KIND(QUEUE) ENTRIES(1) SIZES(4, 4)", "KIND(QUEUE) ENTRIES(1) SIZES(0, 4)"
    ),
    "ring-with-value": _map(
        "a ringbuf has no value", "KIND(RINGBUF) ENTRIES(4096) SIZES(0, 8)", "KIND(RINGBUF) ENTRIES(4096)"
    ),
    "outer-without-inner": _map(
        "no inner map",
        "KIND(ARRAY_OF_MAPS) ENTRIES(1) SIZES(4, 4)",
        "KIND(ARRAY_OF_MAPS) ENTRIES(1) __type(key, int);"
        " __array(values, struct { KIND(ARRAY) ENTRIES(1) TYPES });",
    ),
    "events-without-value": _map(
        "the value has no size", "KIND(PERF_EVENT_ARRAY) SIZES(4, 0)", "KIND(PERF_EVENT_ARRAY) SIZES(4, 4)"
    ),
    "freplace": Never(
        rule="BT014",
        says="section 'freplace' names no function to replace",
        source='SEC("freplace") int p(void *c) { return 0; }',
        mended='SEC("tp_btf/sched_switch") int p(void *c) { return 0; }',
    ),
    "struct-ops-program": Never(
        rule="BT015",
        says="no struct_ops map names it",
        source='SEC("struct_ops/ssthresh") int p(void *c) { return 2; }',
        mended="struct tcp_congestion_ops { __u32 (*ssthresh)(void *); };"
        ' SEC("struct_ops/ssthresh") int p(void *c) { return 2; }'
        ' SEC(".struct_ops.link") struct tcp_congestion_ops ops = { .ssthresh = (void *)p };',
    ),
}


def loadable() -> bytes:
    """Return a small object that libbpf opens: its program has a symbol."""
    symbols = bytes(24) + struct.pack("<IBBHQQ", 1, 0x12, 0, 1, 0, len(CODE.data))
    names = Part(name=b".names", data=b"\0program\0", type=SHT_STRTAB)
    table = Part(name=b".symtab", data=symbols, type=2, fields={"link": 3, "entsize": 24, "info": 1})
    return build(Recipe(parts=(CODE, LICENSE, names, table), sig=None))


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
    sources = [*(TOP / "loader/probe").iterdir(), TOP / "loader/base/static_gaps.c", TOP / "loader/flags.txt"]
    libbpf = compile_libbpf(clang, f"--sysroot={sysroot}", *options)
    if output.exists() and output.stat().st_mtime > max(path.stat().st_mtime for path in sources):
        return directory
    output.parent.mkdir(parents=True, exist_ok=True)
    aside = output.with_suffix(f".{os.getpid()}")  # another process of the run may link it, too
    argv = [clang, *options, f"--sysroot={sysroot}", libbpf, *LINKED_FROM["probe"]]
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
