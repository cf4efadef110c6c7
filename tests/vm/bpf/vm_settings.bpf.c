// SPDX-License-Identifier: Apache-2.0
/* Shows the constants that the loader has set, in this byte order. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

const volatile _Bool flag;
const volatile signed char s8 = 1;
const volatile __u16 u16 = 1;
const volatile __s32 s32 = 1;
const volatile __u64 u64 = 1;
const volatile char label[8] = "no";

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64);
} settings_seen SEC(".maps");

static __always_inline void show(__u32 place, __u64 value)
{
	bpf_map_update_elem(&settings_seen, &place, &value, BPF_ANY);
}

SEC("raw_tp/sys_enter") int show_settings(void *ctx)
{
	show(0, flag);
	show(1, (__u64)s8);
	show(2, u16);
	show(3, (__u64)s32);
	show(4, u64);
	show(5, (__u64)label[1]);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
