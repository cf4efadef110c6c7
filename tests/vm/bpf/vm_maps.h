/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the programs of this directory: the watched process, and the counters. */
#ifndef VM_MAPS_H
#define VM_MAPS_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

/* Written by `guest_tool work`: its process id, the bytes of each write, and the inode of the file. */
struct vm_target {
	__u32 tgid;
	__u32 bytes;
	__u64 inode;
};

#define VM_COUNTS 4

#define VM_MAPS(name)                                                                                        \
	struct {                                                                                             \
		__uint(type, BPF_MAP_TYPE_ARRAY);                                                            \
		__uint(max_entries, 1);                                                                      \
		__type(key, __u32);                                                                          \
		__type(value, struct vm_target);                                                             \
	} name##_target SEC(".maps");                                                                        \
	struct {                                                                                             \
		__uint(type, BPF_MAP_TYPE_ARRAY);                                                            \
		__uint(max_entries, VM_COUNTS);                                                              \
		__type(key, __u32);                                                                          \
		__type(value, __u64);                                                                        \
	} name##_counts SEC(".maps");                                                                        \
	static const struct vm_target *target(void)                                                          \
	{                                                                                                    \
		__u32 only = 0;                                                                              \
		const struct vm_target *found = bpf_map_lookup_elem(&name##_target, &only);                  \
                                                                                                             \
		return found && found->tgid ? found : NULL;                                                  \
	}                                                                                                    \
	static void count(__u32 what)                                                                        \
	{                                                                                                    \
		__u64 *value = bpf_map_lookup_elem(&name##_counts, &what);                                   \
                                                                                                             \
		if (value)                                                                                   \
			__sync_fetch_and_add(value, 1);                                                      \
	}                                                                                                    \
	char LICENSE[] SEC("license") = "GPL"

#ifndef NULL
#define NULL ((void *)0)
#endif

/*
 * The section of a probe at the entry of a function. Debian's kernel 6.12 for riscv64 refuses a probe in the
 * first 8 bytes, which belong to ftrace. The arguments are still in their registers after these bytes.
 */
#if defined(__TARGET_ARCH_riscv)
#define ENTRY(function) SEC("kprobe/" function "+8")
#else
#define ENTRY(function) SEC("kprobe/" function)
#endif

static inline __u32 current_tgid(void)
{
	return bpf_get_current_pid_tgid() >> 32;
}

#endif
