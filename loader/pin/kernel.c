// SPDX-License-Identifier: Apache-2.0
#include "pin/kernel.h"

#include <bpf/bpf.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FDINFO_SIZE 1024

uint32_t kernel__program_id(int fd)
{
	struct bpf_prog_info info = { 0 };
	__u32 size = sizeof(info);

	return fd < 0 || bpf_prog_get_info_by_fd(fd, &info, &size) ? 0 : info.id;
}

uint32_t kernel__map_id(int fd)
{
	struct bpf_map_info info = { 0 };
	__u32 size = sizeof(info);

	return fd < 0 || bpf_map_get_info_by_fd(fd, &info, &size) ? 0 : info.id;
}

uint32_t kernel__link_id(int fd)
{
	struct bpf_link_info info = { 0 };
	__u32 size = sizeof(info);

	return fd < 0 || bpf_link_get_info_by_fd(fd, &info, &size) ? 0 : info.id;
}

/* No call of bpf(2) tells it; this file has a line for it since Linux 5.2, which could first freeze a map. */
bool kernel__map_is_frozen(int fd)
{
	char path[40], text[FDINFO_SIZE];
	ssize_t n;
	int info;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	info = open(path, O_RDONLY | O_CLOEXEC);
	if (info < 0)
		return false;
	n = read(info, text, sizeof(text) - 1);
	close(info);
	text[n < 0 ? 0 : n] = 0;
	return strstr(text, "\nfrozen:\t1\n");
}

uint32_t kernel__link_program(int fd)
{
	struct bpf_link_info info = { 0 };
	__u32 size = sizeof(info);

	return bpf_link_get_info_by_fd(fd, &info, &size) ? 0 : info.prog_id;
}

bool kernel__link_is_severed(int fd)
{
	struct bpf_link_info info = { 0 };
	__u32 size = sizeof(info);

	if (bpf_link_get_info_by_fd(fd, &info, &size))
		return true;
	switch (info.type) {
	case BPF_LINK_TYPE_XDP:
	case BPF_LINK_TYPE_TCX:
	case BPF_LINK_TYPE_NETKIT:
		return !info.xdp.ifindex;
	case BPF_LINK_TYPE_CGROUP:
		return !info.cgroup.cgroup_id;
	case BPF_LINK_TYPE_NETNS:
		return !info.netns.netns_ino;
	default:
		return false;
	}
}
