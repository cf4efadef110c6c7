// SPDX-License-Identifier: Apache-2.0
#include "pin/paths.h"

#include "base/fault.h"
#include "pin/bpffs.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#define LINKS "links"

static int name_aside(char name[BPFFS_NAME_SIZE], const char *link)
{
	int n = snprintf(name, BPFFS_NAME_SIZE, "%s" PATHS_ASIDE, link);

	return n < 0 || n >= BPFFS_NAME_SIZE ? -ENAMETOOLONG : 0;
}

int paths__list_links(int home, struct pin_list *links, const char *shown, struct fault *fault)
{
	return bpffs__list(home, LINKS, BPFFS_LINK, links, shown, fault);
}

int paths__get_link(int home, const char *link)
{
	int links = bpffs__enter(home, LINKS), fd;

	if (links < 0)
		return links;
	fd = bpffs__get(links, link, BPFFS_LINK);
	close(links);
	return fd;
}

int paths__put_link(int home, const char *link, int fd, bool *aside)
{
	int links = bpffs__enter(home, LINKS), err = 0;
	char name[BPFFS_NAME_SIZE];

	if (links < 0)
		return links;
	*aside = bpffs__exists(links, link);
	if (*aside) {
		err = name_aside(name, link);
		link = name;
	}
	if (!err)
		err = bpffs__pin(links, link, fd);
	close(links);
	return err;
}

int paths__remove_link(int home, const char *link, bool aside)
{
	int links = bpffs__enter(home, LINKS), err = 0;
	char name[BPFFS_NAME_SIZE];

	if (links < 0)
		return links;
	if (aside)
		err = name_aside(name, link);
	if (!err)
		err = bpffs__remove(links, aside ? name : link);
	close(links);
	return err;
}

int paths__settle_link(int home, const char *link)
{
	int links = bpffs__enter(home, LINKS), err;
	char aside[BPFFS_NAME_SIZE];

	if (links < 0)
		return links;
	err = name_aside(aside, link);
	/* What was there before is detached by losing its name. */
	if (!err)
		err = bpffs__rename(links, aside, link);
	close(links);
	return err;
}
