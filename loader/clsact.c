// SPDX-License-Identifier: Apache-2.0
#include "clsact.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static size_t filters;

static struct bpf_tc_hook hook_of(const struct attach_point *point)
{
	return (struct bpf_tc_hook){
		.sz = sizeof(struct bpf_tc_hook),
		.ifindex = point->ifindex,
		.attach_point = point->attach_type == BPF_TCX_EGRESS ? BPF_TC_EGRESS : BPF_TC_INGRESS,
	};
}

bool clsact__is_needed(const struct attach_point *point)
{
	LIBBPF_OPTS(bpf_prog_query_opts, opts);

	if (point->attach_type != BPF_TCX_INGRESS && point->attach_type != BPF_TCX_EGRESS)
		return false; /* netkit */
	return bpf_prog_query_opts(point->ifindex, point->attach_type, &opts) == -EINVAL;
}

/* The queueing discipline stays when the filters go: others may have put theirs into it since. */
int clsact__attach(int program_fd, struct attachment_handle *handle)
{
	LIBBPF_OPTS(bpf_tc_opts, opts, .prog_fd = program_fd);
	struct bpf_tc_hook hook = hook_of(&handle->point);
	int fd, err = bpf_tc_hook_create(&hook);

	if (err && err != -EEXIST)
		return err;
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

size_t clsact__count(void)
{
	return filters;
}

void clsact__detach(const struct attachment_handle *handle)
{
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = handle->handle, .priority = handle->priority);
	struct bpf_tc_hook hook = hook_of(&handle->point);

	filters--;
	/* Somebody may have removed ours and put another one there. */
	if (bpf_tc_query(&hook, &opts) || opts.prog_id != handle->program_id)
		return;
	opts.prog_fd = opts.prog_id = opts.flags = 0;
	bpf_tc_detach(&hook, &opts);
}
