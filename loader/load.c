// SPDX-License-Identifier: Apache-2.0
#include "load.h"

#include "attach.h"
#include "log.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KERNEL_LOG_SIZE 65536

struct attachment {
	const struct load_input *input;
	struct bpf_program *program;
	struct attach_point point;
	struct attachment_handle handle;
};

struct load {
	const struct load_input *inputs;
	size_t count;
	struct bpf_object *objects[LOAD_MAX_OBJECTS];
	struct attachment attachments[LOAD_MAX_LINKS];
	size_t attachment_count;
	const struct attach_options *rules; /* while loading */
};

/* The kernel verifier's log; its pages are touched only when a program is refused. */
static char kernel_log[KERNEL_LOG_SIZE];
static char last_warning[256];

__attribute__((format(printf, 2, 0))) static int keep_warning(enum libbpf_print_level level,
							      const char *format, va_list args)
{
	/* The first one names the cause; those that follow say that something failed. */
	if (level == LIBBPF_WARN && !last_warning[0]) {
		vsnprintf(last_warning, sizeof(last_warning), format, args);
		last_warning[strcspn(last_warning, "\n")] = 0;
	}
	return 0;
}

/* The last line of the kernel verifier's log that is not statistics: what it objects to. */
static const char *kernel_objection(void)
{
	static const char *const statistics[] = { "processed ", "verification time", "stack depth",
						  "mark_precise" };
	char *line, *rest = kernel_log, *best = NULL;

	kernel_log[sizeof(kernel_log) - 1] = 0;
	while ((line = strsep(&rest, "\n"))) {
		bool keep = line[0] != 0;

		for (size_t i = 0; i < sizeof(statistics) / sizeof(statistics[0]); i++)
			keep = keep && strncmp(line, statistics[i], strlen(statistics[i]));
		if (keep)
			best = line;
	}
	return best;
}

static int open_object(struct load *load, size_t i, struct fault *fault)
{
	const struct load_input *input = &load->inputs[i];
	LIBBPF_OPTS(bpf_object_open_opts, opts, .object_name = input->name, .kernel_log_buf = kernel_log,
		    .kernel_log_size = sizeof(kernel_log));
	struct bpf_map *map;
	int err;

	last_warning[0] = 0;
	load->objects[i] = bpf_object__open_mem(input->data, input->size, &opts);
	if (!load->objects[i]) {
		err = -errno;
		return fault__set(fault, err, "%.128s: cannot open: %.200s", input->name,
				  last_warning[0] ? last_warning : strerror(-err));
	}
	/* A pin would outlive us; and whoever made an existing pin is not known. */
	bpf_object__for_each_map(map, load->objects[i])
		bpf_map__set_pin_path(map, NULL);
	return 0;
}

static bool option_matches(const struct attach_option *option, const struct load_input *input,
			   const char *name)
{
	return !strcmp(option->program, name) && (!option->object || !strcmp(option->object, input->name));
}

/* Each --attach must mean exactly one program, or a map of struct_ops. */
static int check_option(const struct load *load, const struct attach_option *option, struct fault *fault)
{
	struct bpf_program *program;
	struct bpf_map *map;
	size_t found = 0;

	for (size_t i = 0; i < load->count; i++) {
		bpf_object__for_each_program(program, load->objects[i])
			found += option_matches(option, &load->inputs[i], bpf_program__name(program));
		bpf_object__for_each_map(map, load->objects[i]) {
			if (bpf_map__type(map) == BPF_MAP_TYPE_STRUCT_OPS)
				found += option_matches(option, &load->inputs[i], bpf_map__name(map));
		}
	}
	if (!found)
		return fault__usage(fault, "--attach %.128s: no object has this program", option->program);
	if (found > 1)
		return fault__usage(fault, "--attach %.128s: several objects have it, say OBJECT:%.128s",
				    option->program, option->program);
	return 0;
}

static int plan_target(struct load *load, const struct load_input *input, struct bpf_program *program,
		       const char *target, struct fault *fault)
{
	static struct attach_point points[LOAD_MAX_LINKS];
	struct fault inner = { 0 };
	int n = attach__plan(load->objects[input - load->inputs], program, target, load->rules, points,
			     LOAD_MAX_LINKS - load->attachment_count, &inner);

	if (n < 0) {
		fault__set(fault, n, "%.128s: program %.64s: %s", input->name, bpf_program__name(program),
			   inner.text);
		fault->usage = inner.usage;
		return n;
	}
	for (int i = 0; i < n; i++)
		load->attachments[load->attachment_count++] =
			(struct attachment){ .input = input, .program = program, .point = points[i] };
	return 0;
}

/* The command line's targets, else those of the signed statement, else none. */
static int plan_program(struct load *load, const struct load_input *input, struct bpf_program *program,
			const struct attach_option *options, size_t option_count, struct fault *fault)
{
	const char *name = bpf_program__name(program), *target;
	size_t planned = 0;
	int err = 0;

	for (size_t i = 0; !err && i < option_count; i++) {
		if (!option_matches(&options[i], input, name))
			continue;
		planned++;
		err = plan_target(load, input, program, options[i].target, fault);
	}
	/* SEC("?..."): loaded only when somebody asks for it. */
	if (planned)
		bpf_program__set_autoload(program, true);
	else if (!bpf_program__autoload(program))
		return 0;
	if (!planned) {
		while (!err && (target = statement__attach(input->statement, name, planned))) {
			planned++;
			err = plan_target(load, input, program, target, fault);
		}
	}
	if (!err && !planned)
		err = plan_target(load, input, program, NULL, fault);
	return err;
}

static int plan_map(struct load *load, const struct load_input *input, struct bpf_map *map,
		    const struct attach_option *options, size_t option_count, struct fault *fault)
{
	struct attachment next = { .input = input };
	const char *target = NULL;
	struct fault inner = { 0 };
	int n;

	for (size_t i = 0; i < option_count; i++) {
		if (option_matches(&options[i], input, bpf_map__name(map)))
			target = options[i].target;
	}
	n = attach__plan_map(map, target, &next.point, &inner);
	if (n > 0 && load->attachment_count == LOAD_MAX_LINKS)
		n = fault__usage(&inner, "too many attachments");
	if (n < 0) {
		fault__set(fault, n, "%.128s: map %.64s: %s", input->name, bpf_map__name(map), inner.text);
		fault->usage = inner.usage;
		return n;
	}
	if (n)
		load->attachments[load->attachment_count++] = next;
	return 0;
}

static int plan(struct load *load, const struct attach_option *options, size_t option_count,
		struct fault *fault)
{
	struct bpf_program *program;
	struct bpf_map *map;
	int err;

	for (size_t i = 0; i < option_count; i++) {
		err = check_option(load, &options[i], fault);
		if (err)
			return err;
	}
	for (size_t i = 0; i < load->count; i++) {
		bpf_object__for_each_program(program, load->objects[i]) {
			err = plan_program(load, &load->inputs[i], program, options, option_count, fault);
			if (err)
				return err;
		}
		bpf_object__for_each_map(map, load->objects[i]) {
			err = plan_map(load, &load->inputs[i], map, options, option_count, fault);
			if (err)
				return err;
		}
	}
	return 0;
}

static int load_object(struct load *load, size_t i, struct fault *fault)
{
	const struct load_input *input = &load->inputs[i];
	int64_t started = log__clock();
	const char *objection;
	int err;

	kernel_log[0] = last_warning[0] = 0;
	err = bpf_object__load(load->objects[i]);
	if (err) {
		objection = kernel_objection();
		return fault__set(fault, err, "%.128s: cannot load: %s: %.200s", input->name, strerror(-err),
				  objection ? objection : last_warning);
	}
	log__write(&(struct log_line){ .event = "load", .object = input->name, .started = started });
	return 0;
}

/* Of the program, or of the struct_ops map. */
static const char *name_of(const struct attachment *a)
{
	return a->program ? bpf_program__name(a->program) : a->point.target;
}

static int attach_all(struct load *load, struct fault *fault)
{
	for (size_t i = 0; i < load->attachment_count; i++) {
		struct attachment *a = &load->attachments[i];
		int64_t started = log__clock();
		struct fault inner = { 0 };
		int err = attach__program(a->program, a->program ? bpf_program__fd(a->program) : -1,
					  &a->point, load->rules, &a->handle, &inner);

		if (err) {
			fault__set(fault, err, "%.128s: program %.64s: %s", a->input->name, name_of(a),
				   inner.text);
			fault->usage = inner.usage;
			return err;
		}
		log__write(&(struct log_line){
			.event = "attach",
			.object = a->input->name,
			.program = name_of(a),
			.target = attach__shown(&a->point),
			.started = started,
		});
	}
	return 0;
}

int load__start(struct load **out, const struct load_input *inputs, size_t count,
		const struct load_options *options, struct fault *fault)
{
	struct load *load = calloc(1, sizeof(*load));
	int err = 0;

	*out = NULL;
	if (!load)
		return fault__set(fault, -ENOMEM, "out of memory");
	libbpf_set_print(keep_warning);
	load->inputs = inputs;
	load->rules = &options->rules;
	for (size_t i = 0; !err && i < count; i++) {
		load->count = i + 1;
		err = open_object(load, i, fault);
	}
	if (!err)
		err = plan(load, options->attach, options->attach_count, fault);
	for (size_t i = 0; !err && i < count; i++)
		err = load_object(load, i, fault);
	if (!err)
		err = attach_all(load, fault);
	if (err)
		load__stop(load);
	else
		*out = load;
	return err;
}

int load__update(struct load **load, const struct load_input *inputs, size_t count,
		 const struct load_options *options, struct fault *fault)
{
	(void)load;
	(void)inputs;
	(void)count;
	(void)options;
	return fault__set(fault, -EOPNOTSUPP, "this loader cannot update in place yet");
}

bool load__next_map(const struct load *load, size_t *iterator, struct load_map *out)
{
	size_t skip = *iterator;
	struct bpf_map *map;

	for (size_t i = 0; i < load->count; i++) {
		bpf_object__for_each_map(map, load->objects[i]) {
			if (bpf_map__fd(map) < 0 || skip--)
				continue;
			++*iterator;
			*out = (struct load_map){ .object = load->inputs[i].statement->name,
						  .name = bpf_map__name(map),
						  .fd = bpf_map__fd(map) };
			return true;
		}
	}
	return false;
}

struct load_counts load__count(const struct load *load)
{
	struct load_counts counts = { .objects = load->count, .attachments = load->attachment_count };
	struct bpf_program *program;
	struct load_map map;

	while (load__next_map(load, &counts.maps, &map))
		;
	for (size_t i = 0; i < load->count; i++) {
		bpf_object__for_each_program(program, load->objects[i])
			counts.programs += bpf_program__fd(program) >= 0;
	}
	return counts;
}

int load__keep_over_exec(const struct load *load, struct fault *fault)
{
	for (size_t i = 0; i < load->attachment_count; i++) {
		if (fcntl(load->attachments[i].handle.fd, F_SETFD, 0))
			return fault__set(fault, -errno, "cannot keep a link: %s", strerror(errno));
	}
	return 0;
}

void load__stop(struct load *load)
{
	if (!load)
		return;
	for (size_t i = load->attachment_count; i-- > 0;) {
		struct attachment *a = &load->attachments[i];

		if (!a->handle.fd)
			continue;
		attach__detach(&a->handle);
		log__write(&(struct log_line){
			.event = "detach",
			.object = a->input->name,
			.program = name_of(a),
			.target = attach__shown(&a->point),
		});
	}
	for (size_t i = 0; i < load->count; i++)
		bpf_object__close(load->objects[i]);
	free(load);
}

const char *load__library_version(void)
{
	return libbpf_version_string();
}
