// SPDX-License-Identifier: Apache-2.0
#include "attach/holder.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BPF_FILES      "/sys/fs/bpf"
#define MAX_PIN_DEPTH  5
#define MAX_PINS       4096
#define LINK_NUMBER    "link_id:\t"
#define PROGRAM_NUMBER "prog_id:\t"

/* The program on a hook, and its holder; unknown members are 0 or empty. */
struct holder {
	__u32 link, program;
	char name[BPF_OBJ_NAME_LEN];
	char process[64], pin[128];
	bool is_ours;
	__u32 mode; /* of XDP without a link */
};

bool holder__is_there(int err, const struct attach_point *point)
{
	switch (point->place) {
	case PLACE_XDP:
	case PLACE_NETFILTER:
		return err == -EBUSY || err == -EEXIST;
	case PLACE_NETNS:
		return err == -EEXIST || err == -E2BIG;
	case PLACE_CGROUP:
		return err == -EPERM;
	default:
		return false;
	}
}

static ino_t inode_of(const struct attach_point *point)
{
	struct stat st;

	return point->target && !stat(point->target, &st) ? st.st_ino : 0;
}

static bool is_on_hook(const struct bpf_link_info *info, const struct attach_point *point)
{
	if (point->place == PLACE_XDP)
		return info->type == BPF_LINK_TYPE_XDP && info->xdp.ifindex == (__u32)point->ifindex;
	if (point->place == PLACE_NETFILTER)
		return info->type == BPF_LINK_TYPE_NETFILTER && info->netfilter.pf == point->family &&
		       info->netfilter.hooknum == point->hook && info->netfilter.priority == point->priority;
	if (point->place == PLACE_NETNS)
		return info->type == BPF_LINK_TYPE_NETNS && info->netns.attach_type == point->attach_type &&
		       info->netns.netns_ino == inode_of(point);
	return info->type == BPF_LINK_TYPE_CGROUP && info->cgroup.attach_type == point->attach_type &&
	       info->cgroup.cgroup_id == inode_of(point);
}

/* Find the link on the hook and return its descriptor, or a negative errno. This requires CAP_SYS_ADMIN. */
static int find_link(const struct attach_point *point, struct holder *holder)
{
	__u32 id = 0;

	while (!bpf_link_get_next_id(id, &id)) {
		struct bpf_link_info info = { 0 };
		__u32 size = sizeof(info);
		int fd = bpf_link_get_fd_by_id(id);

		if (fd < 0)
			continue;
		if (!bpf_link_get_info_by_fd(fd, &info, &size) && is_on_hook(&info, point)) {
			holder->link = info.id;
			holder->program = info.prog_id;
			return fd;
		}
		close(fd);
	}
	return -ENOENT;
}

/* Find a program that was attached without a link. */
static void find_program(const struct attach_point *point, struct holder *holder)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, xdp);
	__u32 ids[1], count = 1, flags;
	int fd;

	if (point->place == PLACE_XDP && !bpf_xdp_query(point->ifindex, 0, &xdp)) {
		holder->mode = xdp.drv_prog_id ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE;
		holder->program = xdp.prog_id;
	} else if (point->place == PLACE_CGROUP) {
		fd = open(point->target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd >= 0 && !bpf_prog_query(fd, point->attach_type, 0, &flags, ids, &count) && count)
			holder->program = ids[0];
		if (fd >= 0)
			close(fd);
	}
}

static void find_name(struct holder *holder)
{
	struct bpf_prog_info info = { 0 };
	__u32 size = sizeof(info);
	int fd = bpf_prog_get_fd_by_id(holder->program);

	if (fd < 0)
		return;
	if (!bpf_prog_get_info_by_fd(fd, &info, &size))
		memcpy(holder->name, info.name, sizeof(holder->name));
	holder->name[sizeof(holder->name) - 1] = 0;
	close(fd);
}

/* Return whether the kernel's text about a descriptor names the holder's link or program. */
static bool names(const char *path, const struct holder *holder)
{
	const char *key = holder->link ? LINK_NUMBER : PROGRAM_NUMBER;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char text[512];
	ssize_t n;
	char *at;

	if (fd < 0)
		return false;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n > 0 ? n : 0] = 0;
	at = strstr(text, key);
	return at && strtoul(at + strlen(key), NULL, 10) == (holder->link ? holder->link : holder->program);
}

static bool holds(pid_t pid, const struct holder *holder)
{
	struct dirent *entry;
	bool found = false;
	char path[320];
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fdinfo", pid);
	dir = opendir(path);
	while (dir && !found && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "/proc/%d/fdinfo/%s", pid, entry->d_name);
		found = entry->d_name[0] != '.' && names(path, holder);
	}
	if (dir)
		closedir(dir);
	return found;
}

static void find_process(struct holder *holder)
{
	DIR *dir = opendir("/proc");
	struct dirent *entry;
	char path[32];

	while (dir && (entry = readdir(dir))) {
		pid_t pid = atoi(entry->d_name);
		int fd, n;

		if (pid <= 0 || pid == getpid() || !holds(pid, holder))
			continue;
		n = snprintf(holder->process, sizeof(holder->process), "%d ", pid);
		snprintf(path, sizeof(path), "/proc/%d/comm", pid);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		n += fd < 0 ? 0 : (int)read(fd, holder->process + n, 16);
		if (fd >= 0)
			close(fd);
		holder->process[strcspn(holder->process, "\n")] = 0;
		break;
	}
	if (dir)
		closedir(dir);
}

static void find_pin(struct holder *holder, const char *top, int depth, int *left)
{
	DIR *dir = opendir(top);
	struct dirent *entry;
	char path[512], info[32];

	while (dir && !holder->pin[0] && (*left)-- > 0 && (entry = readdir(dir))) {
		int fd;

		if (entry->d_name[0] == '.' ||
		    snprintf(path, sizeof(path), "%s/%s", top, entry->d_name) >= (int)sizeof(path))
			continue;
		if (entry->d_type == DT_DIR && depth < MAX_PIN_DEPTH)
			find_pin(holder, path, depth + 1, left);
		fd = entry->d_type == DT_REG ? bpf_obj_get(path) : -1;
		if (fd < 0)
			continue;
		snprintf(info, sizeof(info), "/proc/self/fdinfo/%d", fd);
		if (names(info, holder))
			snprintf(holder->pin, sizeof(holder->pin), "%s", path);
		close(fd);
	}
	if (dir)
		closedir(dir);
}

static bool detach(const struct attach_point *point, const struct holder *holder, int link)
{
	int group, program, err;

	if (link >= 0)
		return !bpf_link_detach(link);
	if (point->place == PLACE_XDP)
		return !bpf_xdp_detach(point->ifindex, holder->mode, NULL);
	if (point->place != PLACE_CGROUP)
		return false;
	group = open(point->target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	program = bpf_prog_get_fd_by_id(holder->program);
	err = group < 0 || program < 0 ? -1 : bpf_prog_detach2(program, group, point->attach_type);
	if (group >= 0)
		close(group);
	if (program >= 0)
		close(program);
	return !err;
}

static void describe(const struct holder *holder, bool tried, char text[HOLDER_TEXT_SIZE])
{
	int left = MAX_PINS, n;
	struct holder known = *holder;

	find_name(&known);
	find_process(&known);
	find_pin(&known, BPF_FILES, 0, &left);
	if (known.program)
		n = snprintf(text, HOLDER_TEXT_SIZE, "program %s%s(id %u)", known.name,
			     known.name[0] ? " " : "", known.program);
	else /* without CAP_SYS_ADMIN */
		n = snprintf(text, HOLDER_TEXT_SIZE, "another program");
	if (holder->is_ours)
		n += snprintf(text + n, HOLDER_TEXT_SIZE - n, " of this loader");
	else if (known.process[0])
		n += snprintf(text + n, HOLDER_TEXT_SIZE - n, " of process %s", known.process);
	else if (known.pin[0])
		n += snprintf(text + n, HOLDER_TEXT_SIZE - n, ", pinned as %.100s,", known.pin);
	snprintf(text + n, HOLDER_TEXT_SIZE - n, " holds the hook; %s",
		 holder->is_ours ? "choose another target" :
		 tried		 ? "--replace cannot detach it (links and cgroups require CAP_SYS_ADMIN)" :
				   "--replace detaches it");
}

bool holder__find(const struct attach_point *point, bool replace, char text[HOLDER_TEXT_SIZE])
{
	struct holder holder = { 0 };
	int link = find_link(point, &holder);
	bool done = false;

	if (link < 0)
		find_program(point, &holder);
	/* These errors have other causes as well: a capability, or a program on another device or cgroup. */
	if (!holder.program && (point->place == PLACE_CGROUP || point->place == PLACE_XDP))
		return false;
	text[0] = 0;
	/* Close the descriptor of find_link() first: otherwise this process would count as a holder. */
	if (link >= 0) {
		close(link);
		holder.is_ours = holds(getpid(), &holder);
		link = bpf_link_get_fd_by_id(holder.link);
	}
	if (replace && !holder.is_ours)
		done = detach(point, &holder, link);
	if (link >= 0)
		close(link);
	if (!done)
		describe(&holder, replace, text);
	return done;
}
