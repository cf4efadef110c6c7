// SPDX-License-Identifier: Apache-2.0
/* Reads a function's result out of a register: needs neither the kernel's BTF nor CO-RE. */
#include "../../../bpf/registers.h"
#include "vm_maps.h"

#include <bpf/bpf_tracing.h>

VM_MAPS(result);

SEC("kretprobe/vfs_write")
int result_exit(struct pt_regs *ctx)
{
	const struct vm_target *wanted = target();

	if (wanted && current_tgid() == wanted->tgid && (__u64)PT_REGS_RC(ctx) == wanted->bytes)
		count(0);
	return 0;
}
