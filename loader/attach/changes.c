// SPDX-License-Identifier: Apache-2.0
#include "attach/changes.h"

#include "base/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define NEWS_BYTES 8192

enum { INTERFACES, DIRECTORIES, MOUNTS };

int changes__open(struct changes *changes, struct fault *fault)
{
	const struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK };
	int fd, err;

	for (size_t i = 0; i < CHANGES_COUNT; i++)
		changes->fds[i] = (struct pollfd){ .fd = -1, .events = POLLIN };
	changes->fds[MOUNTS].events = POLLPRI;
	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
	if (fd >= 0 && !bind(fd, (const struct sockaddr *)&address, sizeof(address))) {
		changes->fds[INTERFACES].fd = fd;
		return 0;
	}
	err = -errno;
	if (fd >= 0)
		close(fd);
	return fault__set(fault, err,
			  "cannot watch interfaces: %s; allow netlink sockets, or send SIGHUP after a change",
			  strerror(-err));
}

/* The kernel's table of mounts is readable (POLLPRI) after each mount: that of a namespace is no new entry.
 */
static void watch_mounts(struct changes *changes)
{
	if (changes->fds[MOUNTS].fd < 0)
		changes->fds[MOUNTS].fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
}

/* A deleted directory of cgroups sends no event of its own, so watch the directories above it, too. */
void changes__watch(void *context, const char *path)
{
	const uint32_t events = IN_CREATE | IN_DELETE | IN_MOVE | IN_ONLYDIR;
	struct changes *changes = context;
	char above[PATH_MAX];
	bool found = false;
	struct stat st;
	dev_t device = 0;
	char *slash;

	if (!strncmp(path, "/proc/", 6))
		return;
	watch_mounts(changes);
	if (changes->fds[DIRECTORIES].fd < 0)
		changes->fds[DIRECTORIES].fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	snprintf(above, sizeof(above), "%s", path);
	while ((slash = strrchr(above, '/')) && slash != above) {
		*slash = 0;
		if (stat(above, &st))
			continue;
		if (found && st.st_dev != device)
			break;
		found = true;
		device = st.st_dev;
		inotify_add_watch(changes->fds[DIRECTORIES].fd, above, events);
	}
}

static void take(struct pollfd *fd)
{
	char news[NEWS_BYTES] __attribute__((aligned(8)));
	ssize_t n;

	do
		n = read(fd->fd, news, sizeof(news));
	/* Lost news of interfaces (ENOBUFS) are news, too. */
	while (n > 0 || (n < 0 && (errno == EINTR || errno == ENOBUFS)));
	if (!n || errno != EAGAIN) {
		close(fd->fd);
		fd->fd = -1;
	}
}

void changes__take(struct changes *changes)
{
	if (changes->fds[INTERFACES].fd >= 0)
		take(&changes->fds[INTERFACES]);
	if (changes->fds[DIRECTORIES].fd >= 0)
		take(&changes->fds[DIRECTORIES]);
}

void changes__close(struct changes *changes)
{
	for (size_t i = 0; i < CHANGES_COUNT; i++) {
		if (changes->fds[i].fd >= 0)
			close(changes->fds[i].fd);
		changes->fds[i].fd = -1;
	}
}
