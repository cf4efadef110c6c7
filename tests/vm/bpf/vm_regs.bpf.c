// SPDX-License-Identifier: Apache-2.0
/* Reads an argument out of a register: needs neither the kernel's BTF nor CO-RE. */
#include "../../../bpf/registers.h"
#include "vm_maps.h"

#include <bpf/bpf_tracing.h>

VM_MAPS(regs);

/* ssize_t vfs_write(struct file *file, const char *buf, size_t count, loff_t *pos) */
ENTRY("vfs_write")
int regs_enter(struct pt_regs *ctx)
{
	const struct vm_target *wanted = target();

	if (wanted && current_tgid() == wanted->tgid && (__u64)PT_REGS_PARM3(ctx) == wanted->bytes)
		count(0);
	return 0;
}
