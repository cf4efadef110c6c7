// SPDX-License-Identifier: Apache-2.0
#include "attach/attach.h"

#include "attach/explain.h"
#include "attach/holder.h"
#include "attach/probes.h"
#include "attach/targets.h"
#include "attach/tc_filter.h"
#include "base/fault.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <string.h>
#include <unistd.h>

#define USDT_DESCRIPTORS 16

const char *attach__shown(const struct attach_point *point)
{
	if (point->shown[0])
		return point->shown;
	return point->target ? point->target : point->section;
}

bool attach__can_update(const struct attach_point *point)
{
	switch (point->place) {
	case PLACE_XDP:
	case PLACE_TCX:
	case PLACE_CGROUP:
	case PLACE_NETNS:
	case PLACE_SOCKMAP:
	case PLACE_ITER:
		return true;
	default:
		return false;
	}
}

bool attach__can_share(const struct attach_point *point)
{
	/*
	 * A sockmap has room for one program of a type, so the second container of a shared map could not
	 * attach.
	 */
	return point->place != PLACE_KPROBE && point->place != PLACE_UPROBE && point->place != PLACE_USDT &&
	       !point->map;
}

/*
 * The functions below return the descriptor of a link, or a negative errno. They set the text only for causes
 * of their own.
 */

static int attach_cgroup(int program_fd, const struct attach_point *point, struct fault *fault)
{
	int fd = targets__open_cgroup(point->target, fault), link;

	if (fd < 0)
		return fd;
	link = bpf_link_create(program_fd, fd, point->attach_type, NULL);
	close(fd);
	return link;
}

static int attach_netns(int program_fd, const struct attach_point *point)
{
	int fd = open(point->target, O_RDONLY | O_CLOEXEC), link;

	if (fd < 0)
		return -errno;
	link = bpf_link_create(program_fd, fd, point->attach_type, NULL);
	close(fd);
	return link;
}

/* Before Linux 6.10 sockmaps have no links: the program stays attached as long as the map exists. */
static int attach_sockmap(int program_fd, struct attachment_handle *handle)
{
	const struct attach_point *point = &handle->point;
	int fd = bpf_link_create(program_fd, point->map_fd, point->attach_type, NULL), err;

	if (fd != -EINVAL && fd != -EOPNOTSUPP)
		return fd;
	handle->program_fd = fcntl(program_fd, F_DUPFD_CLOEXEC, 3);
	fd = fcntl(point->map_fd, F_DUPFD_CLOEXEC, 3);
	err = fd < 0 || handle->program_fd < 0 ? -errno :
						 bpf_prog_attach(program_fd, fd, point->attach_type, 0);
	if (!err)
		return fd;
	if (handle->program_fd > 0)
		close(handle->program_fd);
	if (fd >= 0)
		close(fd);
	return err;
}

static int attach_iterator(int program_fd, const struct attach_point *point)
{
	union bpf_iter_link_info info = { .map.map_fd = (__u32)point->map_fd };
	bool has_map = point->map_fd >= 0;
	LIBBPF_OPTS(bpf_link_create_opts, opts, .iter_info = has_map ? &info : NULL,
		    .iter_info_len = has_map ? sizeof(info) : 0);

	return bpf_link_create(program_fd, 0, BPF_TRACE_ITER, &opts);
}

static int attach_netfilter(int program_fd, const struct attach_point *point)
{
	LIBBPF_OPTS(
		bpf_link_create_opts, opts,
		.netfilter = { .pf = point->family, .hooknum = point->hook, .priority = point->priority });

	return bpf_link_create(program_fd, 0, BPF_NETFILTER, &opts);
}

static int attach_raw_tp(int program_fd, const struct attach_point *point)
{
	const char *rest = strchr(point->section, '/');

	return bpf_raw_tracepoint_open(rest ? rest + 1 : point->target, program_fd);
}

static int attach_by_libbpf(struct bpf_program *program, struct attachment_handle *handle)
{
	const struct attach_point *point = &handle->point;

	errno = 0;
	if (point->place == PLACE_STRUCT_OPS)
		handle->owner = bpf_map__attach_struct_ops(point->map);
	else if (program && point->place == PLACE_KPROBE)
		handle->owner = probes__attach_kprobe(program, point);
	else if (program)
		handle->owner = probes__attach_uprobe(program, point);
	else
		return -EOPNOTSUPP;
	if (!handle->owner)
		return errno ? -errno : -EIO;
	return bpf_link__fd(handle->owner);
}

/* Note the lowest descriptors that are free, which the kernel gives to whatever is opened next. */
static void find_free(int descriptors[USDT_DESCRIPTORS])
{
	for (int fd = 0, n = 0; n < USDT_DESCRIPTORS; fd++) {
		if (fcntl(fd, F_GETFD) < 0)
			descriptors[n++] = fd;
	}
}

/*
 * libbpf does not show the link of a USDT probe. With links for several places (Linux 6.6), it is the one
 * descriptor that stays open. Without them, libbpf opens an event and a link for each place of the probe.
 */
static int attach_usdt(struct bpf_program *program, struct attachment_handle *handle, struct fault *fault)
{
	int descriptors[USDT_DESCRIPTORS], found = -1, count = 0;

	if (!program)
		return -EOPNOTSUPP;
	find_free(descriptors);
	errno = 0;
	handle->owner = probes__attach_usdt(program, &handle->point);
	if (!handle->owner)
		return errno ? -errno : -EIO;
	for (int i = 0; i < USDT_DESCRIPTORS; i++) {
		if (fcntl(descriptors[i], F_GETFD) < 0)
			continue;
		found = descriptors[i];
		count++;
	}
	if (count == 1)
		return found;
	bpf_link__destroy(handle->owner);
	handle->owner = NULL;
	return fault__set(fault, -EOPNOTSUPP,
			  "cannot attach to %.200s: the kernel has no links for several places (Linux 6.6)",
			  attach__shown(&handle->point));
}

static int attach_at(struct bpf_program *program, int program_fd, struct attachment_handle *handle,
		     struct fault *fault)
{
	const struct attach_point *point = &handle->point;
	LIBBPF_OPTS(bpf_link_create_opts, xdp, .flags = point->flags);

	switch (point->place) {
	case PLACE_XDP:
		return bpf_link_create(program_fd, point->ifindex, BPF_XDP, &xdp);
	case PLACE_TCX:
		return bpf_link_create(program_fd, point->ifindex, point->attach_type, NULL);
	case PLACE_CLSACT:
		return tc_filter__attach(program_fd, handle);
	case PLACE_CGROUP:
		return attach_cgroup(program_fd, point, fault);
	case PLACE_NETNS:
		return attach_netns(program_fd, point);
	case PLACE_SOCKMAP:
		return attach_sockmap(program_fd, handle);
	case PLACE_TRACE:
	case PLACE_FUNCTION:
		return bpf_link_create(program_fd, 0, point->attach_type, NULL);
	case PLACE_RAW_TP:
		return attach_raw_tp(program_fd, point);
	case PLACE_TRACEPOINT:
		return probes__attach_tracepoint(program_fd, point, fault);
	case PLACE_PERF:
		return probes__attach_event(program_fd, point);
	case PLACE_ITER:
		return attach_iterator(program_fd, point);
	case PLACE_NETFILTER:
		return attach_netfilter(program_fd, point);
	case PLACE_USDT:
		return attach_usdt(program, handle, fault);
	default:
		return attach_by_libbpf(program, handle);
	}
}

int attach__program(struct bpf_program *program, int program_fd, const struct attach_point *point,
		    const struct attach_options *options, struct attachment_handle *handle,
		    struct fault *fault)
{
	char holder[HOLDER_TEXT_SIZE] = "";
	int fd;

	*handle = (struct attachment_handle){ .point = *point };
	fault->text[0] = 0;
	fd = attach_at(program, program_fd, handle, fault);
	if (holder__is_there(fd, point) && holder__find(point, options->replace, holder))
		fd = attach_at(program, program_fd, handle, fault);
	if (fd >= 0) {
		handle->fd = fd;
		handle->is_link = point->place != PLACE_CLSACT && !handle->program_fd;
		return 0;
	}
	*handle = (struct attachment_handle){ 0 };
	if (fault->text[0])
		return fd;
	return explain__error(fd, point, attach__shown(point), holder[0] ? holder : NULL, fault);
}

uint64_t attach__detaching_needs(void)
{
	return tc_filter__count() ? UINT64_C(1) << CAP_NET_ADMIN : 0;
}

void attach__detach(struct attachment_handle *handle)
{
	if (!handle->fd)
		return;
	if (handle->owner) {
		bpf_link__destroy(handle->owner);
	} else {
		if (handle->point.place == PLACE_CLSACT)
			tc_filter__detach(handle);
		else if (!handle->is_link)
			bpf_prog_detach2(handle->program_fd, handle->fd, handle->point.attach_type);
		if (handle->program_fd)
			close(handle->program_fd);
		close(handle->fd);
	}
	*handle = (struct attachment_handle){ 0 };
}
