# SPDX-License-Identifier: Apache-2.0
"""A project with an object of several sources: a map and functions that they share, and another object."""

from __future__ import annotations

import os
from pathlib import Path

# Names in the kernel, by which a test finds its own program and map.
MARK = f"lk{os.getpid() % 100000}"

SHARED = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct counts {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
};
char LICENSE[] SEC("license") = "GPL";
"""
# The kernel verifies a global function alone, and the weak one is replaced.
ENTRY = """\
#include "shared.h"
extern struct counts @_counts SEC(".maps");
extern int add(int x);
extern const volatile int nothing;
__weak int step(void) { return 1; }
SEC("raw_tp/sys_enter") int @_count(void *ctx)
{
	__u32 zero = 0;
	__u64 *value = bpf_map_lookup_elem(&@_counts, &zero);
	if (value)
		__sync_fetch_and_add(value, add(step()) + nothing);
	return 0;
}
"""
PARTS = """\
#include "shared.h"
struct counts @_counts SEC(".maps");
const volatile int base = 40;
const volatile int nothing = 0;
int step(void) { return STEP; }
int add(int x) { return x + base; }
"""
ALONE = """\
#include "shared.h"
SEC("socket") int alone(void *ctx) { return 3; }
"""
CONFIG = """\
[project]
name = "linked"
[compile]
sources = ["bpf/**/*.bpf.c"]
include = ["include"]
[[compile.object]]
name = "agent.bpf.o"
sources = ["bpf/agent/*.bpf.c"]
flags = ["-DSTEP=2"]
[[compile.object]]
name = "agent-3.bpf.o"
sources = ["bpf/agent/parts.bpf.c", "bpf/agent/entry.bpf.c"]
flags = ["-DSTEP=3"]
[sign]
key = "keys/dev.pem"
"""
OBJECTS = ("agent-3.bpf.o", "agent.bpf.o", "alone.bpf.o")


def write_linked(root: Path) -> Path:
    """Write the project into *root*, and return it."""
    for name, text in {
        "bpf/agent/entry.bpf.c": ENTRY,
        "bpf/agent/parts.bpf.c": PARTS,
        "bpf/alone.bpf.c": ALONE,
        "include/shared.h": SHARED,
        "buildtool.toml": CONFIG,
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("@", MARK))
    return root
