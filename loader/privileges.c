// SPDX-License-Identifier: Apache-2.0
#include "privileges.h"

#include <errno.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CAP_MAX 64

static bool none_left(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &header, data))
		return false;
	return !(data[0].effective | data[0].permitted | data[0].inheritable | data[1].effective |
		 data[1].permitted | data[1].inheritable) &&
	       prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1;
}

int privileges__drop(struct fault *fault)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[2] = { 0 };

	/* Without CAP_SETPCAP the bounding set stays; no_new_privs makes it worthless. */
	for (unsigned cap = 0; cap < CAP_MAX; cap++) {
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) && errno == EINVAL)
			break; /* the kernel knows no more */
	}
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return fault__set(fault, -errno, "no_new_privs: %s", strerror(errno));
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (syscall(SYS_capset, &header, none))
		return fault__set(fault, -errno, "capset: %s", strerror(errno));
	if (!none_left())
		return fault__set(fault, -EPERM, "capabilities are left after dropping them");
	return 0;
}
