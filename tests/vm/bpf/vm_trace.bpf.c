// SPDX-License-Identifier: Apache-2.0
/* Attaches to one tracepoint in three ways: with the kernel's BTF, raw, and by its format in tracefs. */
#include "vm_maps.h"
#include "vm_types.h"

VM_MAPS(trace);

/* sched_process_fork(struct task_struct *parent, struct task_struct *child) */
SEC("tp_btf/sched_process_fork")
int trace_btf(__u64 *ctx)
{
	const struct vm_target *wanted = target();
	struct task_struct *parent = (void *)ctx[0];

	if (wanted && (__u32)parent->tgid == wanted->tgid)
		count(0);
	return 0;
}

SEC("raw_tp/sched_process_fork")
int trace_raw(void *ctx)
{
	const struct vm_target *wanted = target();

	if (wanted && current_tgid() == wanted->tgid)
		count(1);
	return 0;
}

SEC("tracepoint/sched/sched_process_fork")
int trace_format(void *ctx)
{
	const struct vm_target *wanted = target();

	if (wanted && current_tgid() == wanted->tgid)
		count(2);
	return 0;
}
