// SPDX-License-Identifier: Apache-2.0
#include "run/privileges.h"

#include "base/capabilities.h"
#include "base/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <stdio.h>
#include <stdlib.h>
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

/* Set all three sets of this process. */
static int set_sets(struct sets sets)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = {
		{ .effective = (uint32_t)sets.effective,
		  .permitted = (uint32_t)sets.permitted,
		  .inheritable = (uint32_t)sets.inheritable },
		{ .effective = (uint32_t)(sets.effective >> 32),
		  .permitted = (uint32_t)(sets.permitted >> 32),
		  .inheritable = (uint32_t)(sets.inheritable >> 32) },
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

	/* prctl(2) fails after the last capability that the kernel knows. */
	for (unsigned cap = 0; cap < CAP_MAX && (set = prctl(PR_CAPBSET_READ, cap, 0, 0, 0)) >= 0; cap++)
		bounds |= (uint64_t)set << cap;
	return bounds;
}

static int limit_bounds(uint64_t keep)
{
	/* prctl(2) fails for the first capability that the kernel does not know. */
	for (unsigned cap = 0; cap < CAP_MAX; cap++) {
		if (!(keep >> cap & 1) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0))
			break;
	}
	return get_bounds() & ~keep ? -EPERM : 0;
}

/*
 * Under no_new_privs, the kernel limits the capabilities that execve(2) gives, to root or by a file, to those
 * from before. The remaining bounding set therefore grants nothing. It is a second line of defence, and must
 * hold no capability that nobody asked for.
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
		"bounding set: the workload would keep capabilities that no program needs: %.300s; start "
		"the container with --cap-drop ALL, or allow them with --capabilities",
		names);
}

uint64_t privileges__raise(void)
{
	struct sets sets;

	if (get_sets(&sets))
		return 0;
	if (sets.effective != sets.permitted && set_sets((struct sets){ sets.permitted, sets.permitted, 0 }))
		return sets.effective;
	return sets.permitted;
}

void privileges__lower(uint64_t keep)
{
	struct sets sets;

	if (!get_sets(&sets))
		set_sets((struct sets){ sets.permitted & keep, sets.permitted, sets.inheritable });
}

int privileges__keep(uint64_t keep, struct fault *fault)
{
	struct sets sets, left;
	int err = get_sets(&sets);

	if (!err && may_clear_bounds(&sets))
		err = limit_bounds(0);
	if (!err && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		err = -errno;
	if (!err)
		err = set_sets((struct sets){ sets.permitted & keep, sets.permitted & keep, 0 });
	/* The kernel removed the ambient capabilities too, because they must be inheritable. */
	if (!err)
		err = get_sets(&left);
	if (err)
		return fault__set(fault, err, "cannot drop capabilities: %s", strerror(-err));
	if (((left.effective | left.permitted | left.inheritable) & ~(sets.permitted & keep)) ||
	    prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
		return fault__set(fault, -EPERM, "cannot drop capabilities: some are left");
	return 0;
}

static int raise_ambient(uint64_t mask)
{
	for (unsigned cap = 0; cap < CAP_MAX; cap++) {
		if (mask >> cap & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0))
			return -errno;
	}
	return 0;
}

int privileges__check_hand_over(struct fault *fault)
{
	int bits = prctl(PR_GET_SECUREBITS, 0, 0, 0, 0);

	if (bits >= 0 && bits & SECBIT_NO_CAP_AMBIENT_RAISE)
		return fault__set(fault, -EPERM,
				  "the workload would have no capability: SECBIT_NO_CAP_AMBIENT_RAISE is "
				  "set; start the "
				  "loader without this bit");
	return 0;
}

int privileges__hand_over(uint64_t keep, struct fault *fault)
{
	struct sets sets, left;
	int err;

	privileges__raise(); /* a change of the user emptied the effective set */
	err = get_sets(&sets);
	if (!err && may_clear_bounds(&sets))
		err = limit_bounds(keep);
	if (!err && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		err = -errno;
	if (!err)
		err = set_sets((struct sets){ keep, keep, keep });
	if (!err)
		err = raise_ambient(keep);
	if (!err)
		err = get_sets(&left);
	if (err)
		return fault__set(fault, err, "cannot keep the workload's capabilities: %s", strerror(-err));
	if (left.effective != keep || left.permitted != keep || left.inheritable != keep ||
	    prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
		return fault__set(fault, -EPERM, "cannot drop capabilities: some are left");
	return 0;
}

bool privileges__are_of_user_namespace(void)
{
	int fd = open("/proc/self/uid_map", O_RDONLY | O_CLOEXEC);
	char text[128], *end = text;
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return false;
	text[n] = 0;
	/* The first namespace maps all ids to themselves: "0 0 4294967295". */
	return strtoul(end, &end, 10) || strtoul(end, &end, 10) || strtoul(end, &end, 10) != UINT32_MAX;
}

/* Write who can give the missing capabilities: the container's options, the loader's file, or its user. */
static void add_remedy(uint64_t missing, char *text, size_t room)
{
	bool has_file = getxattr("/proc/self/exe", "security.capability", NULL, 0) > 0;
	char options[CAPABILITIES_TEXT_SIZE];

	if (missing & ~get_bounds()) {
		capabilities__format(missing, "--cap-add ", options);
		snprintf(text, room, "the container lacks it; start it with %s", options);
	} else if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 && has_file) {
		snprintf(text, room,
			 "no_new_privs disables those of the loader's file; remove no-new-privileges, or use "
			 "--user 0");
	} else if (has_file) {
		snprintf(text, room,
			 "the loader's file does not have it; add it to image.capabilities and build again, "
			 "or "
			 "use --user 0");
	} else {
		snprintf(text, room,
			 "this user does not have it; run as root, or set it on the loader's file with "
			 "setcap");
	}
}

void privileges__explain(uint64_t needed, struct fault *fault)
{
	uint64_t missing = capabilities__missing(needed, capabilities__held());
	char names[CAPABILITIES_TEXT_SIZE], remedy[CAPABILITIES_TEXT_SIZE];
	size_t n = strlen(fault->text), room = sizeof(fault->text) - n;

	if (missing) {
		capabilities__format(missing, "CAP_", names);
		add_remedy(missing, remedy, sizeof(remedy));
		snprintf(fault->text + n, room, "; missing %.100s: %s", names, remedy);
	} else if (fault->capabilities && privileges__are_of_user_namespace()) {
		snprintf(fault->text + n, room,
			 "; capabilities of a user namespace (a rootless container) do not count: run it as "
			 "root of the host");
	}
}

int privileges__drop(struct fault *fault)
{
	return privileges__keep(0, fault);
}
