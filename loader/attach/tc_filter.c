// SPDX-License-Identifier: Apache-2.0
#include "attach/tc_filter.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/*
 * A filter outlives a killed loader. Its handle is therefore made of the program's identity, by which a later
 * start recognizes the filter. An identity has SLOTS handles, for a program that is attached several times. A
 * running loader holds an abstract socket with the handle's name, in the network namespace of the interface.
 * The kernel frees that name when the process ends, even by SIGKILL.
 */
#define SLOTS	     16
#define HANDLE_MARK  0x40000000u
#define HANDLE_MASK  0x3ffffff0u
#define ANSWER_BYTES 32768

static size_t filters;

static struct bpf_tc_hook hook_of(const struct attach_point *point)
{
	return (struct bpf_tc_hook){
		.sz = sizeof(struct bpf_tc_hook),
		.ifindex = point->ifindex,
		.attach_point = point->attach_type == BPF_TCX_EGRESS ? BPF_TC_EGRESS : BPF_TC_INGRESS,
	};
}

bool tc_filter__is_needed(const struct attach_point *point)
{
	LIBBPF_OPTS(bpf_prog_query_opts, opts);

	if (point->attach_type != BPF_TCX_INGRESS && point->attach_type != BPF_TCX_EGRESS)
		return false; /* netkit */
	return bpf_prog_query_opts(point->ifindex, point->attach_type, &opts) == -EINVAL;
}

/* Claim a handle. Returns a descriptor that holds its name, or -EADDRINUSE if a running loader holds it. */
static int claim(const struct attach_point *point, uint32_t handle)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), n, err;

	if (fd < 0)
		return -errno;
	n = snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "buildtool-clsact-%d-%d-%x",
		     point->ifindex, point->attach_type, handle);
	if (!bind(fd, (struct sockaddr *)&address,
		  (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n)))
		return fd;
	err = -errno;
	close(fd);
	return err;
}

/* Note the priorities of filters with handles of this base. Returns false at the end of the answer. */
static bool note_filters(const void *answer, ssize_t size, uint32_t base, uint32_t priorities[SLOTS])
{
	const struct nlmsghdr *h = answer;

	for (; size > 0 && NLMSG_OK(h, (size_t)size); h = NLMSG_NEXT(h, size)) {
		const struct tcmsg *tc = NLMSG_DATA(h);

		if (h->nlmsg_type != RTM_NEWTFILTER)
			return false;
		if (h->nlmsg_len >= NLMSG_LENGTH(sizeof(*tc)) && (tc->tcm_handle & ~(SLOTS - 1)) == base)
			priorities[tc->tcm_handle & (SLOTS - 1)] = tc->tcm_info >> 16;
	}
	return true;
}

/* Ask for all filters of the hook; an error counts as an empty answer. */
static void find_filters(const struct attach_point *point, uint32_t base, uint32_t priorities[SLOTS])
{
	const bool egress = point->attach_type == BPF_TCX_EGRESS;
	struct {
		struct nlmsghdr header;
		struct tcmsg tc;
	} request = {
		.header = { .nlmsg_len = sizeof(request),
			    .nlmsg_type = RTM_GETTFILTER,
			    .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP },
		.tc = { .tcm_ifindex = point->ifindex,
			.tcm_parent = TC_H_MAKE(TC_H_CLSACT, egress ? TC_H_MIN_EGRESS : TC_H_MIN_INGRESS) },
	};
	static union {
		struct nlmsghdr header;
		char bytes[ANSWER_BYTES];
	} answer;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	ssize_t n = fd < 0 ? -1 : send(fd, &request, sizeof(request), 0);

	while (n > 0) {
		n = recv(fd, &answer, sizeof(answer), 0);
		if (!note_filters(&answer, n, base, priorities))
			break;
	}
	if (fd >= 0)
		close(fd);
}

static void remove_filter(const struct bpf_tc_hook *hook, uint32_t handle, uint32_t priority)
{
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = handle, .priority = priority);

	bpf_tc_detach(hook, &opts);
}

/*
 * Claim the first handle that no running loader holds, so that a filter left there is replaced in one step.
 * Remove other filters that killed loaders left. Returns the descriptor of claim(), or a negative errno if no
 * handle is free.
 */
static int take_slot(const struct bpf_tc_hook *hook, const struct attach_point *point,
		     struct bpf_tc_opts *opts)
{
	const uint32_t base = HANDLE_MARK | (point->identity & HANDLE_MASK);
	uint32_t priorities[SLOTS] = { 0 };
	int ours = -EADDRINUSE;

	find_filters(point, base, priorities);
	for (uint32_t slot = 0; slot < SLOTS; slot++) {
		int fd = ours < 0 || priorities[slot] ? claim(point, base | slot) : -EADDRINUSE;

		if (fd < 0)
			continue;
		if (ours < 0) {
			ours = fd;
			opts->handle = base | slot;
			opts->priority = priorities[slot];
			opts->flags = priorities[slot] ? BPF_TC_F_REPLACE : 0;
			continue;
		}
		remove_filter(hook, base | slot, priorities[slot]);
		close(fd);
	}
	return ours;
}

/* The queueing discipline stays after the filters, because other processes may use it by then. */
int tc_filter__attach(int program_fd, struct attachment_handle *handle)
{
	LIBBPF_OPTS(bpf_tc_opts, opts, .prog_fd = program_fd);
	struct bpf_tc_hook hook = hook_of(&handle->point);
	int fd, err = bpf_tc_hook_create(&hook);

	if (err && err != -EEXIST)
		return err;
	fd = take_slot(&hook, &handle->point, &opts);
	/* No handle was free: let the kernel choose one. A later start cannot recognize this filter. */
	if (fd < 0)
		fd = fcntl(program_fd, F_DUPFD_CLOEXEC, 3);
	if (fd < 0)
		return -errno;
	err = bpf_tc_attach(&hook, &opts);
	if (err) {
		close(fd);
		return err;
	}
	filters++;
	handle->handle = opts.handle;
	handle->priority = opts.priority;
	handle->program_id = opts.prog_id;
	return fd;
}

size_t tc_filter__count(void)
{
	return filters;
}

bool tc_filter__is_there(const struct attachment_handle *handle)
{
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = handle->handle, .priority = handle->priority);
	struct bpf_tc_hook hook = hook_of(&handle->point);

	return !bpf_tc_query(&hook, &opts) && opts.prog_id == handle->program_id;
}

void tc_filter__detach(const struct attachment_handle *handle)
{
	struct bpf_tc_hook hook = hook_of(&handle->point);

	filters--;
	/* Another process may have replaced the filter. */
	if (tc_filter__is_there(handle))
		remove_filter(&hook, handle->handle, handle->priority);
}
