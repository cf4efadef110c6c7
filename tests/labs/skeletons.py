# SPDX-License-Identifier: Apache-2.0
"""An object with types that are hard to declare in another language, for the tests of skeletons."""

from __future__ import annotations

from pathlib import Path

from buildtool.cli.main import run

SOURCE = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
enum verdict { DROP_IT, PASS_IT = 7 };
typedef struct { __u32 x; __u8 y; } inner_t;
struct packet_key {
	__u32 src;
	__u16 port;
	__u8 proto;
	inner_t in;
	union { __u32 a; __u8 b[4]; } u;
	enum verdict v;
	__u64 big;
	__u32 lo : 4, hi : 28;
	char comm[16];
	_Bool ok;
};
struct packed { __u8 a; __u64 b; } __attribute__((packed));
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, struct packet_key);
	__type(value, struct packed);
} packet_counts SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} enter_total SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } events SEC(".maps");
const volatile __u32 limit_packets = 5;
const volatile enum verdict what = PASS_IT;
__u64 seen_total;
inner_t last;
static __u64 hidden;
SEC("raw_tp/sys_enter") int raw_enter(void *ctx)
{
	struct packet_key key = {};
	struct packed value = {};
	__u32 zero = 0;
	__u64 *total = bpf_map_lookup_elem(&enter_total, &zero);

	if (total)
		__sync_fetch_and_add(total, 1);
	seen_total++;
	hidden += limit_packets + what;
	if (hidden == 99998)
		bpf_printk("hidden %d", hidden);
	last.x++;
	bpf_map_update_elem(&packet_counts, &key, &value, 0);
	return hidden == 99999;
}
SEC("socket") int pass_all(void *ctx) { return 0; }
char LICENSE[] SEC("license") = "GPL";
"""
CONFIG = """\
[project]
name = "agent"
[compile]
sources = ["counter.bpf.c"]
[sign]
key = "keys/k.pem"
"""
# Types of global variables, which a skeleton in C takes from a header that agent and programs share.
SHARED_TYPES = [line for line in SOURCE.splitlines() if line.startswith(("enum verdict", "typedef"))]
# Offset of each member of struct packet_key, and the size at the end.
OFFSETS = [0, 4, 6, 8, 16, 20, 24, 36, 52, 56]


def make_counter(root: Path, *architectures: str) -> list[Path]:
    """Compile and sign the object in *root*, the working directory, and return its files."""
    (root / "counter.bpf.c").write_text(SOURCE)
    (root / "buildtool.toml").write_text(CONFIG)
    if not (root / "keys/k.pem").exists():
        assert run(["keygen", "k"]) == 0
    assert run(["compile", *(word for arch in architectures for word in ("--arch", arch))]) == 0
    objects = [root / "build" / arch / "counter.bpf.o" for arch in architectures]
    assert run(["sign", *map(str, objects)]) == 0
    return objects
