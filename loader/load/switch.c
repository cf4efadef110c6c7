// SPDX-License-Identifier: Apache-2.0
#include "load/switch.h"

#include "attach/attach.h"
#include "base/fault.h"
#include "base/log.h"
#include "load/unit.h"
#include "pin/bpffs.h"
#include "pin/kernel.h"
#include "pin/paths.h"
#include "pin/pins.h"
#include "pin/record.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_pinned(const struct unit *unit)
{
	return unit->pins.path[0];
}

static void say(const struct attachment *a, const char *event, const char *message, int64_t started)
{
	log__write(&(struct log_line){
		.event = event,
		.object = a->unit->file,
		.program = a->name,
		.target = attach__shown(&a->point),
		.message = message,
		.started = started,
	});
}

static uint64_t inode(const char *path)
{
	struct stat st;

	return path && !stat(path, &st) ? (uint64_t)st.st_ino : 0;
}

/* On 32-bit machines an inode number is the lower half of the cgroup's id. */
static bool is_group(uint64_t id, const char *path)
{
	uint64_t number = inode(path);

	return id == number || (uint32_t)id == number;
}

/* Return the map of a sockmap program or of an iterator, loaded or reused; else -1. */
static int map_of(const struct attachment *a)
{
	const struct attach_point *point = &a->point;
	bool has_map = point->place == PLACE_SOCKMAP ||
		       (point->place == PLACE_ITER && point->target && strchr(point->section, '/'));

	return has_map ? unit__map(a->unit, point->target) : -1;
}

static uint32_t map_id(int fd)
{
	struct bpf_map_info info = { 0 };
	__u32 size = sizeof(info);

	return bpf_map_get_info_by_fd(fd, &info, &size) ? 0 : info.id;
}

/*
 * Return whether the old link is still at the place of its name. An interface of that name can be another one
 * by now, recreated or in another network namespace, and a map may not have been reused.
 */
static bool is_at(const struct attachment *a, int link)
{
	struct bpf_link_info info = { 0 };
	__u32 size = sizeof(info);

	if (bpf_link_get_info_by_fd(link, &info, &size))
		return false;
	switch (info.type) {
	case BPF_LINK_TYPE_XDP:
	case BPF_LINK_TYPE_TCX:
	case BPF_LINK_TYPE_NETKIT:
		if ((int)info.xdp.ifindex != a->point.ifindex)
			return false;
		return !is_pinned(a->unit) || record__number(&a->unit->pins.current, "namespace") ==
						      record__number(&a->unit->next, "namespace");
	case BPF_LINK_TYPE_CGROUP:
		return is_group(info.cgroup.cgroup_id, a->point.target);
	case BPF_LINK_TYPE_NETNS:
		return info.netns.netns_ino == inode(a->point.target);
	case BPF_LINK_TYPE_SOCKMAP:
		return info.sockmap.map_id == map_id(a->point.map_fd);
	case BPF_LINK_TYPE_ITER:
		return a->point.map_fd < 0 || info.iter.map.map_id == map_id(a->point.map_fd);
	default:
		return true;
	}
}

static int find_pinned(struct attachment *a, struct fault *fault)
{
	const struct pins *pins = &a->unit->pins;
	int fd = pins__get_link(pins, a->link);

	if (fd == -ENOENT)
		return 0;
	if (fd < 0)
		return fault__set(fault, fd, "links/%.100s: %s", a->link,
				  fd == -EBADF	? "something else is there" :
				  fd == -EEXIST ? "not the link that was pinned, or with another program" :
						  bpffs__reason(fd));
	a->old_link = fd;
	a->old_program = bpffs__find(&pins->current.programs, a->name);
	return 0;
}

static void find_old(struct load *load, struct attachment *a)
{
	for (size_t i = 0; load->old && i < load->old->attachment_count; i++) {
		struct attachment *old = &load->old->attachments[i];

		if (!old->handle.fd || strcmp(old->unit->object, a->unit->object) ||
		    strcmp(old->link, a->link))
			continue;
		a->old = old;
		if (!old->handle.is_link)
			return;
		a->old_link = old->handle.fd;
		a->old_program = unit__program(old->unit, old->name);
	}
}

/*
 * Update the old link. Returns 1 if it now has the new program, 0 if a new link is required, or a negative
 * errno.
 */
static int update(struct attachment *a, int program)
{
	LIBBPF_OPTS(bpf_link_update_opts, opts, .flags = BPF_F_REPLACE, .old_prog_fd = a->old_program);
	int64_t started = log__clock();

	if (a->old_link < 0 || program < 0)
		return 0;
	if (!is_at(a, a->old_link))
		return 0;
	if (kernel__link_program(a->old_link) == kernel__program_id(program)) {
		a->state = ATTACHMENT_KEPT;
		say(a, "keep", NULL, 0);
		return 1;
	}
	if (!attach__can_update(&a->point) || a->old_program < 0)
		return 0;
	if (!bpf_link_update(a->old_link, program, &opts)) {
		a->state = ATTACHMENT_UPDATED;
		say(a, a->unit->input ? "update" : "rollback", NULL, started);
		return 1;
	}
	/* The interface or the cgroup was deleted, and the link with it. */
	return errno == ENOLINK || errno == ENODEV ? 0 : -errno;
}

static int pin(struct attachment *a, struct fault *fault)
{
	int err =
		a->handle.is_link ? paths__put_link(a->unit->pins.home, a->link, a->handle.fd) : -EOPNOTSUPP;

	if (!err)
		return 0;
	attach__detach(&a->handle);
	return fault__set(fault, err, "cannot pin its link: %s",
			  err == -EOPNOTSUPP ? "this kernel has no link for the hook; omit --pin-root" :
					       strerror(-err));
}

static int switch_one(struct load *load, struct attachment *a, struct fault *fault)
{
	int program = a->point.place == PLACE_STRUCT_OPS ? -1 : unit__program(a->unit, a->name);
	int64_t started = log__clock();
	bool replaces;
	int err = 0;

	if (is_pinned(a->unit))
		err = find_pinned(a, fault);
	else
		find_old(load, a);
	if (err)
		return err;
	a->point.map_fd = map_of(a);
	err = update(a, program);
	if (err)
		return err > 0 ? 0 : fault__set(fault, err, "cannot update its link: %s", strerror(-err));
	replaces = a->old_link >= 0 || a->old;
	err = attach__program(a->program, program, &a->point, &load->options->rules, &a->handle, fault);
	if (a->old && !attach__can_update(&a->point) && (err == -EBUSY || err == -EEXIST))
		return fault__set(
			fault, err,
			"cannot attach to %.100s: %s: the old program holds the hook, which has room for "
			"one; restart the loader",
			attach__shown(&a->point), strerror(-err));
	if (!err && is_pinned(a->unit))
		err = pin(a, fault);
	if (err)
		return err;
	a->state = replaces ? ATTACHMENT_REPLACED : ATTACHMENT_NEW;
	say(a, "attach", replaces ? "both run for a moment: the old program is detached next" : NULL,
	    started);
	return 0;
}

/*
 * Return whether the kernel refused a shared program because another container attached the same program
 * there. Sources: bpf_mprog_attach(), bpf_prog_array_copy(), tracepoint_probe_register() (raw tracepoints
 * before Linux 6.10), bpf_trampoline_link_prog(), and bpf_tracing_prog_attach() before Linux 5.13 (ENOENT).
 */
static bool is_taken(const struct attachment *a, int err)
{
	if (!a->unit->share.name || a->unit->loaded)
		return false;
	if (a->point.place == PLACE_TRACE)
		return err == -EBUSY || err == -ENOENT;
	/* Of XDP the error is about another mode, and a hook of it has room for one program. */
	return err == -EEXIST && a->point.place != PLACE_XDP;
}

int switch__all(struct load *load, struct fault *fault)
{
	for (size_t i = 0; i < load->attachment_count; i++) {
		struct attachment *a = &load->attachments[i];
		struct fault inner = { 0 };
		int err = switch_one(load, a, &inner);

		if (is_taken(a, err)) {
			err = unit__load_copy(a->unit, fault);
			if (err)
				return err;
			err = switch_one(load, a, &inner);
		}
		if (err) {
			fault__set(fault, err, "%.128s: %s %.64s: %s", a->unit->file,
				   a->point.place == PLACE_STRUCT_OPS ? "map" : "program", a->name,
				   inner.text);
			fault->usage = inner.usage;
			fault->capabilities = inner.capabilities;
			return err;
		}
	}
	return 0;
}

static void undo(struct attachment *a)
{
	LIBBPF_OPTS(bpf_link_update_opts, opts, .flags = BPF_F_REPLACE,
		    .old_prog_fd = unit__program(a->unit, a->name));

	switch (a->state) {
	case ATTACHMENT_UPDATED:
		say(a, "rollback",
		    bpf_link_update(a->old_link, a->old_program, &opts) ? strerror(errno) : NULL, 0);
		break;
	case ATTACHMENT_NEW:
	case ATTACHMENT_REPLACED:
		if (is_pinned(a->unit) && a->handle.is_link)
			bpf_link_detach(a->handle.fd);
		if (is_pinned(a->unit))
			paths__remove_link(a->unit->pins.home, a->link, a->state == ATTACHMENT_REPLACED);
		/* A sockmap without links has room for one program, so the new one replaced the old one. */
		if (a->old && a->point.place == PLACE_SOCKMAP && !a->handle.is_link)
			bpf_prog_attach(a->old->handle.program_fd, a->old->handle.fd, a->point.attach_type,
					0);
		attach__detach(&a->handle);
		say(a, "detach", NULL, 0);
		break;
	default:
		break;
	}
	a->state = ATTACHMENT_PLANNED;
}

void switch__undo(struct load *load)
{
	for (size_t i = load->attachment_count; i-- > 0;) {
		if (!load->attachments[i].unit->committed)
			undo(&load->attachments[i]);
	}
}

static void settle_pinned(struct attachment *a)
{
	int err = a->state == ATTACHMENT_REPLACED ? paths__settle_link(a->unit->pins.home, a->link) : 0;

	if (err)
		say(a, "error", strerror(-err), 0);
	/* The pin keeps the link from now on. */
	if (a->old_link >= 0)
		close(a->old_link);
	a->old_link = -1;
	attach__detach(&a->handle);
}

static void settle_held(struct attachment *a)
{
	if (a->state == ATTACHMENT_REPLACED) {
		attach__detach(&a->old->handle);
	} else if (a->old && a->state != ATTACHMENT_NEW) {
		a->handle = a->old->handle;
		a->handle.point = a->point;
		a->old->handle = (struct attachment_handle){ 0 };
	}
	a->old = NULL;
	a->old_link = -1;
}

void switch__settle(struct load *load)
{
	for (size_t i = 0; i < load->attachment_count; i++) {
		struct attachment *a = &load->attachments[i];

		if (is_pinned(a->unit))
			settle_pinned(a);
		else
			settle_held(a);
	}
}
