// SPDX-License-Identifier: Apache-2.0
#include "attach.h"

#include "targets.h"
#include "trust.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* What a program type attaches to. Types that are not here are attached by the workload. */
static const struct {
	enum bpf_prog_type type;
	enum attach_place place;
} places[] = {
	{ BPF_PROG_TYPE_XDP, PLACE_XDP },
	{ BPF_PROG_TYPE_SCHED_CLS, PLACE_TCX },
	{ BPF_PROG_TYPE_CGROUP_SKB, PLACE_CGROUP },
	{ BPF_PROG_TYPE_CGROUP_SOCK, PLACE_CGROUP },
	{ BPF_PROG_TYPE_CGROUP_SOCK_ADDR, PLACE_CGROUP },
	{ BPF_PROG_TYPE_CGROUP_SOCKOPT, PLACE_CGROUP },
	{ BPF_PROG_TYPE_CGROUP_DEVICE, PLACE_CGROUP },
	{ BPF_PROG_TYPE_CGROUP_SYSCTL, PLACE_CGROUP },
	{ BPF_PROG_TYPE_SOCK_OPS, PLACE_CGROUP },
	{ BPF_PROG_TYPE_SYSCALL, PLACE_NOWHERE },
};

static enum attach_place place_of(const struct bpf_program *program)
{
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		if (places[i].type == bpf_program__type(program))
			return places[i].place;
	}
	return PLACE_LIBBPF;
}

const char *attach__shown(const struct attach_point *point)
{
	if (point->shown[0])
		return point->shown;
	return point->target ? point->target : point->section;
}

/* Make one point of each interface that "eth*:WORD" names; a name has no colon. */
static int plan_interfaces(const struct attach_options *options, struct attach_point *points, size_t room,
			   struct fault *fault)
{
	struct attach_point common = points[0];
	size_t n = strcspn(common.target, ":");
	struct interface found[64];
	int count;

	if (room > sizeof(found) / sizeof(found[0]))
		room = sizeof(found) / sizeof(found[0]);
	count = targets__interfaces(common.target, n, options->deadline, found, room, fault);
	for (int i = 0; i < count; i++) {
		points[i] = common;
		points[i].ifindex = found[i].index;
		snprintf(points[i].shown, sizeof(points[i].shown), "%s%.16s", found[i].name,
			 common.target + n);
	}
	return count;
}

static int plan_xdp(const struct attach_options *options, struct attach_point *points, size_t room,
		    struct fault *fault)
{
	const char *mode = strchr(points->target, ':');

	if (mode && !strcmp(mode, ":driver"))
		points->flags = XDP_FLAGS_DRV_MODE;
	else if (mode && !strcmp(mode, ":generic"))
		points->flags = XDP_FLAGS_SKB_MODE;
	else if (mode)
		return fault__usage(fault, "%.64s: XDP has no direction; its modes are :driver and :generic",
				    points->target);
	return plan_interfaces(options, points, room, fault);
}

/* The direction comes from the section's name (tcx/egress), or for plain tc from the target. */
static int plan_tcx(struct bpf_program *program, const struct attach_options *options,
		    struct attach_point *points, size_t room, struct fault *fault)
{
	enum bpf_attach_type type = points->attach_type, wanted = type;
	const char *target = points->target, *direction = strchr(target, ':');
	int err;

	if (direction && !strcmp(direction, ":ingress"))
		wanted = BPF_TCX_INGRESS;
	else if (direction && !strcmp(direction, ":egress"))
		wanted = BPF_TCX_EGRESS;
	else if (direction)
		return fault__usage(fault, "%.64s: not :ingress or :egress", target);
	if (wanted != BPF_TCX_INGRESS && wanted != BPF_TCX_EGRESS)
		return fault__usage(fault, "%.64s: say %.64s:ingress or %.64s:egress", target, target,
				    target);
	if (type && type != wanted)
		return fault__usage(fault, "%.64s: section %.64s attaches the other way", target,
				    points->section);
	err = bpf_program__set_expected_attach_type(program, wanted);
	if (err)
		return fault__set(fault, err, "%s", strerror(-err));
	points->attach_type = wanted;
	return plan_interfaces(options, points, room, fault);
}

static int plan_cgroup(const struct attach_point *point, struct fault *fault)
{
	int fd;

	if (point->target[0] != '/')
		return fault__usage(fault, "%.200s is not the path of a cgroup", point->target);
	fd = targets__open_cgroup(point->target, fault);
	if (fd < 0)
		return fd;
	close(fd);
	return 1;
}

int attach__plan(struct bpf_object *object, struct bpf_program *program, const char *target,
		 const struct attach_options *options, struct attach_point *points, size_t room,
		 struct fault *fault)
{
	static const char *const wants[] = {
		[PLACE_XDP] = "INTERFACE",
		[PLACE_TCX] = "INTERFACE",
		[PLACE_CGROUP] = "/PATH/OF/CGROUP",
	};
	enum attach_place place = place_of(program);

	(void)object;
	if (target ? !strcmp(target, ATTACH_NOWHERE) : place == PLACE_NOWHERE)
		return 0;
	if (!room)
		return fault__usage(fault, "too many attachments");
	points[0] = (struct attach_point){
		.place = place,
		.type = bpf_program__type(program),
		.attach_type = bpf_program__expected_attach_type(program),
		.section = bpf_program__section_name(program),
		.target = target,
	};
	if (place == PLACE_LIBBPF || place == PLACE_NOWHERE)
		return target ? fault__usage(fault, "%.200s: this type of program takes no target", target) :
				1;
	if (!target)
		return fault__usage(fault, "it needs a target: --attach %s=%s", bpf_program__name(program),
				    wants[place]);
	if (place == PLACE_XDP)
		return plan_xdp(options, points, room, fault);
	if (place == PLACE_TCX)
		return plan_tcx(program, options, points, room, fault);
	return plan_cgroup(points, fault);
}

int attach__plan_map(struct bpf_map *map, const char *target, struct attach_point *point, struct fault *fault)
{
	(void)map;
	(void)target;
	(void)point;
	(void)fault;
	return 0;
}

bool attach__can_update(const struct attach_point *point)
{
	return point->place == PLACE_XDP || point->place == PLACE_TCX || point->place == PLACE_CGROUP;
}

bool attach__can_share(const struct attach_point *point)
{
	return point->place != PLACE_LIBBPF;
}

/* Returns the descriptor of the link or a negative errno. */
static int attach_cgroup(int program_fd, const struct attach_point *point, struct fault *fault)
{
	int fd = targets__open_cgroup(point->target, fault), link;

	if (fd < 0)
		return fd;
	link = bpf_link_create(program_fd, fd, point->attach_type, NULL);
	close(fd);
	return link;
}

static int attach_by_libbpf(struct bpf_program *program, struct attachment_handle *handle)
{
	if (!program)
		return -EOPNOTSUPP;
	errno = 0;
	handle->owner = bpf_program__attach(program);
	if (!handle->owner)
		return errno ? -errno : -EIO;
	return bpf_link__fd(handle->owner);
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
	case PLACE_CGROUP:
		return attach_cgroup(program_fd, point, fault);
	default:
		return attach_by_libbpf(program, handle);
	}
}

int attach__program(struct bpf_program *program, int program_fd, const struct attach_point *point,
		    const struct attach_options *options, struct attachment_handle *handle,
		    struct fault *fault)
{
	int fd;

	(void)options;
	*handle = (struct attachment_handle){ .point = *point };
	fault->text[0] = 0;
	fd = attach_at(program, program_fd, handle, fault);
	if (fd >= 0) {
		handle->fd = fd;
		handle->is_link = true;
		return 0;
	}
	*handle = (struct attachment_handle){ 0 };
	if (fault->text[0])
		return fd;
	if (fd == -EOPNOTSUPP && point->place == PLACE_LIBBPF)
		return fault__usage(fault,
				    "section %.64s doesn't say where to attach it; target none loads it only",
				    point->section);
	return fault__set(fault, fd, "cannot attach: %s%s", strerror(-fd),
			  fd == -EBUSY || fd == -EEXIST ? " (another program is there)" : "");
}

void attach__detach(struct attachment_handle *handle)
{
	if (handle->owner)
		bpf_link__destroy(handle->owner);
	else if (handle->fd)
		close(handle->fd);
	*handle = (struct attachment_handle){ 0 };
}
