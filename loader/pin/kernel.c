// SPDX-License-Identifier: Apache-2.0
#include "pin/kernel.h"

#include <bpf/bpf.h>

uint32_t kernel__program_id(int fd)
{
	struct bpf_prog_info info = { 0 };
	__u32 size = sizeof(info);

	return fd < 0 || bpf_prog_get_info_by_fd(fd, &info, &size) ? 0 : info.id;
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
