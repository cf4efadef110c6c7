// SPDX-License-Identifier: Apache-2.0
#include "load/unit.h"

#include "attach/attach.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/sha256.h"
#include "load/map_reuse.h"
#include "load/settings.h"
#include "load/verifier_log.h"
#include "pin/bpffs.h"
#include "pin/generation.h"
#include "pin/pins.h"
#include "pin/record.h"
#include "verify/statement.h"
#include "verify/verify.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Give each program of a section that libbpf does not know the type that the signers declared. */
static int declare_programs(struct unit *unit, struct fault *fault)
{
	struct bpf_program *program;

	bpf_object__for_each_program(program, unit->bpf) {
		const char *name = bpf_program__name(program);
		/* Without "?". A policy decides by the file's sections, so the declaration must be of this
		 * one. */
		const char *section =
			statement__declared(unit->input->statement, name, bpf_program__section_name(program));
		enum bpf_attach_type attach_type;
		enum bpf_prog_type type;

		if (!section)
			continue;
		if (libbpf_prog_type_by_name(section, &type, &attach_type))
			return fault__set(fault, -EINVAL,
					  "%.128s: program %.64s: this loader's libbpf does not know section "
					  "%.64s",
					  unit->file, name, section);
		bpf_program__set_type(program, type); /* fails only after loading, as the next two do */
		bpf_program__set_expected_attach_type(program, attach_type);
		/* libbpf sets this flag by its own sections only. */
		if (!strncmp(section, "xdp.frags", strlen("xdp.frags")))
			bpf_program__set_flags(program, bpf_program__flags(program) | BPF_F_XDP_HAS_FRAGS);
	}
	return 0;
}

static int open_object(const struct load *load, struct unit *unit, struct fault *fault)
{
	const struct verified_object *input = unit->input;
	/* libbpf makes names of maps from this name, so use the signed one: the file's name can change. */
	LIBBPF_OPTS(bpf_object_open_opts, opts, .object_name = input->statement->name,
		    .btf_custom_path = load->options->btf_path);
	struct bpf_map *map;
	int err;

	opts.kernel_log_buf = verifier_log__buffer(&opts.kernel_log_size);
	verifier_log__begin();
	unit->bpf = bpf_object__open_mem(input->data, input->size, &opts);
	if (!unit->bpf) {
		err = -errno;
		return fault__set(fault, err, "%.128s: cannot open: %.200s", unit->file,
				  verifier_log__warning(err));
	}
	bpf_object__for_each_map(map, unit->bpf) {
		/* The operator decides about pins. libbpf would reuse an existing pin, whoever made it. */
		bpf_map__set_pin_path(map, NULL);
		/* Those of sections alone have what libbpf reads of them, and are attached. */
		if (bpf_map__type(map) == BPF_MAP_TYPE_STRUCT_OPS && !bpf_map__autoattach(map))
			return fault__set(
				fault, -EINVAL,
				"%.128s: map %.64s: a struct_ops map outside of section .struct_ops",
				unit->file, bpf_map__name(map));
	}
	return declare_programs(unit, fault);
}

/* Return whether a later load, or a share, reads the record of this one. */
static bool wants_record(const struct load_options *options)
{
	return options->pin_root || options->share || options->may_update;
}

int unit__prepare(const struct load *load, struct unit *unit, const struct verified_object *input,
		  struct fault *fault)
{
	bool described = wants_record(load->options);

	*unit = (struct unit){ .input = input, .share = SHARE_NONE, .pins = PINS_NONE };
	unit->file = strdup(input->name);
	unit->object = strdup(input->statement->name);
	unit->next.record = described ? record__make(input) : NULL;
	if (!unit->file || !unit->object || (described && !unit->next.record))
		return fault__set(fault, -ENOMEM, "out of memory");
	verifier_log__begin();
	return open_object(load, unit, fault);
}

bool unit__has_pins(const struct unit *unit, const struct pins *pins)
{
	return record__is_same_code(&pins->current, &unit->next) &&
	       record__number(&pins->current, "generation") == unit->pinned;
}

int unit__program(const struct unit *unit, const char *name)
{
	const struct bpf_program *program;

	if (!unit->loaded)
		return bpffs__find(&unit->next.programs, name);
	program = bpf_object__find_program_by_name(unit->bpf, name);
	return program ? bpf_program__fd(program) : -1;
}

int unit__map(const struct unit *unit, const char *name)
{
	const struct bpf_map *map;

	if (!unit->bpf)
		return bpffs__find(&unit->next.maps, name);
	map = bpf_object__find_map_by_name(unit->bpf, name);
	return map ? bpf_map__fd(map) : -1;
}

/* Note the layouts, by which a later load decides which maps it reuses. */
static int note_layouts(const struct load *load, struct unit *unit, struct fault *fault)
{
	char layout[MAP_REUSE_LAYOUT_SIZE];
	struct bpf_map *map;

	bpf_object__for_each_map(map, unit->bpf) {
		map_reuse__layout(unit->bpf, map, settings__inner_size(load, unit, map), layout);
		if (record__note_map(&unit->next, bpf_map__name(map), layout) ||
		    record__note_access(&unit->next, bpf_map__name(map),
					bpf_map__map_flags(map) & (BPF_F_RDONLY | BPF_F_WRONLY)))
			return fault__set(fault, -ENOMEM, "out of memory");
	}
	return 0;
}

static const struct unit *find_unit(const struct load *load, const char *object)
{
	for (size_t i = 0; load && i < load->count; i++) {
		if (!strcmp(load->units[i].object, object))
			return &load->units[i];
	}
	return NULL;
}

/* Return the descriptor of the old map, from a pin or from the load that is updated, or -1. */
static int find_map(const struct load *load, const struct unit *unit, const char *name, const char **layout)
{
	const struct unit *old = find_unit(load->old, unit->object);
	const struct bpf_map *map;

	if (unit->pins.current.record) {
		*layout = record__layout(&unit->pins.current, name);
		return bpffs__find(&unit->pins.current.maps, name);
	}
	map = old ? bpf_object__find_map_by_name(old->bpf, name) : NULL;
	if (!map)
		return -1;
	*layout = record__layout(&old->next, name);
	return bpf_map__fd(map);
}

static int carry_maps(const struct load *load, struct unit *unit, struct fault *fault)
{
	struct fault inner = { 0 };
	struct bpf_map *map;
	const char *layout;
	int fd, err;

	bpf_object__for_each_map(map, unit->bpf) {
		fd = find_map(load, unit, bpf_map__name(map), &layout);
		if (fd < 0)
			continue;
		err = map_reuse__map(unit->bpf, map, settings__inner_size(load, unit, map), fd, layout,
				     &inner);
		if (err < 0 && err != -EINVAL)
			return fault__set(fault, err, "%.128s: map %.64s: %s", unit->file, bpf_map__name(map),
					  inner.text);
		if (err == -EINVAL)
			log__write(&(struct log_line){ .event = "map",
						       .object = unit->file,
						       .target = bpf_map__name(map),
						       .message = inner.text });
	}
	return 0;
}

int unit__load_copy(struct unit *unit, struct fault *fault)
{
	int64_t started = log__clock();
	int err;

	verifier_log__begin();
	err = bpf_object__load(unit->bpf);
	if (err)
		return verifier_log__explain(unit->file, err, fault);
	unit->loaded = true;
	log__write(&(struct log_line){ .event = "load", .object = unit->file, .started = started });
	return 0;
}

int unit__load(struct load *load, struct unit *unit, struct fault *fault)
{
	int err = carry_maps(load, unit, fault);

	if (!err)
		err = settings__make_inner(load, unit, fault);
	if (!err)
		err = unit__load_copy(unit, fault);
	settings__close_inner(load, unit);
	return err;
}

/* A pinned program must be one of the object's: by the kernel's word its type, its name and its maker. */
static int check_program(const struct unit *unit, const struct generation *g,
			 const struct bpf_program *program, struct fault *fault)
{
	const char *name = bpf_program__name(program);
	int fd = bpffs__find(&g->programs, name);
	struct bpf_prog_info info = { 0 };
	__u32 size = sizeof(info);

	if (!bpf_program__autoload(program))
		return 0;
	if (fd < 0)
		return fault__set(fault, -EEXIST, "%.128s: program %.64s is not among its pins", unit->file,
				  name);
	if (bpf_prog_get_info_by_fd(fd, &info, &size) || info.type != bpf_program__type(program) ||
	    info.created_by_uid != geteuid() || strncmp(info.name, name, sizeof(info.name) - 1))
		return fault__set(fault, -EEXIST, "%.128s: program %.64s is not what was pinned there",
				  unit->file, name);
	return 0;
}

/* The same of a map: what the kernel may round, its number of entries, is left to the record's id. */
static int check_map(const struct unit *unit, const struct generation *g, const struct bpf_map *map,
		     struct fault *fault)
{
	const char *name = bpf_map__name(map);
	int fd = bpffs__find(&g->maps, name);
	struct bpf_map_info info = { 0 };
	__u32 size = sizeof(info);

	if (!bpf_map__autocreate(map) || bpf_map__type(map) == BPF_MAP_TYPE_STRUCT_OPS)
		return 0;
	if (fd < 0)
		return fault__set(fault, -EEXIST, "%.128s: map %.64s is not among its pins", unit->file,
				  name);
	if (bpf_map_get_info_by_fd(fd, &info, &size) || info.type != bpf_map__type(map) ||
	    info.key_size != bpf_map__key_size(map) || info.value_size != bpf_map__value_size(map))
		return fault__set(fault, -EEXIST, "%.128s: map %.64s is not what was pinned there",
				  unit->file, name);
	return 0;
}

static int check_pins(const struct unit *unit, const struct generation *g, struct fault *fault)
{
	struct bpf_program *program;
	struct bpf_map *map;
	int err = 0;

	bpf_object__for_each_program(program, unit->bpf) {
		if (!err)
			err = check_program(unit, g, program, fault);
	}
	bpf_object__for_each_map(map, unit->bpf) {
		if (!err)
			err = check_map(unit, g, map, fault);
	}
	return err;
}

int unit__take_pins(struct unit *unit, const struct generation *g, struct fault *fault)
{
	int64_t started = log__clock();
	struct bpf_map *map;
	int fd, err = check_pins(unit, g, fault);

	if (err)
		return err;
	bpf_object__for_each_map(map, unit->bpf) {
		fd = bpffs__find(&g->maps, bpf_map__name(map));
		if (!err && fd >= 0)
			err = bpf_map__reuse_fd(map, fd);
	}
	if (!err)
		err = record__keep_since(&unit->next, g);
	if (!err)
		err = bpffs__copy(&g->programs, &unit->next.programs);
	if (!err)
		err = bpffs__copy(&g->maps, &unit->next.maps);
	if (err)
		return fault__set(fault, err, "%.128s: cannot reuse its pinned maps: %s", unit->file,
				  strerror(-err));
	log__write(&(struct log_line){ .event = "reuse", .object = unit->file, .started = started });
	return 0;
}

/*
 * Hash the options by which one object gives different programs: selected programs, attach types, targets,
 * and settings.
 */
static int describe_variant(const struct load *load, struct unit *unit)
{
	SHA256_CTX state;
	struct bpf_program *program;
	uint8_t hash[SHA256_SIZE];

	SHA256_Init(&state);
	/* The form of records and entries: what an earlier release of the loader shares has another name. */
	SHA256_Update(&state, "2", 2);
	bpf_object__for_each_program(program, unit->bpf) {
		const uint32_t numbers[] = { bpf_program__autoload(program),
					     bpf_program__expected_attach_type(program) };

		SHA256_Update(&state, numbers, sizeof(numbers));
	}
	for (size_t i = 0; i < load->attachment_count; i++) {
		const struct attachment *a = &load->attachments[i];

		/* The target is part of a loaded program of these types. */
		if (a->unit == unit && a->target &&
		    (a->point.place == PLACE_TRACE || a->point.place == PLACE_ITER))
			SHA256_Update(&state, a->link, strlen(a->link) + 1);
	}
	for (size_t i = 0; i < load->setting_count; i++) {
		const struct setting *s = &load->settings[i];

		if (s->unit != unit)
			continue;
		SHA256_Update(&state, s->is_size ? "\1size" : "\1set", s->is_size ? 6 : 5);
		SHA256_Update(&state, s->name, strlen(s->name) + 1);
		SHA256_Update(&state, s->value, strlen(s->value) + 1);
	}
	/* Programs are relocated by these types. */
	if (load->options->btf_path)
		SHA256_Update(&state, load->options->btf_digest, DIGEST_SIZE);
	SHA256_Final(hash, &state);
	return record__set_variant(&unit->next, hash);
}

bool unit__can_share(const struct load *load, const struct unit *unit)
{
	for (size_t i = 0; i < load->attachment_count; i++) {
		if (load->attachments[i].unit == unit && !attach__can_share(&load->attachments[i].point))
			return false;
	}
	return true;
}

int unit__describe(const struct load *load, struct unit *unit, struct fault *fault)
{
	int err;

	if (!wants_record(load->options))
		return 0;
	err = note_layouts(load, unit, fault);
	if (!err && (settings__note(load, unit) || describe_variant(load, unit)))
		err = fault__set(fault, -ENOMEM, "out of memory");
	return err;
}

int unit__obtain(struct load *load, struct unit *unit, struct fault *fault)
{
	unit->rotate =
		strcmp(record__text(&unit->pins.current, "digest"), record__text(&unit->next, "digest"));
	if (unit__can_share(load, unit) && record__is_same_code(&unit->pins.current, &unit->next))
		return unit__take_pins(unit, &unit->pins.current, fault);
	return unit__load(load, unit, fault);
}

static int add_pin(struct pin_list *list, const char *name, int fd)
{
	struct pin pin = { .name = strdup(name), .fd = fcntl(fd, F_DUPFD_CLOEXEC, 3) };

	if (!pin.name || pin.fd < 0) {
		free(pin.name);
		return pin.fd < 0 ? -errno : -ENOMEM;
	}
	list->items[list->count++] = pin;
	return 0;
}

/* Allocate a list; bpffs__free() frees it. */
static int make_room(struct pin_list *list, size_t count)
{
	list->items = calloc(count + 1, sizeof(*list->items));
	return list->items ? 0 : -ENOMEM;
}

static size_t count_programs(const struct bpf_object *bpf)
{
	struct bpf_program *program;
	size_t count = 0;

	bpf_object__for_each_program(program, bpf)
		count++;
	return count;
}

static size_t count_maps(const struct bpf_object *bpf)
{
	struct bpf_map *map;
	size_t count = 0;

	bpf_object__for_each_map(map, bpf)
		count++;
	return count;
}

int unit__collect(struct unit *unit, struct fault *fault)
{
	struct bpf_program *program;
	struct bpf_map *map;
	int err;

	/* A refresh pins what an earlier load collected. */
	if (!unit->loaded || unit->next.programs.items)
		return 0;
	err = make_room(&unit->next.programs, count_programs(unit->bpf));
	if (!err)
		err = make_room(&unit->next.maps, count_maps(unit->bpf));
	if (err)
		return fault__set(fault, err, "out of memory");
	bpf_object__for_each_program(program, unit->bpf) {
		if (!err && bpf_program__fd(program) >= 0)
			err = add_pin(&unit->next.programs, bpf_program__name(program),
				      bpf_program__fd(program));
	}
	bpf_object__for_each_map(map, unit->bpf) {
		if (!err && bpf_map__fd(map) >= 0 && bpf_map__type(map) != BPF_MAP_TYPE_STRUCT_OPS)
			err = add_pin(&unit->next.maps, bpf_map__name(map), bpf_map__fd(map));
	}
	return err ? fault__set(fault, err, "%.128s: %s", unit->file, strerror(-err)) : 0;
}

void unit__close(struct unit *unit)
{
	bpf_object__close(unit->bpf);
	generation__close(&unit->next);
	pins__close(&unit->pins);
	free(unit->file);
	free(unit->object);
}
