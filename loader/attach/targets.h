/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_ATTACH_TARGETS_H
#define LOADER_ATTACH_TARGETS_H

#include "base/fault.h"

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct interface {
	char name[IF_NAMESIZE];
	int index;
};

/*
 * Find the interfaces of this network namespace that match @pattern (with * and ?), sorted by name. Wait for
 * the first one until @deadline. Returns their number, -EINVAL for a wrong pattern (a usage fault), -EINTR
 * after SIGTERM or SIGINT, or another negative errno.
 */
int targets__interfaces(const char *pattern, size_t size, int64_t deadline, struct interface *found,
			size_t room, struct fault *fault);

/* Return whether an interface of this network namespace has the index. */
bool targets__has_index(int index);

/* Open a cgroup's directory. Returns the descriptor or a negative errno. */
int targets__open_cgroup(const char *path, struct fault *fault);

/*
 * Return whether the cgroup no longer exists. A path that is missing because its file system was unmounted
 * does not tell.
 */
bool targets__is_deleted_cgroup(const char *path);

#endif
