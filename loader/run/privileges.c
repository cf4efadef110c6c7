// SPDX-License-Identifier: Apache-2.0
#include "run/privileges.h"

#include "base/capabilities.h"
#include "base/fault.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#define CAP_MAX 64

struct sets {
	uint64_t effective, permitted, inheritable;
};

static int get_sets(struct sets *sets)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &header, data))
		return -errno;
	*sets = (struct sets){
		.effective = data[0].effective | (uint64_t)data[1].effective << 32,
		.permitted = data[0].permitted | (uint64_t)data[1].permitted << 32,
		.inheritable = data[0].inheritable | (uint64_t)data[1].inheritable << 32,
	};
	return 0;
}

/* Permitted and effective; nothing is ever inherited. */
static int set_sets(uint64_t mask)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = {
		{ .effective = (uint32_t)mask, .permitted = (uint32_t)mask },
		{ .effective = (uint32_t)(mask >> 32), .permitted = (uint32_t)(mask >> 32) },
	};

	return syscall(SYS_capset, &header, data) ? -errno : 0;
}

static bool may_clear_bounds(const struct sets *sets)
{
	return sets->effective & UINT64_C(1) << CAP_SETPCAP;
}

static uint64_t get_bounds(void)
{
	uint64_t bounds = 0;
	int set;

	/* Past the last one that the kernel knows it is an error. */
	for (unsigned cap = 0; cap < CAP_MAX && (set = prctl(PR_CAPBSET_READ, cap, 0, 0, 0)) >= 0; cap++)
		bounds |= (uint64_t)set << cap;
	return bounds;
}

static int clear_bounds(void)
{
	/* It fails for the first one that the kernel doesn't know. */
	for (unsigned cap = 0; cap < CAP_MAX && !prctl(PR_CAPBSET_DROP, cap, 0, 0, 0); cap++)
		;
	return get_bounds() ? -EPERM : 0;
}

/*
 * Under no_new_privs the kernel cuts what execve gives, to root or by a file's capabilities, down to what was
 * there before: a bounding set that stays is worth nothing. It is a second line of defence, and what
 * nobody asked for has no place in it.
 */
int privileges__check_bounds(uint64_t asked, struct fault *fault)
{
	char names[CAPABILITIES_TEXT_SIZE];
	struct sets sets;
	uint64_t surplus;

	if (!get_sets(&sets) && may_clear_bounds(&sets))
		return 0;
	surplus = get_bounds() & ~asked;
	if (!surplus)
		return 0;
	capabilities__format(surplus, "", names);
	return fault__set(
		fault, -EPERM,
		"the workload's bounding set would keep what no program here needs: take it from the "
		"container (--cap-drop ALL), or allow it by --capabilities: %s",
		names);
}

uint64_t privileges__raise(void)
{
	struct sets sets;

	if (get_sets(&sets))
		return 0;
	if (sets.effective != sets.permitted && set_sets(sets.permitted))
		return sets.effective;
	return sets.permitted;
}

int privileges__keep(uint64_t keep, struct fault *fault)
{
	struct sets sets, left;
	int err = get_sets(&sets);

	if (!err && may_clear_bounds(&sets))
		err = clear_bounds();
	if (!err && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		err = -errno;
	if (!err)
		err = set_sets(sets.permitted & keep);
	/* Ambient capabilities are inheritable ones: the kernel has taken them away, too. */
	if (!err)
		err = get_sets(&left);
	if (err)
		return fault__set(fault, err, "cannot drop capabilities: %s", strerror(-err));
	if (((left.effective | left.permitted | left.inheritable) & ~(sets.permitted & keep)) ||
	    prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
		return fault__set(fault, -EPERM, "capabilities are left after dropping them");
	return 0;
}

/* Who has to give it: the container's runtime, the file, or whoever chose the user. */
static const char *remedy(uint64_t missing)
{
	for (unsigned cap = 0; cap < CAP_MAX; cap++) {
		if (missing >> cap & 1 && prctl(PR_CAPBSET_READ, cap, 0, 0, 0) != 1)
			return "which the container must be given (--cap-add)";
	}
	if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 &&
	    getxattr("/proc/self/exe", "security.capability", NULL, 0) > 0)
		return "as no_new_privs voids the file's: leave it out, or run as root";
	return "which this user has not got: run as root, or give them to the file";
}

void privileges__explain(uint64_t needed, struct fault *fault)
{
	char names[CAPABILITIES_TEXT_SIZE];
	size_t n = strlen(fault->text);
	struct sets sets;
	uint64_t missing;

	missing = get_sets(&sets) ? 0 : capabilities__missing(needed, sets.effective);
	if (!missing)
		return;
	capabilities__format(missing, "CAP_", names);
	snprintf(fault->text + n, sizeof(fault->text) - n, "; missing: %s, %s", names, remedy(missing));
}

int privileges__drop(struct fault *fault)
{
	return privileges__keep(0, fault);
}
