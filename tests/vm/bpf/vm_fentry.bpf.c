// SPDX-License-Identifier: Apache-2.0
/* Reads arguments and result of a kernel function through the architecture's trampoline. */
#include "vm_maps.h"
#include "vm_types.h"

VM_MAPS(fentry);

SEC("fentry/vfs_write")
int fentry_enter(__u64 *ctx)
{
	const struct vm_target *wanted = target();
	struct file *file = (void *)ctx[0];

	if (wanted && ctx[2] == wanted->bytes && file->f_inode->i_ino == wanted->inode)
		count(0);
	return 0;
}

SEC("fexit/vfs_write")
int fentry_exit(__u64 *ctx)
{
	const struct vm_target *wanted = target();
	struct file *file = (void *)ctx[0];

	if (wanted && ctx[4] == wanted->bytes && file->f_inode->i_ino == wanted->inode)
		count(1);
	return 0;
}
