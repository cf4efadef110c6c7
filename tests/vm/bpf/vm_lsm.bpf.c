// SPDX-License-Identifier: Apache-2.0
/* An LSM hook for file access: allows and counts each write. */
#include "vm_maps.h"

VM_MAPS(lsm);

SEC("lsm/file_permission")
int lsm_write(__u64 *ctx)
{
	const struct vm_target *wanted = target();

	/* ctx[1] is the mask; 2 is MAY_WRITE. */
	if (wanted && current_tgid() == wanted->tgid && ctx[1] & 2)
		count(0);
	return 0;
}
