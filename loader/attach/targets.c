// SPDX-License-Identifier: Apache-2.0
#include "attach/targets.h"

#include "base/fault.h"
#include "base/log.h"
#include "base/signals.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define POLL_NANOSECONDS 20000000 /* between two looks for a missing interface */

/* Ask for the index or the name of an interface. if_nametoindex() would link a netlink client. */
static int ask(unsigned long question, struct ifreq *request)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), err = 0;

	if (fd < 0 && errno == EAFNOSUPPORT)
		fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (ioctl(fd, question, request))
		err = -errno;
	close(fd);
	return err;
}

static int get_interface_index(const char *name)
{
	struct ifreq request = { 0 };
	int err;

	memcpy(request.ifr_name, name, strlen(name));
	err = ask(SIOCGIFINDEX, &request);
	return err ? err : request.ifr_ifindex;
}

bool targets__has_index(int index)
{
	struct ifreq request = { .ifr_ifindex = index };

	return ask(SIOCGIFNAME, &request) != -ENODEV;
}

/* fnmatch() would link locales into the program. */
static bool matches(const char *pattern, const char *name)
{
	for (; *pattern && *pattern != '*'; pattern++, name++) {
		if (!*name || (*pattern != '?' && *pattern != *name))
			return false;
	}
	if (!*pattern)
		return !*name;
	do {
		if (matches(pattern + 1, name))
			return true;
	} while (*name++);
	return false;
}

static int compare(const void *a, const void *b)
{
	return strcmp(((const struct interface *)a)->name, ((const struct interface *)b)->name);
}

/* /sys/class/net shows the namespace in which sysfs was mounted, so read /proc/self/net/dev. */
static int list_interfaces(const char *pattern, struct interface *found, size_t room)
{
	FILE *file = fopen("/proc/self/net/dev", "re");
	char line[512], *colon;
	size_t count = 0;

	if (!file)
		return -errno;
	while (fgets(line, sizeof(line), file)) {
		const char *name = line + strspn(line, " ");
		struct interface item = { 0 };

		colon = strchr(line, ':');
		if (!colon || (size_t)(colon - name) >= sizeof(item.name))
			continue; /* the heading */
		*colon = 0;
		if (!matches(pattern, name))
			continue;
		memcpy(item.name, name, strlen(name));
		item.index = get_interface_index(name);
		if (item.index < 0)
			continue; /* it disappeared meanwhile */
		if (count == room) {
			fclose(file);
			return -E2BIG;
		}
		found[count++] = item;
	}
	fclose(file);
	qsort(found, count, sizeof(*found), compare);
	return count ? (int)count : -ENODEV;
}

static int find_now(const char *pattern, struct interface *found, size_t room)
{
	if (strpbrk(pattern, "*?"))
		return list_interfaces(pattern, found, room);
	if (!room)
		return -E2BIG;
	memcpy(found->name, pattern, strlen(pattern) + 1);
	found->index = get_interface_index(pattern);
	return found->index < 0 ? found->index : 1;
}

int targets__interfaces(const char *pattern, size_t size, int64_t deadline, struct interface *found,
			size_t room, struct fault *fault)
{
	char name[IF_NAMESIZE] = "";
	int n;

	if (!size || size >= sizeof(name) || memchr(pattern, '/', size))
		return fault__usage(fault, "%.64s: not the name of an interface", pattern);
	memcpy(name, pattern, size);
	while ((n = find_now(name, found, room)) == -ENODEV && deadline && log__clock() < deadline) {
		if (signals__stop_is_pending())
			return fault__set(fault, -EINTR, "interface %s: the wait was stopped by a signal",
					  name);
		nanosleep(&(struct timespec){ .tv_nsec = POLL_NANOSECONDS }, NULL);
	}
	if (n == -E2BIG)
		return fault__usage(fault, "interface %s: more than %zu match; use a narrower pattern", name,
				    room);
	if (n == -ENODEV)
		return fault__set(fault, n, "interface %s: %s: %s", name, strerror(ENODEV),
				  deadline ?
					  "none appeared in time; raise --wait-interface" :
					  "not in this network namespace; check ip link and --network host, "
					  "or use --wait-interface");
	if (n < 0)
		return fault__set(fault, n, "interface %s: %s", name, strerror(-n));
	return n;
}

int targets__open_cgroup(const char *path, struct fault *fault)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return fault__set(fault, -errno,
				  "cgroup %.200s: %s; findmnt -t cgroup2 shows where cgroups are", path,
				  strerror(errno));
	return fd;
}

bool targets__is_deleted_cgroup(const char *path)
{
	char above[PATH_MAX];
	struct statfs fs;
	struct stat st;
	char *slash;

	if (!stat(path, &st) || errno != ENOENT)
		return false;
	snprintf(above, sizeof(above), "%s", path);
	while ((slash = strrchr(above, '/')) && slash != above) {
		*slash = 0;
		if (!statfs(above, &fs))
			return fs.f_type == CGROUP2_SUPER_MAGIC;
	}
	return false;
}
