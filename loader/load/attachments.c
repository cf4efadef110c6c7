// SPDX-License-Identifier: Apache-2.0
#include "load/attachments.h"

#include "attach/attach.h"
#include "attach/plan.h"
#include "base/fault.h"
#include "load/select.h"
#include "verify/statement.h"
#include "verify/verify.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAMES_SIZE 256
#define HASH_BEGIN 2166136261u

/* Add a program's name to a list for a message; a list without room ends in dots. */
static void add_name(char names[NAMES_SIZE], size_t *used, const char *name)
{
	if (*used + strlen(name) + sizeof(", , ...") <= NAMES_SIZE)
		*used += (size_t)snprintf(names + *used, NAMES_SIZE - *used, "%s%s", *used ? ", " : "", name);
	else
		snprintf(names + *used, NAMES_SIZE - *used, ", ...");
}

static bool option_matches(const struct attach_option *option, const struct unit *unit, const char *name)
{
	return !strcmp(option->program, name) && (!option->object || !strcmp(option->object, unit->file));
}

/* Check that an option names exactly one program or struct_ops map. */
static int check_option(const struct load *load, const struct attach_option *option, const char *word,
			struct fault *fault)
{
	struct bpf_program *program;
	struct bpf_map *map;
	size_t found = 0, used = 0;
	char names[NAMES_SIZE] = "";

	for (size_t i = 0; i < load->count; i++) {
		bpf_object__for_each_program(program, load->units[i].bpf) {
			found += option_matches(option, &load->units[i], bpf_program__name(program));
			add_name(names, &used, bpf_program__name(program));
		}
		bpf_object__for_each_map(map, load->units[i].bpf) {
			if (bpf_map__type(map) == BPF_MAP_TYPE_STRUCT_OPS)
				found += option_matches(option, &load->units[i], bpf_map__name(map));
		}
	}
	if (!found)
		return fault__usage(fault, "--%s %.128s: no object has this program; use one of: %s", word,
				    option->program, names);
	if (found > 1)
		return fault__usage(fault, "--%s %.128s: several objects have it; use OBJECT:%.128s%s", word,
				    option->program, option->program, option->target ? "=TARGET" : "");
	return 0;
}

static int check_options(const struct load *load, struct fault *fault)
{
	const struct selection_options *o = &load->options->selection;
	int err = 0;

	for (size_t i = 0; !err && i < o->attach_count; i++)
		err = check_option(load, &o->attach[i], "attach", fault);
	for (size_t i = 0; !err && i < o->select_count; i++) {
		const struct attach_option named = { .object = o->select[i].object,
						     .program = o->select[i].program };

		err = check_option(load, &named, o->select[i].loads ? "load" : "no-load", fault);
	}
	return err;
}

/* Name the link. A program that is attached twice at one place has two links, so number the second one. */
static char *name_link(const struct load *load, const struct attachment *a)
{
	const char *shown = attach__shown(&a->point);
	size_t same = 0;
	char *link;

	for (size_t i = 0; i < load->attachment_count; i++) {
		const struct attachment *other = &load->attachments[i];

		same += other->unit == a->unit && !strcmp(other->name, a->name) &&
			!strcmp(attach__shown(&other->point), shown);
	}
	if (asprintf(&link, same ? "%s@%s#%zu" : "%s@%s", a->name, shown, same + 1) < 0)
		return NULL;
	return link;
}

/* FNV-1a */
static uint32_t hash(uint32_t value, const char *text)
{
	do
		value = (value ^ (uint8_t)*text) * 16777619;
	while (*text++);
	return value;
}

uint32_t attachments__hash(const char *text)
{
	return hash(HASH_BEGIN, text);
}

static uint32_t identify(const struct attachment *a)
{
	const char *project = a->unit->input->statement->project;

	return hash(hash(hash(HASH_BEGIN, project), a->unit->object), a->name);
}

/* Return whether the kernel has room for only one of the two attachments. */
static bool is_same_hook(const struct attachment *a, const struct attachment *b)
{
	if (a->point.place != b->point.place || a->point.ifindex != b->point.ifindex)
		return false;
	if (a->point.place == PLACE_XDP)
		return true;
	if (a->unit != b->unit || strcmp(a->name, b->name))
		return false;
	if (a->point.place == PLACE_TRACEPOINT)
		return !strcmp(attach__shown(&a->point), attach__shown(&b->point));
	return a->point.place == PLACE_TCX && a->point.attach_type == b->point.attach_type;
}

/* Find targets that collide, such as eth0 and eth*, before anything is loaded. */
static int check_hook(const struct load *load, const struct attachment *a, struct fault *fault)
{
	for (size_t i = 0; i < load->attachment_count; i++) {
		const struct attachment *b = &load->attachments[i];

		if (!is_same_hook(a, b))
			continue;
		if (a->unit == b->unit && !strcmp(a->name, b->name))
			return fault__usage(
				fault,
				"%.128s: program %.64s: %.64s: attached twice, by %.64s and %.64s; "
				"remove one of these targets",
				a->unit->file, a->name, attach__shown(&a->point), b->point.target,
				a->point.target);
		return fault__usage(fault,
				    "%.128s: program %.64s: %.64s: program %.64s has this target, and the "
				    "interface has room for one; give one of them another target",
				    a->unit->file, a->name, attach__shown(&a->point), b->name);
	}
	return 0;
}

/* The record of pins is JSON. The kernel allows any bytes in the name of an interface or a cgroup. */
static bool is_text(const char *target)
{
	json_t *text = target ? json_string(target) : NULL;
	bool valid = !target || text;

	json_decref(text);
	return valid;
}

static int check_text(const struct load *load, const struct attachment *a, struct fault *fault)
{
	if (!load->options->pin_root || (is_text(a->point.target) && is_text(attach__shown(&a->point))))
		return 0;
	return fault__usage(fault,
			    "%.128s: program %.64s: %.64s: --pin-root requires a target in UTF-8; rename the "
			    "target",
			    a->unit->file, a->name, attach__shown(&a->point));
}

/* Copy the target: the point outlives the text that the target was read from. */
int attachments__add(struct load *load, const struct attachment *planned, struct fault *fault)
{
	struct attachment *a = &load->attachments[load->attachment_count];
	int err = check_hook(load, planned, fault);

	if (!err)
		err = check_text(load, planned, fault);
	if (err)
		return err;
	*a = *planned;
	a->old_link = a->old_program = -1;
	a->target = planned->point.target ? strdup(planned->point.target) : NULL;
	a->point.target = a->target;
	if (a->unit->input)
		a->point.identity = identify(a);
	a->link = name_link(load, a);
	load->attachment_count++;
	if (!a->link || (planned->point.target && !a->target))
		return fault__set(fault, -ENOMEM, "out of memory");
	return 0;
}

static int plan_target(struct load *load, struct unit *unit, struct bpf_program *program, const char *target,
		       struct fault *fault)
{
	static struct attach_point points[LOAD_MAX_LINKS];
	struct fault inner = { 0 };
	int n = plan__program(unit->bpf, program, target, &load->options->rules, points,
			      LOAD_MAX_LINKS - load->attachment_count, &inner);

	if (n < 0) {
		fault__set(fault, n, "%.128s: program %.64s: %s", unit->file, bpf_program__name(program),
			   inner.text);
		fault->usage = inner.usage;
		return n;
	}
	for (int i = 0; i < n; i++) {
		const struct attachment next = { .unit = unit,
						 .program = program,
						 .name = bpf_program__name(program),
						 .point = points[i] };
		int err = attachments__add(load, &next, fault);

		if (err)
			return err;
	}
	return 0;
}

static int conflict(const struct unit *unit, const char *name, struct fault *fault)
{
	return fault__usage(fault,
			    "%.128s: program %.64s: --no-load and a target exclude each other; remove one",
			    unit->file, name);
}

/* Select whether the program is loaded. Returns 1 if it is, 0 if not, or a negative errno. */
static int select_program(const struct unit *unit, struct bpf_program *program, enum selection selection,
			  struct fault *fault)
{
	const char *name = bpf_program__name(program);

	if (selection == SELECT_CONFLICT)
		return conflict(unit, name, fault);
	if (selection == SELECT_OFF && bpf_program__type(program) == BPF_PROG_TYPE_STRUCT_OPS)
		return fault__usage(fault,
				    "%.128s: program %.64s: its struct_ops map calls it; use --no-load with "
				    "the name of the map",
				    unit->file, name);
	if (selection != SELECT_DEFAULT)
		bpf_program__set_autoload(program, selection == SELECT_ON);
	return bpf_program__autoload(program);
}

/* Use the targets of the command line, else those of the signed statement, else none. */
static int plan_program(struct load *load, struct unit *unit, struct bpf_program *program,
			struct fault *fault)
{
	const struct selection_options *o = &load->options->selection;
	const char *name = bpf_program__name(program), *target;
	enum selection selection = select__find(o, unit->file, name);
	size_t planned = 0;
	int err = select_program(unit, program, selection, fault);

	if (err <= 0)
		return err;
	err = 0;
	for (size_t i = 0; !err && i < o->attach_count; i++) {
		if (!option_matches(&o->attach[i], unit, name))
			continue;
		planned++;
		err = plan_target(load, unit, program, o->attach[i].target, fault);
	}
	if (!planned) {
		while (!err && (target = statement__attach(unit->input->statement, name, planned))) {
			planned++;
			err = plan_target(load, unit, program, target, fault);
		}
	}
	/* --load says that a program is loaded, and not where: the leaf of a table is attached nowhere. */
	if (!err && !planned && selection == SELECT_ON && plan__needs_target(program) &&
	    bpf_program__type(program) != BPF_PROG_TYPE_EXT)
		return 0;
	if (!err && !planned)
		err = plan_target(load, unit, program, NULL, fault);
	return err;
}

static int plan_map(struct load *load, struct unit *unit, struct bpf_map *map, struct fault *fault)
{
	const struct selection_options *o = &load->options->selection;
	enum selection selection = select__find(o, unit->file, bpf_map__name(map));
	struct attachment next = { .unit = unit };
	const char *target = NULL;
	struct fault inner = { 0 };
	int n;

	if (bpf_map__type(map) != BPF_MAP_TYPE_STRUCT_OPS)
		return 0;
	if (selection == SELECT_CONFLICT)
		return conflict(unit, bpf_map__name(map), fault);
	for (size_t i = 0; i < o->attach_count; i++) {
		if (option_matches(&o->attach[i], unit, bpf_map__name(map)))
			target = o->attach[i].target;
	}
	/* A target says where; a map of struct_ops has none but "none". */
	if (selection == SELECT_OFF || (selection == SELECT_ON && !target))
		bpf_map__set_autocreate(map, selection == SELECT_ON);
	if (selection == SELECT_OFF)
		return 0;
	n = plan__map(map, target, &next.point, &inner);
	if (n > 0 && load->attachment_count == LOAD_MAX_LINKS)
		n = fault__usage(&inner, "too many attachments");
	if (n < 0) {
		fault__set(fault, n, "%.128s: map %.64s: %s", unit->file, bpf_map__name(map), inner.text);
		fault->usage = inner.usage;
		return n;
	}
	next.name = bpf_map__name(map);
	return n ? attachments__add(load, &next, fault) : 0;
}

int attachments__plan(struct load *load, struct fault *fault)
{
	struct bpf_program *program;
	struct bpf_map *map;
	int err = check_options(load, fault);

	for (size_t i = 0; !err && i < load->count; i++) {
		bpf_object__for_each_program(program, load->units[i].bpf) {
			err = plan_program(load, &load->units[i], program, fault);
			if (err)
				return err;
		}
		bpf_object__for_each_map(map, load->units[i].bpf) {
			err = plan_map(load, &load->units[i], map, fault);
			if (err)
				return err;
		}
	}
	return err;
}
