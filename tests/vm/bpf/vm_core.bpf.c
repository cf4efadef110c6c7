// SPDX-License-Identifier: Apache-2.0
/* Follows pointers from a register into kernel structures; CO-RE adjusts the offsets of their members. */
#include "../../../bpf/registers.h"
#include "vm_maps.h"
#include "vm_types.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

VM_MAPS(core);

ENTRY("vfs_write")
int core_write(struct pt_regs *ctx)
{
	struct file *file = (void *)(unsigned long)PT_REGS_PARM1(ctx);
	struct task_struct *task = (void *)bpf_get_current_task();
	const struct vm_target *wanted = target();

	if (!wanted || (__u32)BPF_CORE_READ(task, tgid) != wanted->tgid)
		return 0;
	count(0);
	if (BPF_CORE_READ(file, f_inode, i_ino) == wanted->inode)
		count(1);
	return 0;
}
