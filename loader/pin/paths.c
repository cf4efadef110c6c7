// SPDX-License-Identifier: Apache-2.0
#include "pin/paths.h"

#include "base/fault.h"
#include "pin/bpffs.h"

#include <errno.h>
#include <stdio.h>

int paths__part(char at[BPFFS_PATH_SIZE], const char *home, const char *name)
{
	return bpffs__path(at, home, name);
}

int paths__link(char at[BPFFS_PATH_SIZE], const char *home, const char *link, const char *suffix)
{
	char directory[BPFFS_PATH_SIZE], name[BPFFS_PATH_SIZE];
	int n = snprintf(name, sizeof(name), "%s%s", link, suffix);

	if (n < 0 || n >= (int)sizeof(name) || paths__part(directory, home, "links"))
		return -ENAMETOOLONG;
	return bpffs__path(at, directory, name);
}

int paths__list_links(const char *home, struct pin_list *links, struct fault *fault)
{
	char at[BPFFS_PATH_SIZE];

	if (paths__part(at, home, "links"))
		return fault__set(fault, -ENAMETOOLONG, "%.200s: name too long", home);
	return bpffs__list(at, BPFFS_LINK, links, fault);
}

int paths__settle_link(const char *home, const char *link)
{
	char at[BPFFS_PATH_SIZE], aside[BPFFS_PATH_SIZE];
	int err = paths__link(at, home, link, "");

	if (!err)
		err = paths__link(aside, home, link, PATHS_ASIDE);
	/* What was there before is detached by losing its name. */
	if (!err && rename(aside, at))
		err = -errno;
	return err;
}
