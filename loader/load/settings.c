// SPDX-License-Identifier: Apache-2.0
#include "load/settings.h"

#include "base/fault.h"
#include "base/log.h"
#include "load/map_reuse.h"
#include "pin/record.h"
#include "verify/settable.h"
#include "verify/verify.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RODATA	   ".rodata"
#define INNER	   ".inner" /* of libbpf's name of the map inside a map of maps */
#define TYPES_MAX  32	    /* of a chain of typedefs and qualifiers */
#define NAMES_SIZE 256

/* A constant of an opened object. */
struct variable {
	const struct btf *btf;
	const struct btf_type *type; /* without qualifiers; of an array: that of its elements */
	uint8_t *data;
	size_t size;
	bool is_array;
};

static const char *word_of(const struct setting_option *option)
{
	return option->is_size ? "map-entries" : "set";
}

static bool may_be_set(const struct unit *unit, const struct setting_option *option)
{
	const struct statement *st = unit->input->statement;

	return option->is_size ? settable__has_map(st, option->name) :
				 settable__has_variable(st, option->name);
}

/* Find the unit of an option: that of the file, or the only one whose signers let the name be set. */
static struct unit *find_unit(struct load *load, const struct setting_option *option, struct fault *fault)
{
	struct unit *found = NULL;
	char names[NAMES_SIZE] = "";
	size_t used = 0;

	for (size_t i = 0; i < load->count; i++) {
		struct unit *unit = &load->units[i];

		if (option->object ? strcmp(option->object, unit->file) : !may_be_set(unit, option)) {
			if (used + strlen(unit->file) + 3 < sizeof(names))
				used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s",
							 used ? ", " : "", unit->file);
			continue;
		}
		if (found) {
			fault__usage(fault, "--%s %.128s: several objects have it; use OBJECT:%.128s=VALUE",
				     word_of(option), option->name, option->name);
			return NULL;
		}
		found = unit;
	}
	if (!found && option->object)
		fault__usage(fault, "--%s %.128s:%.128s: no object has this file name; use one of: %s",
			     word_of(option), option->object, option->name, names);
	else if (!found)
		fault__set(fault, -EKEYREJECTED,
			   "--%s %.128s: denied-by-statement: no object lets it be set; buildtool inspect "
			   "OBJECT shows what may be set",
			   word_of(option), option->name);
	return found;
}

static int deny(const struct unit *unit, const struct setting_option *option, const char *why,
		struct fault *fault)
{
	return fault__set(fault, -EKEYREJECTED, "%.128s: denied-by-statement: %s %.64s: %s", unit->file,
			  option->is_size ? "map" : "variable", option->name, why);
}

/* Skip qualifiers and typedefs. The compiler uses the value that it knows of a constant without volatile. */
static const struct btf_type *resolve(const struct btf *btf, uint32_t id, bool *is_volatile)
{
	const struct btf_type *t = btf__type_by_id(btf, id);

	for (unsigned i = 0; i < TYPES_MAX && t && (btf_is_mod(t) || btf_is_typedef(t)); i++) {
		*is_volatile |= btf_is_volatile(t);
		t = btf__type_by_id(btf, t->type);
	}
	return t;
}

/* Return the number of the variable in the section's type, -ENOENT, or -EEXIST if it has two of this name. */
static int find_in_section(const struct btf *btf, const struct btf_type *section, const char *name)
{
	const struct btf_var_secinfo *v = btf_var_secinfos(section);
	int at = -ENOENT;

	for (int i = 0; i < btf_vlen(section); i++) {
		const struct btf_type *t = btf__type_by_id(btf, v[i].type);
		const char *found = t ? btf__name_by_offset(btf, t->name_off) : NULL;

		if (found && !strcmp(found, name))
			at = at == -ENOENT ? i : -EEXIST;
	}
	return at;
}

static bool is_constants(const struct btf *btf, const struct btf_type *section)
{
	const char *name = section ? btf__name_by_offset(btf, section->name_off) : NULL;

	return name && !strncmp(name, RODATA, strlen(RODATA)) &&
	       (!name[strlen(RODATA)] || name[strlen(RODATA)] == '.');
}

/* Return why the object has no such constant, or NULL. */
static const char *find_variable(const struct bpf_object *object, const char *name, struct variable *found)
{
	const struct btf *btf = bpf_object__btf(object);
	bool is_volatile = false;
	struct bpf_map *map;

	*found = (struct variable){ .btf = btf };
	bpf_object__for_each_map(map, object) {
		uint32_t id = btf && bpf_map__is_internal(map) ? map_reuse__section_type(btf, map) : 0;
		const struct btf_type *section = id ? btf__type_by_id(btf, id) : NULL;
		int at = is_constants(btf, section) ? find_in_section(btf, section, name) : -ENOENT;
		const struct btf_var_secinfo *v;
		size_t size;
		uint8_t *data;

		if (at == -ENOENT)
			continue;
		if (at == -EEXIST || found->data)
			return "the object has two constants of this name";
		v = &btf_var_secinfos(section)[at];
		data = bpf_map__initial_value(map, &size);
		if (!data || v->offset > size || v->size > size - v->offset)
			return "the constant is outside of its section";
		found->data = data + v->offset;
		found->size = v->size;
		found->type = resolve(btf, btf__type_by_id(btf, v->type)->type, &is_volatile);
	}
	if (!found->data)
		return "the object has no constant of this name";
	found->is_array = found->type && btf_is_array(found->type);
	if (found->is_array)
		found->type = resolve(btf, btf_array(found->type)->type, &is_volatile);
	if (!found->type)
		return "the constant has no type";
	return is_volatile ? NULL : "the constant is not volatile, so the compiler has used its value";
}

static bool is_boolean(const struct variable *v)
{
	return !v->is_array && v->size == 1 && btf_is_int(v->type) &&
	       btf_int_encoding(v->type) & BTF_INT_BOOL;
}

static bool is_whole_integer(const struct variable *v)
{
	if (v->is_array || (v->size != 1 && v->size != 2 && v->size != 4 && v->size != 8))
		return false;
	if (btf_is_int(v->type))
		return !(btf_int_encoding(v->type) & BTF_INT_BOOL) && btf_int_bits(v->type) == 8 * v->size &&
		       !btf_int_offset(v->type);
	return (btf_is_enum(v->type) || btf_is_enum64(v->type)) && v->type->size == v->size;
}

static bool is_characters(const struct variable *v)
{
	return v->is_array && btf_is_int(v->type) && v->type->size == 1 &&
	       !(btf_int_encoding(v->type) & BTF_INT_BOOL);
}

/* Return whether the integer is one of the type's. */
static bool fits(const struct variable *v, struct integer value)
{
	bool is_signed =
		btf_is_int(v->type) ? btf_int_encoding(v->type) & BTF_INT_SIGNED : btf_kflag(v->type);
	unsigned bits = (unsigned)v->size * 8;
	uint64_t limit = UINT64_MAX >> (64 - bits + is_signed);

	return value.negative ? is_signed && value.magnitude <= limit + 1 : value.magnitude <= limit;
}

static void store(const struct variable *v, struct integer value)
{
	const uint64_t bits = value.negative ? -value.magnitude : value.magnitude;
	const uint8_t byte = (uint8_t)bits;
	const uint16_t half = (uint16_t)bits;
	const uint32_t word = (uint32_t)bits;

	memcpy(v->data,
	       v->size == 1 ? (const void *)&byte :
	       v->size == 2 ? (const void *)&half :
	       v->size == 4 ? (const void *)&word :
			      (const void *)&bits,
	       v->size);
}

static int set_variable(struct unit *unit, const struct setting_option *option,
			const struct setting_value *value, struct fault *fault)
{
	struct variable v;
	const char *why = find_variable(unit->bpf, option->name, &v);

	if (why)
		return deny(unit, option, why, fault);
	switch (value->kind) {
	case SETTING_STRING:
		if (!is_characters(&v) || strlen(value->text) >= v.size)
			return deny(unit, option, "its type has no room for this text", fault);
		memset(v.data, 0, v.size);
		memcpy(v.data, value->text, strlen(value->text));
		return 0;
	case SETTING_BOOLEAN:
		if (!is_boolean(&v))
			return deny(unit, option, "its type is not bool", fault);
		break;
	case SETTING_INTEGER:
	case SETTING_ENTRIES:
		if (!is_whole_integer(&v) || !fits(&v, value->integer))
			return deny(unit, option, "its type does not have this integer", fault);
	}
	store(&v, value->integer);
	return 0;
}

/* Find a map by its name, or the map of maps whose name is before ".inner", which becomes *@outer. */
static struct bpf_map *find_map(const struct bpf_object *object, const char *name, struct bpf_map **outer)
{
	struct bpf_map *map = bpf_object__find_map_by_name(object, name);
	const char *suffix = strrchr(name, '.');
	char *before;

	*outer = NULL;
	if (map || !suffix || strcmp(suffix, INNER))
		return map;
	before = strndup(name, (size_t)(suffix - name));
	*outer = before ? bpf_object__find_map_by_name(object, before) : NULL;
	free(before);
	return *outer ? bpf_map__inner_map(*outer) : NULL;
}

static int set_entries(struct unit *unit, const struct setting_option *option, struct setting_value *value,
		       struct bpf_map **outer, struct fault *fault)
{
	uint32_t wanted = (uint32_t)value->integer.magnitude;
	struct bpf_map *map = find_map(unit->bpf, option->name, outer);
	int err;

	if (!map || bpf_map__is_internal(map) || bpf_map__type(map) == BPF_MAP_TYPE_STRUCT_OPS)
		return deny(unit, option, "the object has no map of this name with a size", fault);
	if (*outer)
		return 0;
	err = bpf_map__set_max_entries(map, wanted);
	if (err)
		return fault__set(fault, err, "%.128s: map %.64s: cannot set its entries: %s", unit->file,
				  option->name, strerror(-err));
	/* libbpf rounds the size of a ring buffer up, to a power of two of pages. */
	if (!settable__allows_entries(unit->input->statement, option->name, bpf_map__max_entries(map)))
		return deny(unit, option,
			    "rounded to the next size of a ring buffer, it is outside of the bounds", fault);
	value->integer.magnitude = bpf_map__max_entries(map);
	return 0;
}

/* Settings of one unit are in ascending order of their names, whatever the order of the options. */
static int keep(struct load *load, struct unit *unit, const struct setting_option *option,
		const struct setting_value *value, struct bpf_map *outer, struct fault *fault)
{
	char text[SETTING_TEXT_SIZE];
	struct setting next = { .unit = unit,
				.name = option->name,
				.value = strdup(settable__show(value, text)),
				.is_size = option->is_size,
				.outer = outer,
				.fd = -1 };
	size_t at = load->setting_count;

	if (!next.value)
		return fault__set(fault, -ENOMEM, "out of memory");
	for (; at && load->settings[at - 1].unit == unit; at--) {
		if (strcmp(load->settings[at - 1].name, next.name) <= 0)
			break;
		load->settings[at] = load->settings[at - 1];
	}
	load->settings[at] = next;
	load->setting_count++;
	return 0;
}

static int apply(struct load *load, struct unit *unit, const struct setting_option *option,
		 struct fault *fault)
{
	const struct statement *st = unit->input->statement;
	struct setting_value value;
	struct bpf_map *outer = NULL;
	struct fault inner = { 0 };
	int err;

	err = option->is_size ? settable__read_entries(st, option->name, option->value, &value, &inner) :
				settable__read_variable(st, option->name, option->value, &value, &inner);
	if (err)
		return deny(unit, option, inner.text, fault);
	err = option->is_size ? set_entries(unit, option, &value, &outer, fault) :
				set_variable(unit, option, &value, fault);
	return err ? err : keep(load, unit, option, &value, outer, fault);
}

int settings__apply(struct load *load, struct fault *fault)
{
	const struct load_options *o = load->options;
	struct unit *units[LOAD_MAX_OPTIONS];

	for (size_t i = 0; i < o->setting_count; i++) {
		units[i] = find_unit(load, &o->settings[i], fault);
		if (!units[i])
			return fault->usage ? -EINVAL : -EKEYREJECTED;
	}
	/* By unit, so that the settings of one stand together; of equal names, the last one. */
	for (size_t i = 0; i < load->count; i++) {
		for (size_t k = 0; k < o->setting_count; k++) {
			const struct setting_option *option = &o->settings[k];
			bool is_replaced = false;
			int err;

			for (size_t n = k + 1; n < o->setting_count; n++)
				is_replaced |= units[n] == units[k] &&
					       o->settings[n].is_size == option->is_size &&
					       !strcmp(o->settings[n].name, option->name);
			if (units[k] != &load->units[i] || is_replaced)
				continue;
			err = apply(load, units[k], option, fault);
			if (err)
				return err;
		}
	}
	return 0;
}

static int make_inner(struct setting *s, struct fault *fault)
{
	const struct bpf_map *inner = bpf_map__inner_map(s->outer);
	LIBBPF_OPTS(bpf_map_create_opts, opts);
	int err = 0;

	if (!inner)
		return 0;
	opts.map_flags = bpf_map__map_flags(inner);
	opts.map_extra = bpf_map__map_extra(inner);
	opts.numa_node = bpf_map__numa_node(inner);
	s->fd = bpf_map_create(bpf_map__type(inner), NULL, bpf_map__key_size(inner),
			       bpf_map__value_size(inner), (uint32_t)strtoul(s->value, NULL, 10), &opts);
	if (s->fd < 0)
		err = s->fd;
	else
		err = bpf_map__set_inner_map_fd(s->outer, s->fd);
	return err ? fault__set(fault, err, "%.128s: map %.64s: cannot make one with %s entries: %s",
				s->unit->file, s->name, s->value, strerror(-err)) :
		     0;
}

int settings__make_inner(struct load *load, const struct unit *unit, struct fault *fault)
{
	int err = 0;

	for (size_t i = 0; !err && i < load->setting_count; i++) {
		struct setting *s = &load->settings[i];

		if (s->unit == unit && s->outer)
			err = make_inner(s, fault);
	}
	return err;
}

void settings__close_inner(struct load *load, const struct unit *unit)
{
	for (size_t i = 0; i < load->setting_count; i++) {
		struct setting *s = &load->settings[i];

		if (s->unit == unit && s->fd >= 0) {
			close(s->fd);
			s->fd = -1;
		}
	}
}

const char *settings__inner_size(const struct load *load, const struct unit *unit, const struct bpf_map *map)
{
	for (size_t i = 0; i < load->setting_count; i++) {
		const struct setting *s = &load->settings[i];

		if (s->unit == unit && s->outer == map)
			return s->value;
	}
	return NULL;
}

void settings__report(const struct load *load)
{
	for (size_t i = 0; i < load->setting_count; i++) {
		const struct setting *s = &load->settings[i];

		log__write(&(struct log_line){
			.event = "set", .object = s->unit->file, .target = s->name, .value = s->value });
	}
}

int settings__note(const struct load *load, struct unit *unit)
{
	for (size_t i = 0; i < load->setting_count; i++) {
		const struct setting *s = &load->settings[i];

		if (s->unit == unit && record__note_setting(&unit->next, s->name, s->value))
			return -ENOMEM;
	}
	return 0;
}
