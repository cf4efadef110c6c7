// SPDX-License-Identifier: Apache-2.0
#include "load/refresh.h"

#include "attach/attach.h"
#include "attach/plan.h"
#include "attach/targets.h"
#include "attach/tc_filter.h"
#include "base/fault.h"
#include "base/log.h"
#include "load/attachments.h"
#include "load/unit.h"
#include "pin/bpffs.h"
#include "pin/kernel.h"
#include "pin/pins.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_POINTS 64 /* of one pattern */

/* Return whether the place of the attachment can go and come. */
static bool can_go(const struct attachment *a)
{
	switch (a->point.place) {
	case PLACE_XDP:
	case PLACE_TCX:
	case PLACE_CLSACT:
	case PLACE_CGROUP:
	case PLACE_NETNS:
		return true;
	default:
		return false;
	}
}

static bool is_on_interface(const struct attachment *a)
{
	return a->point.place != PLACE_CGROUP && a->point.place != PLACE_NETNS;
}

static bool is_pinned(const struct attachment *a)
{
	return a->unit->pinned;
}

/* Return whether both are attachments of one target of one program. */
static bool is_same_target(const struct attachment *a, const struct attachment *b)
{
	return a->unit == b->unit && a->point.place == b->point.place && !strcmp(a->name, b->name) &&
	       !strcmp(a->target, b->target);
}

static bool is_same_place(const struct attach_point *a, const struct attach_point *b)
{
	return a->place == PLACE_CGROUP || a->place == PLACE_NETNS ? a->inode == b->inode :
								     a->ifindex == b->ifindex;
}

/* Return whether the kernel has the attachment still, as far as it shows that. */
static bool is_attached(const struct attachment *a)
{
	const struct attachment_handle *handle = &a->handle;

	/* A pinned link is not open here: see find_severed_pins(). */
	if (!handle->fd)
		return true;
	if (a->point.place == PLACE_CLSACT)
		return tc_filter__is_there(handle);
	/* Some kernels describe no link to a process without capabilities. */
	return !handle->is_link || !kernel__link_id(handle->fd) || !kernel__link_is_severed(handle->fd);
}

/* Return what happened to the place of the attachment, or NULL if it exists. */
static const char *find_end(const struct attachment *a)
{
	struct stat st;

	if (is_on_interface(a))
		return targets__has_index(a->point.ifindex) ?
			       NULL :
			       "the interface is not in this network namespace any more";
	if (a->point.place == PLACE_CGROUP && targets__is_deleted_cgroup(a->target))
		return "the cgroup was deleted";
	/* The name of a namespace may go before the namespace. */
	if (stat(a->target, &st) || st.st_ino == a->point.inode)
		return NULL;
	return a->point.place == PLACE_CGROUP ? "the cgroup was deleted, and made anew" :
						"the path leads to another network namespace";
}

static void lose(struct attachment *a, const char *reason, bool attaches_again)
{
	char message[256];

	snprintf(message, sizeof(message), "%s; %s", reason,
		 attaches_again ? "it is attached again when the target is there" :
				  "start the loader again, or use --reload");
	log__write(&(struct log_line){
		.event = "lost",
		.object = a->unit->file,
		.program = a->name,
		.target = attach__shown(&a->point),
		.message = message,
	});
	a->state = ATTACHMENT_LOST;
	a->refused = 0;
	attach__detach(&a->handle);
}

/*
 * A link loses its place with an interface or a namespace, even if the next one has the same number, and by
 * another process. Pins that another start or ebpf-pins changed are theirs.
 */
static bool find_severed_pins(struct load *load, const struct unit *unit, int root, const char *shown,
			      bool attaches_again)
{
	struct fault ignored = { 0 };
	struct pins pins;
	bool found = false;

	if (pins__open_existing(&pins, root, shown, unit->object, &ignored))
		return false;
	for (size_t i = 0; i < load->attachment_count && unit__has_pins(unit, &pins); i++) {
		struct attachment *a = &load->attachments[i];
		int link;

		if (a->unit != unit || !can_go(a) || a->state == ATTACHMENT_LOST)
			continue;
		link = pins__get_link(&pins, a->link);
		if (link < 0)
			continue;
		if (kernel__link_id(link) && kernel__link_is_severed(link)) {
			const char *end = find_end(a);

			lose(a, end ? end : "its link was detached", attaches_again);
			found = true;
		}
		close(link);
	}
	pins__close(&pins);
	return found;
}

static bool find_lost_pins(struct load *load, bool attaches_again, const char *pin_root)
{
	struct fault ignored = { 0 };
	bool found = false;
	int root = bpffs__open_to_look(pin_root, &ignored);

	if (root < 0)
		return false;
	for (size_t i = 0; i < load->count; i++)
		found |= find_severed_pins(load, &load->units[i], root, pin_root, attaches_again);
	close(root);
	return found;
}

bool refresh__find_lost(struct load *load, bool attaches_again, const char *pin_root)
{
	bool found = false;

	for (size_t i = 0; i < load->attachment_count; i++) {
		struct attachment *a = &load->attachments[i];
		const char *end;

		if (!can_go(a) || a->state == ATTACHMENT_LOST)
			continue;
		end = find_end(a);
		if (!end && is_attached(a))
			continue;
		/* The kernel detaches XDP, with news of it, before the interface is gone: look again. */
		if (!end)
			end = find_end(a);
		lose(a, end ? end : "its link was detached", attaches_again);
		found = true;
	}
	if (attaches_again && pin_root)
		found |= find_lost_pins(load, attaches_again, pin_root);
	return found;
}

void refresh__report(struct load *load, const struct fault *fault)
{
	uint32_t hash = attachments__hash(fault->text);

	if (hash != load->reported)
		log__write(&(struct log_line){ .event = "error", .message = fault->text });
	load->reported = hash;
}

/* Note the first problem, for the line of a reload. */
static void note(const struct attachment *a, int err, const struct fault *inner, struct fault *fault)
{
	if (!fault->text[0])
		fault__set(fault, err, "%.128s: program %.64s: %s", a->unit->file, a->name, inner->text);
}

static struct attachment *add(struct load *next, const struct attachment *from,
			      const struct attach_point *point, struct fault *fault)
{
	const struct load *old = next->old;
	const struct attachment planned = {
		.unit = &next->units[from->unit - old->units],
		.program = from->program,
		.name = from->name,
		.point = *point,
	};
	struct fault inner = { 0 };
	int err = next->attachment_count == LOAD_MAX_LINKS ? fault__usage(&inner, "too many attachments") :
							     attachments__add(next, &planned, &inner);

	if (!err)
		return &next->attachments[next->attachment_count - 1];
	refresh__report(next, &inner);
	note(from, err, &inner, fault);
	return NULL;
}

/* Take an attachment over as it is. The link of a pin is looked for when the pins are open. */
static void carry(struct load *next, struct attachment *from, const struct attach_point *point,
		  struct fault *fault)
{
	struct attachment *a = add(next, from, point, fault);

	if (!a)
		return;
	if (from->state == ATTACHMENT_LOST) {
		a->state = ATTACHMENT_LOST;
		a->refused = from->refused;
	} else if (!is_pinned(from)) {
		a->state = ATTACHMENT_KEPT;
		a->old = from;
	} else if (!can_go(from)) {
		a->state = ATTACHMENT_KEPT;
	}
}

/* The target is missing. A renamed interface keeps its program as long as no other one has the name. */
static void keep_group(struct load *next, struct attachment *first, struct fault *fault)
{
	struct load *old = next->old;
	bool kept = false;

	for (size_t i = 0; i < old->attachment_count; i++) {
		struct attachment *a = &old->attachments[i];

		if (!is_same_target(first, a) || a->state == ATTACHMENT_LOST)
			continue;
		carry(next, a, &a->point, fault);
		kept = true;
	}
	/* One attachment stays for its target, which may come back. */
	if (!kept)
		carry(next, first, &first->point, fault);
}

/* Carry over what is attached at the point. Returns false if nothing is. */
static bool carry_point(struct load *next, struct attachment *first, const struct attach_point *point,
			struct fault *fault)
{
	struct load *old = next->old;
	bool found = false;

	for (size_t i = 0; i < old->attachment_count; i++) {
		struct attachment *a = &old->attachments[i];

		if (!is_same_target(first, a) || a->state == ATTACHMENT_LOST ||
		    !is_same_place(&a->point, point))
			continue;
		carry(next, a, point, fault);
		found = true;
	}
	return found;
}

/* Return whether something is attached where the target no longer is: another interface has the name now. */
static bool has_moved(const struct load *old, const struct attachment *first,
		      const struct attach_point *points, int n)
{
	for (size_t i = 0; i < old->attachment_count; i++) {
		const struct attachment *a = &old->attachments[i];
		bool found = a->state == ATTACHMENT_LOST || !is_same_target(first, a);

		for (int k = 0; !found && k < n; k++)
			found = is_same_place(&a->point, &points[k]);
		if (!found)
			return true;
	}
	return false;
}

/* Plan to attach at the point, where the kernel may have refused that before. */
static bool plan_point(struct load *next, const struct attachment *first, const struct attach_point *point,
		       struct fault *fault)
{
	const struct load *old = next->old;
	struct attachment *a = add(next, first, point, fault);

	if (!a)
		return false;
	for (size_t i = 0; i < old->attachment_count; i++) {
		const struct attachment *b = &old->attachments[i];

		if (is_same_target(first, b) && is_same_place(&b->point, point))
			a->refused = b->refused;
	}
	return true;
}

static bool plan_group(struct load *next, struct attachment *first, struct fault *fault)
{
	static struct attach_point points[MAX_POINTS];
	struct fault inner = { 0 };
	int n = plan__again(&first->point, points, MAX_POINTS, &inner);
	bool work = false;

	if (n < 0) {
		/* A missing target is lost, with a line. Nothing else tells of too many targets. */
		if (inner.usage)
			refresh__report(next, &inner);
		note(first, n, &inner, fault);
		keep_group(next, first, fault);
		return false;
	}
	for (int k = 0; k < n; k++) {
		if (!carry_point(next, first, &points[k], fault))
			work |= plan_point(next, first, &points[k], fault);
	}
	return work | has_moved(next->old, first, points, n);
}

static bool is_first(const struct load *load, size_t index)
{
	for (size_t i = 0; i < index; i++) {
		if (can_go(&load->attachments[i]) &&
		    is_same_target(&load->attachments[i], &load->attachments[index]))
			return false;
	}
	return true;
}

bool refresh__plan(struct load *next, struct fault *fault)
{
	struct load *old = next->old;
	bool work = false;

	next->count = old->count;
	next->reported = old->reported;
	for (size_t i = 0; i < old->count; i++) {
		next->units[i] = old->units[i];
		next->units[i].rotate = next->units[i].staged = next->units[i].committed = false;
	}
	for (size_t i = 0; i < old->attachment_count; i++) {
		struct attachment *a = &old->attachments[i];

		if (!can_go(a))
			carry(next, a, &a->point, fault);
		else if (is_first(old, i))
			work |= plan_group(next, a, fault);
	}
	return work;
}

/* Return whether the target counts already: it has an attachment, or an earlier lost one. */
static bool is_counted(const struct load *load, const struct attachment *a)
{
	for (size_t i = 0; i < load->attachment_count; i++) {
		const struct attachment *b = &load->attachments[i];

		if (b != a && can_go(b) && is_same_target(a, b) && (b < a || b->state != ATTACHMENT_LOST))
			return true;
	}
	return false;
}

size_t refresh__count_lost(const struct load *load)
{
	size_t count = 0;

	for (size_t i = 0; i < load->attachment_count; i++) {
		const struct attachment *a = &load->attachments[i];

		count += a->state == ATTACHMENT_LOST && (a->refused || !is_counted(load, a));
	}
	return count;
}
