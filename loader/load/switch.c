// SPDX-License-Identifier: Apache-2.0
#include "load/switch.h"

#include "attach/attach.h"
#include "attach/targets.h"
#include "base/fault.h"
#include "base/log.h"
#include "load/predecessor.h"
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

/* Return the map of a sockmap program or of an iterator, loaded or reused; else -1. */
static int map_of(const struct attachment *a)
{
	const struct attach_point *point = &a->point;
	bool has_map = point->place == PLACE_SOCKMAP ||
		       (point->place == PLACE_ITER && point->target && strchr(point->section, '/'));

	return has_map ? unit__map(a->unit, point->target) : -1;
}

/*
 * Update the old link. Returns 1 if it now has the new program, 0 if a new link is required, or a negative
 * errno.
 */
static int update(const struct load *load, struct attachment *a, int program)
{
	LIBBPF_OPTS(bpf_link_update_opts, opts, .flags = BPF_F_REPLACE, .old_prog_fd = a->old_program);
	int64_t started = log__clock();
	int err;

	if (a->old_link < 0 || program < 0)
		return 0;
	if (!predecessor__is_at(a, a->old_link))
		return 0;
	if (a->renamed) {
		/* Until the commit, the link has both names. */
		err = paths__put_link(a->unit->pins.home, a->link, a->old_link, &a->aside);
		if (err)
			return err;
		a->is_named = true;
	}
	if (kernel__link_program(a->old_link) == kernel__program_id(program)) {
		a->state = ATTACHMENT_KEPT;
		if (!load->refreshes)
			say(a, "keep", NULL, 0);
		return 1;
	}
	if (!attach__can_update(&a->point) || a->old_program < 0)
		return 0;
	if (!bpf_link_update(a->old_link, program, &opts)) {
		a->state = ATTACHMENT_UPDATED;
		say(a, a->unit->bpf ? "update" : "rollback", NULL, started);
		return 1;
	}
	/* The interface or the cgroup was deleted, and the link with it. */
	return errno == ENOLINK || errno == ENODEV ? 0 : -errno;
}

static int pin(struct attachment *a, struct fault *fault)
{
	int err = a->handle.is_link ? paths__put_link(a->unit->pins.home, a->link, a->handle.fd, &a->aside) :
				      -EOPNOTSUPP;

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
	int err;

	if (a->state != ATTACHMENT_PLANNED) {
		/* A refresh records the id of each link again, also if its target is missing. */
		if (is_pinned(a->unit))
			a->old_link = pins__get_link(&a->unit->pins, a->link);
		return 0;
	}

	a->point.map_fd = map_of(a);
	err = predecessor__find(load, a, fault);
	if (err)
		return err;
	err = update(load, a, program);
	if (err)
		return err > 0 ? 0 : fault__set(fault, err, "cannot update its link: %s", strerror(-err));
	replaces = a->old_link >= 0 ? !kernel__link_is_severed(a->old_link) : a->old != NULL;
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
	a->state = a->old_link >= 0 || a->old ? ATTACHMENT_REPLACED : ATTACHMENT_NEW;
	a->refused = 0;
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

/* Other targets do not wait for this one. A later refresh tries again. */
static void refuse(struct attachment *a, int err, const struct fault *fault)
{
	/* If the interface goes at this moment, the next event says so. */
	bool is_gone = a->point.ifindex && !targets__has_index(a->point.ifindex);

	if (a->refused != err && !is_gone)
		say(a, "error", fault->text, 0);
	a->refused = err;
	a->state = ATTACHMENT_LOST;
}

int switch__all(struct load *load, struct fault *fault)
{
	for (size_t i = 0; i < load->attachment_count; i++) {
		struct attachment *a = &load->attachments[i];
		struct fault inner = { 0 };
		int err = switch_one(load, a, &inner);

		if (is_taken(a, err)) {
			err = unit__load_copy(a->unit, &inner);
			if (err && !load->refreshes) {
				*fault = inner;
				return err;
			}
			if (!err)
				err = switch_one(load, a, &inner);
		}
		if (err && load->refreshes) {
			refuse(a, err, &inner);
		} else if (err) {
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
			paths__remove_link(a->unit->pins.home, a->link, a->aside);
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
	if (a->is_named)
		paths__remove_link(a->unit->pins.home, a->link, a->aside);
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
	int err = a->aside ? paths__settle_link(a->unit->pins.home, a->link) : 0;

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
	} else if (a->old && a->state != ATTACHMENT_NEW && a->state != ATTACHMENT_LOST) {
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
