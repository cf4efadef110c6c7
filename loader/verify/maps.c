// SPDX-License-Identifier: Apache-2.0
#include "verify/maps.h"

#include "base/fault.h"
#include "verify/object.h"
#include "verify/trust.h"
#include "verify/types.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define STRUCT_OPS	"struct_ops"
#define MAPS_SECTION	".maps"
#define TYPE_STRUCT_OPS 26    /* BPF_MAP_TYPE_STRUCT_OPS */
#define ENTRIES_MAX	65536 /* variables and members: one large struct can be that of many variables */
#define POINT_SIZE	(OBJECT_TEXT_MAX + 16)
#define COUNT(array)	(sizeof(array) / sizeof((array)[0]))

/* libbpf's sections of struct_ops maps. */
static const char *const struct_ops_sections[] = {
	".struct_ops",
	".struct_ops.link",
	"?.struct_ops",
	"?.struct_ops.link",
};

struct reader {
	const struct trust *trust;
	struct fault *fault;
	struct types types;
	struct section btf; /* .BTF */
	unsigned btf_count;
	bool has_maps;
	unsigned sections, groups; /* bits: the struct_ops sections of the file, and those with types */
	uint32_t entries;
};

static int unreadable(const struct reader *r, const char *why)
{
	return fault__set(r->fault, -EKEYREJECTED, "the maps cannot be read: %s", why);
}

/* The bit of a struct_ops section, or 0. */
static unsigned find_bit(const char *name)
{
	for (unsigned i = 0; i < COUNT(struct_ops_sections); i++) {
		if (!strcmp(name, struct_ops_sections[i]))
			return 1u << i;
	}
	return 0;
}

/* Rule 5 */
static int check_section(struct reader *r, const char *name)
{
	unsigned bit = find_bit(name);
	char allowed[TRUST_LIST_SIZE];

	if (strncmp(name + (*name == '?'), ".struct_ops", strlen(".struct_ops")))
		return 0;
	if (!bit)
		return unreadable(r, "an unknown kind of struct_ops");
	if (!trust__allows_type(r->trust, STRUCT_OPS))
		return fault__set(
			r->fault, -EKEYREJECTED,
			"section '%s' of type struct_ops is not allowed, only %s; programTypes of the "
			"policy sets this rule",
			name, trust__list(r->trust, "programTypes", allowed));
	r->sections |= bit;
	return 0;
}

static int find_sections(struct reader *r, const struct object *o)
{
	int err = 0;

	for (unsigned i = 0; !err && i < o->sections; i++) {
		struct section s = object__section(o, i);
		const char *name = object__section_name(o, &s);

		r->has_maps |= !strcmp(name, MAPS_SECTION);
		if (!strcmp(name, ".BTF")) {
			r->btf = s;
			r->btf_count++;
		}
		err = check_section(r, name);
	}
	return err;
}

/* Rule 6 */
static int check_point(const struct reader *r, const char *kind, const char *text, size_t size,
		       const char *map)
{
	char point[POINT_SIZE], allowed[TRUST_LIST_SIZE];

	snprintf(point, sizeof(point), "%s/%.*s", kind, (int)size, text);
	if (trust__allows_point(r->trust, point))
		return 0;
	return fault__set(
		r->fault, -EKEYREJECTED,
		"map '%.64s': attach point '%.128s' is not allowed, only %s; attachPoints of the policy "
		"sets this rule",
		map, point, trust__list(r->trust, "attachPoints", allowed));
}

static bool count_entries(struct reader *r, uint32_t count)
{
	r->entries += count; /* at most 65,535 more than the limit */
	return r->entries <= ENTRIES_MAX;
}

/* The integer that a member encodes: a pointer to an array of so many elements. */
static bool read_number(const struct reader *r, uint32_t type, uint32_t *number)
{
	struct type pointer, array;

	if (!types__resolve(&r->types, type, &pointer) || pointer.kind != KIND_PTR ||
	    !types__find(&r->types, pointer.value, &array) || array.kind != KIND_ARRAY)
		return false;
	*number = types__word(&r->types, &array, 2);
	return true;
}

static int read_members(const struct reader *r, const struct type *definition, bool *is_pinned)
{
	for (unsigned i = 0; i < definition->count; i++) {
		const char *name = types__name(&r->types, types__word(&r->types, definition, 3 * i));
		uint32_t type = types__word(&r->types, definition, 3 * i + 1), number = 0;
		bool is_type = name && !strcmp(name, "type");

		if (!name)
			return unreadable(r, "a member without a name");
		if (!is_type && strcmp(name, "pinning"))
			continue;
		if (!read_number(r, type, &number))
			return unreadable(r, "a member that is no number");
		/* libbpf makes them from the sections alone, and reads a null pointer for any other. */
		if (is_type && number == TYPE_STRUCT_OPS)
			return unreadable(r, "a struct_ops map in section .maps");
		*is_pinned |= !is_type && number;
	}
	return 0;
}

static int check_map(struct reader *r, const char *name, const struct type *definition)
{
	bool is_pinned = false;
	int err;

	if (!count_entries(r, definition->count))
		return unreadable(r, "too many members");
	err = read_members(r, definition, &is_pinned);
	return !err && is_pinned ? check_point(r, "pin", name, strlen(name), name) : err;
}

static int check_variable(struct reader *r, uint32_t number, bool is_struct_ops)
{
	struct type variable, definition;
	const char *name, *type;

	if (!types__find(&r->types, number, &variable) || variable.kind != KIND_VAR)
		return unreadable(r, "a group of what is no variable");
	name = types__name(&r->types, variable.name);
	if (!name || !*name)
		return unreadable(r, "a map without a name");
	if (!types__resolve(&r->types, variable.value, &definition) || definition.kind != KIND_STRUCT)
		return unreadable(r, "a map that is not a struct");
	/* Read for both kinds, so that what can be read does not depend on the kind. */
	type = types__name(&r->types, definition.name);
	if (!type || (is_struct_ops && !*type))
		return unreadable(r, "a struct without a name");
	if (is_struct_ops)
		return check_point(r, STRUCT_OPS, type, trust__length_without_flavour(type), name);
	return check_map(r, name, &definition);
}

/* A group of variables, if they are maps. */
static int check_group(struct reader *r, const struct type *group)
{
	const char *name = types__name(&r->types, group->name);
	unsigned bit = name ? find_bit(name) : 0;
	int err = 0;

	if (!name)
		return unreadable(r, "a group without a name");
	if (!bit && strcmp(name, MAPS_SECTION))
		return 0;
	r->groups |= bit;
	if (!count_entries(r, group->count))
		return unreadable(r, "too many maps");
	for (unsigned i = 0; !err && i < group->count; i++)
		err = check_variable(r, types__word(&r->types, group, 3 * i), bit);
	return err;
}

static int check_groups(struct reader *r)
{
	struct type type;
	int err = 0;

	for (uint32_t number = 1; !err && number <= r->types.count; number++) {
		if (types__find(&r->types, number, &type) && type.kind == KIND_DATASEC)
			err = check_group(r, &type);
	}
	if (!err && r->sections & ~r->groups)
		err = unreadable(r, "a struct_ops section without a type");
	return err;
}

int maps__check(const struct object *object, const struct trust *trust, struct fault *fault)
{
	struct reader r = { .trust = trust, .fault = fault };
	int err;

	if (!trust__has_rule(trust, "programTypes") && !trust__has_rule(trust, "attachPoints"))
		return 0;
	err = find_sections(&r, object);
	if (err || (!r.sections && !r.has_maps))
		return err;
	if (r.btf_count != 1 || r.btf.type != SHT_PROGBITS)
		return unreadable(&r, "not exactly one section .BTF");
	err = types__open(&r.types, object, &r.btf, fault);
	if (err == -EINVAL)
		err = unreadable(&r, "damaged BTF, or more types or names than the kernel loads");
	if (!err)
		err = check_groups(&r);
	types__free(&r.types);
	return err;
}
