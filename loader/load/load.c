// SPDX-License-Identifier: Apache-2.0
#include "load/load.h"

#include "attach/attach.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "load/attachments.h"
#include "load/internal.h"
#include "load/refresh.h"
#include "load/replace.h"
#include "load/rollback.h"
#include "load/settings.h"
#include "load/share.h"
#include "load/switch.h"
#include "load/unit.h"
#include "pin/bpffs.h"
#include "pin/kernel.h"
#include "pin/pins.h"
#include "pin/record.h"
#include "verify/statement.h"
#include "verify/verify.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int prepare(struct load *load, const struct verified_object *inputs, size_t count, struct fault *fault)
{
	int err = replace__take_over(fault);

	/* --share gives maps to all containers, --pin-root gives them to the next release. */
	if (load->options->share && load->options->pin_root)
		return fault__usage(fault, "--share and --pin-root exclude each other");
	for (size_t i = 0; !err && i < count; i++) {
		load->count = i + 1;
		err = unit__prepare(load, &load->units[i], &inputs[i], fault);
	}
	if (!err)
		err = settings__apply(load, fault);
	if (!err)
		err = attachments__plan(load, fault);
	return err ? err : replace__check(load, fault);
}

/* Check that the pins are those of this load still: not removed, and not of another start. */
static int check_own_pins(const struct load *load, const struct unit *unit, struct fault *fault)
{
	struct pins pins;
	int err = pins__open_existing(&pins, load->lock, load->options->pin_root, unit->object, fault);

	if (err)
		return err;
	if (!unit__has_pins(unit, &pins))
		err = fault__set(fault, -ESTALE,
				 "%.200s: changed by another start or by ebpf-pins; start the loader again",
				 pins.path);
	pins__close(&pins);
	return err;
}

/* Check that the pinned release is of the same project, and not newer. */
static int check_pinned(const struct load *load, const struct unit *unit, struct fault *fault)
{
	const struct generation *current = &unit->pins.current;
	const struct statement *st = unit->input->statement;

	if (!current->record)
		return 0;
	if (strcmp(record__text(current, "project"), st->project))
		return fault__set(fault, -EEXIST,
				  "%.200s: pinned by another project, %.128s; use another --pin-root",
				  unit->pins.path, record__text(current, "project"));
	if (st->version < record__number(current, "version") && !load->options->allow_rollback)
		return fault__set(
			fault, -EKEYREJECTED,
			"%.128s: rolled-back: version %lld of %.128s is older than %lld, which is pinned; "
			"allowRollback of the policy lets older releases start again",
			unit->file, (long long)st->version, st->name,
			(long long)record__number(current, "version"));
	return 0;
}

static int open_pins(struct load *load, struct fault *fault)
{
	int err = 0;

	if (!load->options->pin_root)
		return 0;
	load->lock = bpffs__open(load->options->pin_root, !load->refreshes, fault);
	if (load->lock < 0)
		return load->lock;
	for (size_t i = 0; !err && i < load->count; i++) {
		struct unit *unit = &load->units[i];

		for (size_t k = 0; k < i; k++) {
			if (!strcmp(load->units[k].object, unit->object))
				return fault__usage(fault,
						    "%.128s and %.128s: both signed with one name; sign each "
						    "with its own, or "
						    "omit --pin-root",
						    load->units[k].file, unit->file);
		}
		err = load->refreshes ? check_own_pins(load, unit, fault) : 0;
		if (!err)
			err = pins__open(&unit->pins, load->lock, load->options->pin_root, unit->object,
					 fault);
		if (!err && !load->refreshes)
			err = check_pinned(load, unit, fault);
	}
	return err;
}

/* Load the objects whose programs replace functions of those that are loaded by now. */
static int obtain_replacing(struct load *load, struct fault *fault)
{
	int err = 0;

	for (size_t i = 0; !err && i < load->count; i++) {
		struct unit *unit = &load->units[i];

		if (!replace__has_programs(load, unit))
			continue;
		err = replace__bind(load, unit, fault);
		if (!err)
			err = unit__obtain(load, unit, fault);
	}
	return err;
}

static int obtain(struct load *load, struct fault *fault)
{
	int err = 0;

	for (size_t i = 0; !err && i < load->count; i++)
		err = unit__describe(load, &load->units[i], fault);
	if (!err)
		settings__report(load);
	if (!err && load->options->share)
		return share__obtain(load, fault);
	for (size_t i = 0; !err && i < load->count; i++) {
		if (!replace__has_programs(load, &load->units[i]))
			err = unit__obtain(load, &load->units[i], fault);
	}
	return err ? err : obtain_replacing(load, fault);
}

static int stage_unit(struct load *load, struct unit *unit, struct fault *fault)
{
	int err = unit__collect(unit, fault);

	if (err)
		return err;
	err = record__note_ids(&unit->next);
	/* The record of a rollback has the links already. */
	if (unit->bpf)
		json_object_clear(json_object_get(unit->next.record, "links"));
	for (size_t i = 0; !err && i < load->attachment_count; i++) {
		const struct attachment *a = &load->attachments[i];

		if (a->unit == unit && unit->bpf)
			err = record__note_link(&unit->next, a->link, a->name, &a->point);
	}
	if (err)
		return fault__set(fault, -ENOMEM, "out of memory");
	unit->staged = true;
	return pins__stage(&unit->pins, &unit->next, fault);
}

static int stage(struct load *load, struct fault *fault)
{
	int err = 0;

	for (size_t i = 0; !err && load->options->pin_root && i < load->count; i++)
		err = stage_unit(load, &load->units[i], fault);
	return err;
}

/* The ids of the links are known only now. */
static int stage_links(struct load *load, struct unit *unit, struct fault *fault)
{
	json_decref(unit->next.attached);
	unit->next.attached = json_object();
	for (size_t i = 0; i < load->attachment_count; i++) {
		const struct attachment *a = &load->attachments[i];
		int fd = a->handle.fd ? a->handle.fd : a->old_link;

		if (a->unit == unit && record__note_link_id(&unit->next, a->link, kernel__link_id(fd)))
			return fault__set(fault, -ENOMEM, "out of memory");
	}
	return pins__stage_links(&unit->pins, &unit->next, fault);
}

static int commit(struct load *load, struct fault *fault)
{
	int err = 0;

	for (size_t i = 0; !err && load->options->pin_root && i < load->count; i++)
		err = stage_links(load, &load->units[i], fault);
	for (size_t i = 0; !err && load->options->pin_root && i < load->count; i++) {
		struct unit *unit = &load->units[i];

		err = pins__commit(&unit->pins, unit->rotate, fault);
		unit->committed = !err;
	}
	return err;
}

/* Remove the rest of the old set. The new set is in force now, so a failure is only reported. */
static void settle(struct load *load)
{
	struct fault fault = { 0 };

	switch__settle(load);
	for (size_t i = 0; load->options->pin_root && i < load->count; i++) {
		struct unit *unit = &load->units[i];

		if (pins__retire_links(&unit->pins, &unit->next, &fault))
			log__write(&(struct log_line){ .event = "error", .message = fault.text });
		unit->pinned = record__number(&unit->next, "generation");
		pins__close(&unit->pins);
	}
}

static void undo(struct load *load)
{
	switch__undo(load);
	for (size_t i = 0; i < load->count; i++) {
		if (load->units[i].staged && !load->units[i].committed)
			pins__unstage(&load->units[i].pins);
	}
}

/* Attach the new set as a whole, or restore the old one. */
static int put_in_force(struct load *load, struct fault *fault)
{
	int err = stage(load, fault);

	if (!err)
		err = switch__all(load, fault);
	if (!err && load->options->accept)
		err = load->options->accept(load->options->context, fault);
	if (!err)
		err = commit(load, fault);
	if (err)
		undo(load);
	else
		settle(load);
	return err;
}

static struct load *begin(const struct load_options *options, struct load *old)
{
	struct load *load = calloc(1, sizeof(*load));

	if (load) {
		load->lock = -1;
		load->old = old;
		load->options = options;
	}
	return load;
}

/* Give back everything that was borrowed for the call. */
static void end(struct load *load)
{
	if (load->lock >= 0)
		close(load->lock);
	load->lock = -1;
	load->old = NULL;
	load->options = NULL;
	for (size_t i = 0; i < load->count; i++)
		load->units[i].input = NULL;
	for (size_t i = 0; i < load->setting_count; i++)
		free(load->settings[i].value);
	load->setting_count = 0;
}

static int start(struct load **out, struct load *old, const struct verified_object *inputs, size_t count,
		 const struct load_options *options, struct fault *fault)
{
	struct load *load = begin(options, old);
	int err;

	if (!load)
		return fault__set(fault, -ENOMEM, "out of memory");
	err = prepare(load, inputs, count, fault);
	if (!err)
		err = open_pins(load, fault);
	if (!err)
		err = obtain(load, fault);
	if (!err)
		err = put_in_force(load, fault);
	end(load);
	if (err)
		load__stop(load);
	else
		*out = load;
	return err;
}

int load__start(struct load **out, const struct verified_object *inputs, size_t count,
		const struct load_options *options, struct fault *fault)
{
	*out = NULL;
	return start(out, NULL, inputs, count, options, fault);
}

int load__update(struct load **load, const struct verified_object *inputs, size_t count,
		 const struct load_options *options, struct fault *fault)
{
	struct load *old = *load;
	int err = start(load, old, inputs, count, options, fault);

	if (!err)
		load__stop(old);
	return err;
}

/* Count what a refresh attached or detached. */
static bool has_changed(const struct load *load)
{
	for (size_t i = 0; i < load->attachment_count; i++) {
		enum attachment_state state = load->attachments[i].state;

		if (state == ATTACHMENT_NEW || state == ATTACHMENT_REPLACED || state == ATTACHMENT_UPDATED)
			return true;
	}
	return false;
}

/* Free a refresh that is not in force. The objects are those of the old load. */
static void drop(struct load *load)
{
	for (size_t i = 0; i < load->attachment_count; i++) {
		struct attachment *a = &load->attachments[i];

		if (a->unit->pins.path[0] && a->old_link >= 0)
			close(a->old_link);
	}
	for (size_t i = 0; i < load->count; i++)
		pins__close(&load->units[i].pins);
	load->old->reported = load->reported;
	load->count = 0;
	end(load);
	load__stop(load);
}

/* Put the plan of a refresh in force. Its objects are loaded, so nothing but attachments can fail. */
static int put_plan_in_force(struct load **load, struct load *next, bool *changed, struct fault *fault)
{
	struct load *old = *load;
	int err = open_pins(next, fault);

	if (!err)
		err = put_in_force(next, fault);
	if (err) {
		refresh__report(next, fault);
		drop(next);
		return err;
	}
	*changed |= has_changed(next);
	end(next);
	*load = next;
	old->count = 0;
	for (size_t i = 0; i < old->attachment_count; i++)
		*changed |= old->attachments[i].handle.fd != 0;
	load__stop(old);
	return 0;
}

int load__refresh(struct load **load, const struct load_options *options, bool attach, bool thorough,
		  bool *changed, struct fault *fault)
{
	struct fault missing = { 0 };
	struct load *next;
	int err = 0;
	size_t lost;
	bool work;

	*changed = refresh__find_lost(*load, attach, options->pin_root);
	if (!attach)
		return 0;
	next = begin(options, *load);
	if (!next)
		return fault__set(fault, -ENOMEM, "out of memory");
	next->refreshes = true;
	lost = refresh__count_lost(*load);
	work = refresh__plan(next, &missing) || (thorough && options->pin_root);
	if (work)
		err = put_plan_in_force(load, next, changed, fault);
	else
		drop(next);
	*changed |= refresh__count_lost(*load) != lost;
	if (!err && refresh__count_lost(*load))
		err = fault__set(fault, -ENODEV, "%s",
				 missing.text[0] ? missing.text : "a program is not attached; see above");
	return err;
}

void load__visit_paths(const struct load *load, void (*visit)(void *context, const char *path), void *context)
{
	for (size_t i = 0; i < load->attachment_count; i++) {
		const struct attach_point *point = &load->attachments[i].point;

		if (point->place == PLACE_CGROUP || point->place == PLACE_NETNS)
			visit(context, point->target);
	}
}

static int prepare_rollbacks(struct load *load, struct fault *fault)
{
	struct file_list names;
	int err;

	load->lock = bpffs__open(load->options->pin_root, false, fault);
	if (load->lock < 0)
		return load->lock;
	err = file__list(load->lock, &names);
	if (err)
		return fault__set(fault, err, "%.200s: %s", load->options->pin_root, strerror(-err));
	for (size_t i = 0; !err && i < names.count; i++) {
		bpffs__unescape(names.names[i]);
		if (load->count < LOAD_MAX_OBJECTS)
			err = rollback__prepare(load, names.names[i], fault);
		if (err == -ENOENT && !fault->text[0])
			err = 0;
	}
	file__list_free(&names);
	if (!err && !load->count)
		err = fault__set(fault, -ENOENT, "%.200s: no previous release is pinned",
				 load->options->pin_root);
	return err;
}

int load__rollback(const char *pin_root, struct fault *fault)
{
	const struct load_options options = { .pin_root = pin_root };
	struct load *load = begin(&options, NULL);
	int err;

	if (!load)
		return fault__set(fault, -ENOMEM, "out of memory");
	err = prepare_rollbacks(load, fault);
	if (!err)
		err = put_in_force(load, fault);
	end(load);
	load__stop(load);
	return err;
}

bool load__next_map(const struct load *load, size_t *iterator, struct load_map *out)
{
	size_t skip = *iterator;
	struct bpf_map *map;

	for (size_t i = 0; i < load->count; i++) {
		bpf_object__for_each_map(map, load->units[i].bpf) {
			if (bpf_map__fd(map) < 0 || skip--)
				continue;
			++*iterator;
			*out = (struct load_map){ .object = load->units[i].object,
						  .name = bpf_map__name(map),
						  .type = bpf_map__type(map),
						  .fd = bpf_map__fd(map) };
			return true;
		}
	}
	return false;
}

struct load_counts load__count(const struct load *load)
{
	struct load_counts counts = { .objects = load->count, .lost = refresh__count_lost(load) };
	struct bpf_program *program;
	struct load_map map;

	while (load__next_map(load, &counts.maps, &map))
		;
	for (size_t i = 0; i < load->attachment_count; i++)
		counts.attachments += load->attachments[i].state != ATTACHMENT_LOST;
	for (size_t i = 0; i < load->count; i++) {
		bpf_object__for_each_program(program, load->units[i].bpf)
			counts.programs += unit__program(&load->units[i], bpf_program__name(program)) >= 0;
	}
	return counts;
}

int load__keep_over_exec(const struct load *load, struct fault *fault)
{
	for (size_t i = 0; i < load->attachment_count; i++) {
		int fd = load->attachments[i].handle.fd;

		/* A pinned link requires no descriptor. */
		if (fd && fcntl(fd, F_SETFD, 0))
			return fault__set(fault, -errno, "link: cannot pass it to the workload: %s",
					  strerror(errno));
	}
	for (size_t i = 0; i < load->count; i++) {
		if (load->units[i].share.lock >= 0 && fcntl(load->units[i].share.lock, F_SETFD, 0))
			return fault__set(fault, -errno,
					  "lock of --share: cannot pass it to the workload: %s",
					  strerror(errno));
	}
	return 0;
}

void load__stop(struct load *load)
{
	if (!load)
		return;
	for (size_t i = load->attachment_count; i-- > 0;) {
		struct attachment *a = &load->attachments[i];

		if (a->handle.fd) {
			attach__detach(&a->handle);
			log__write(&(struct log_line){
				.event = "detach",
				.object = a->unit->file,
				.program = a->name,
				.target = attach__shown(&a->point),
			});
		}
		free(a->target);
		free(a->link);
	}
	for (size_t i = 0; i < load->count; i++) {
		unit__close(&load->units[i]);
		share__release(&load->units[i]);
	}
	free(load);
}

const char *load__library_version(void)
{
	return libbpf_version_string();
}
