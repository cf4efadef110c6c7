// SPDX-License-Identifier: Apache-2.0
#include "load/replace.h"

#include "base/fault.h"
#include "load/unit.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <string.h>

/* The load whose programs get their targets; libbpf's handler has no argument for it. */
static const struct load *binding;

bool replace__has_programs(const struct load *load, const struct unit *unit)
{
	for (size_t i = 0; i < load->attachment_count; i++) {
		if (load->attachments[i].unit == unit && load->attachments[i].point.place == PLACE_FUNCTION)
			return true;
	}
	return false;
}

int replace__check(const struct load *load, struct fault *fault)
{
	const char *option = load->options->share ? "share" : load->options->pin_root ? "pin-root" : NULL;

	for (size_t i = 0; option && i < load->attachment_count; i++) {
		const struct attachment *a = &load->attachments[i];

		/* A kept program would go on replacing a function of the program of an earlier release. */
		if (a->point.place == PLACE_FUNCTION)
			return fault__usage(
				fault, "%.128s: program %.64s: section %.64s and --%s exclude each other",
				a->unit->file, a->name, a->point.section, option);
	}
	return 0;
}

/* The target is OBJECT:PROGRAM. Return the unit, and the name of the program. */
static const struct unit *find_unit(const struct load *load, const char *target, const char **program)
{
	const char *colon = strrchr(target, ':');

	for (size_t i = 0; i < load->count; i++) {
		const struct unit *unit = &load->units[i];

		if (strlen(unit->file) == (size_t)(colon - target) &&
		    !strncmp(unit->file, target, (size_t)(colon - target))) {
			*program = colon + 1;
			return unit;
		}
	}
	return NULL;
}

/* The kernel has the types of the object as they are, so their numbers are the same. Returns 0 without. */
static __u32 find_function(const struct unit *unit, const char *section)
{
	const struct btf *btf = bpf_object__btf(unit->bpf);
	int id = btf ? btf__find_by_name_kind(btf, strchr(section, '/') + 1, BTF_KIND_FUNC) : -ENOENT;

	return id > 0 ? (__u32)id : 0;
}

/*
 * Called by libbpf before it loads a program of freplace. libbpf itself would ask the kernel for the types of
 * the target, which requires CAP_SYS_ADMIN.
 */
static int set_function(struct bpf_program *program, struct bpf_prog_load_opts *opts, long cookie)
{
	const char *name;

	(void)cookie;
	for (size_t i = 0; binding && i < binding->attachment_count; i++) {
		const struct attachment *a = &binding->attachments[i];

		if (a->program == program && a->point.place == PLACE_FUNCTION)
			opts->attach_btf_id =
				find_function(find_unit(binding, a->point.target, &name), a->point.section);
	}
	return opts->attach_btf_id ? 0 : -ESRCH;
}

int replace__take_over(struct fault *fault)
{
	LIBBPF_OPTS(libbpf_prog_handler_opts, opts, .prog_prepare_load_fn = set_function);
	static int handler;

	if (handler <= 0)
		handler = libbpf_register_prog_handler("freplace+", BPF_PROG_TYPE_EXT, 0, &opts);
	return handler < 0 ? fault__set(fault, handler, "out of memory") : 0;
}

static int bind_program(const struct load *load, const struct attachment *a, struct fault *fault)
{
	const char *name, *target = a->point.target;
	const struct unit *unit = find_unit(load, target, &name);
	int fd;

	if (!unit)
		return fault__usage(
			fault,
			"%.128s: program %.64s: %.200s: no such object; use OBJECT:PROGRAM with the "
			"name of its file",
			a->unit->file, a->name, target);
	if (replace__has_programs(load, unit))
		return fault__usage(
			fault,
			"%.128s: program %.64s: %.200s: the object has programs of freplace itself; "
			"move the target to another object",
			a->unit->file, a->name, target);
	fd = unit__program(unit, name);
	if (fd < 0)
		return fault__usage(fault, "%.128s: program %.64s: %.200s: no such program is loaded",
				    a->unit->file, a->name, target);
	if (!find_function(unit, a->point.section))
		return fault__set(fault, -ENOENT,
				  "%.128s: program %.64s: %.200s: its object has no function %.64s",
				  a->unit->file, a->name, target, strchr(a->point.section, '/') + 1);
	bpf_program__set_attach_target(a->program, fd, NULL); /* fails only after loading */
	return 0;
}

int replace__bind(const struct load *load, const struct unit *unit, struct fault *fault)
{
	int err = 0;

	binding = load;
	for (size_t i = 0; !err && i < load->attachment_count; i++) {
		if (load->attachments[i].unit == unit && load->attachments[i].point.place == PLACE_FUNCTION)
			err = bind_program(load, &load->attachments[i], fault);
	}
	return err;
}
