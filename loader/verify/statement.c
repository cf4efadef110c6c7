// SPDX-License-Identifier: Apache-2.0
#include "verify/statement.h"

#include "base/fault.h"
#include "base/json.h"
#include "verify/section_types.h"
#include "verify/settable.h"

#include <errno.h>
#include <string.h>

#define STATEMENT_TYPE	    "https://in-toto.io/Statement/v1"
#define PREDICATE_TYPE	    "urn:buildtool:ebpf-object:v1"
#define RELEASE_MAX	    128
#define COUNT(array)	    (sizeof(array) / sizeof((array)[0]))
#define CHECK(value, table) json__check(value, table, COUNT(table), #table, fault)

static const struct json_member statement[] = {
	{ "_type", JSON_KIND_STRING },
	{ "subject", JSON_KIND_ARRAY },
	{ "predicateType", JSON_KIND_STRING },
	{ "predicate", JSON_KIND_OBJECT },
};

static const struct json_member subject[] = {
	{ "name", JSON_KIND_NAME },
	{ "digest", JSON_KIND_OBJECT },
};

static const struct json_member digest[] = {
	{ "sha256", JSON_KIND_SHA256 },
};

static const struct json_member predicate[] = {
	{ "platform", JSON_KIND_STRING },     { "project", JSON_KIND_PROJECT },
	{ "version", JSON_KIND_INTEGER },     { "release", JSON_KIND_STRING },
	{ "created", JSON_KIND_TIME },	      { "notAfter", JSON_KIND_TIME, true },
	{ "programs", JSON_KIND_ARRAY },      { "maps", JSON_KIND_ARRAY },
	{ "helpers", JSON_KIND_INTEGER_SET }, { "kfuncs", JSON_KIND_STRING_SET },
	{ "license", JSON_KIND_STRING },      { "toolchain", JSON_KIND_OBJECT, true },
	{ "source", JSON_KIND_OBJECT, true }, { "settable", JSON_KIND_OBJECT, true },
};

static const struct json_member program[] = {
	{ "name", JSON_KIND_STRING },		{ "section", JSON_KIND_STRING },
	{ "type", JSON_KIND_STRING },		{ "attach", JSON_KIND_STRINGS, true },
	{ "declared", JSON_KIND_STRING, true },
};

static const struct json_member map[] = {
	{ "name", JSON_KIND_STRING },	      { "type", JSON_KIND_STRING },
	{ "keySize", JSON_KIND_INTEGER },     { "valueSize", JSON_KIND_INTEGER },
	{ "maxEntries", JSON_KIND_INTEGER },  { "section", JSON_KIND_STRING, true },
	{ "struct", JSON_KIND_STRING, true }, { "pinned", JSON_KIND_BOOLEAN, true },
};

static const struct json_member toolchain[] = {
	{ "compiler", JSON_KIND_STRING },
	{ "flags", JSON_KIND_STRINGS },
};

static const struct json_member source[] = {
	{ "path", JSON_KIND_STRING },
	{ "sha256", JSON_KIND_SHA256 },
};

static const char *get_string(const json_t *object, const char *name)
{
	return json_string_value(json_object_get(object, name));
}

/* The section's name without the ? of a program that libbpf loads only on request. */
static const char *plain_section(const json_t *item)
{
	const char *section = get_string(item, "section");

	return section + (*section == '?');
}

/* A declaration must not change what libbpf knows of a section, and must agree with the type. */
static int check_declared(const json_t *programs, struct fault *fault)
{
	for (size_t i = 0; i < json_array_size(programs); i++) {
		const json_t *item = json_array_get(programs, i);
		const char *declared = get_string(item, "declared");
		const char *type = declared ? section_types__find_declared(declared) : NULL;

		if (!declared)
			continue;
		if (!type || strcmp(type, get_string(item, "type")) ||
		    strcmp(section_types__find(plain_section(item)), "unspec"))
			return fault__set(fault, -EINVAL, "program: declared is wrong");
	}
	return 0;
}

static int check_predicate(const json_t *value, struct fault *fault)
{
	const json_t *tools = json_object_get(value, "toolchain");
	const json_t *origin = json_object_get(value, "source");
	int err = CHECK(value, predicate);

	if (!err && strlen(get_string(value, "release")) > RELEASE_MAX)
		err = fault__set(fault, -EINVAL, "predicate: release is too long");
	if (!err)
		err = json__check_items(json_object_get(value, "programs"), program, COUNT(program),
					"program", fault);
	if (!err)
		err = check_declared(json_object_get(value, "programs"), fault);
	if (!err)
		err = json__check_items(json_object_get(value, "maps"), map, COUNT(map), "map", fault);
	if (!err && tools)
		err = CHECK(tools, toolchain);
	if (!err && origin)
		err = CHECK(origin, source);
	if (!err)
		err = settable__check(value, fault);
	return err;
}

static int check_statement(const json_t *root, struct fault *fault)
{
	const json_t *subjects = json_object_get(root, "subject");
	const json_t *only = json_array_get(subjects, 0);
	int err = CHECK(root, statement);

	if (err)
		return err;
	if (strcmp(get_string(root, "_type"), STATEMENT_TYPE) ||
	    strcmp(get_string(root, "predicateType"), PREDICATE_TYPE))
		return fault__set(fault, -EINVAL, "statement: unknown type");
	if (json_array_size(subjects) != 1)
		return fault__set(fault, -EINVAL, "statement: not exactly one subject");
	err = CHECK(only, subject);
	if (!err)
		err = CHECK(json_object_get(only, "digest"), digest);
	if (!err)
		err = check_predicate(json_object_get(root, "predicate"), fault);
	return err;
}

int statement__parse(struct statement *st, const uint8_t *data, size_t size, struct fault *fault)
{
	const json_t *only, *body;
	json_t *root;
	int err = json__parse(&root, data, size, fault);

	*st = (struct statement){ 0 };
	if (!err)
		err = check_statement(root, fault);
	if (err) {
		json_decref(root);
		return err;
	}
	only = json_array_get(json_object_get(root, "subject"), 0);
	body = json_object_get(root, "predicate");
	*st = (struct statement){
		.root = root,
		.name = get_string(only, "name"),
		.digest = get_string(json_object_get(only, "digest"), "sha256"),
		.platform = get_string(body, "platform"),
		.project = get_string(body, "project"),
		.version = json_integer_value(json_object_get(body, "version")),
		.not_after = INT64_MAX,
		.programs = json_object_get(body, "programs"),
		.maps = json_object_get(body, "maps"),
		.helpers = json_object_get(body, "helpers"),
		.kfuncs = json_object_get(body, "kfuncs"),
		.settable = json_object_get(body, "settable"),
	};
	json__time(get_string(body, "created"), &st->created);
	if (json_object_get(body, "notAfter"))
		json__time(get_string(body, "notAfter"), &st->not_after);
	return 0;
}

void statement__free(struct statement *st)
{
	json_decref(st->root);
	*st = (struct statement){ 0 };
}

size_t statement__program_count(const struct statement *st)
{
	return json_array_size(st->programs);
}

const char *statement__program_type(const struct statement *st, size_t index)
{
	return get_string(json_array_get(st->programs, index), "type");
}

const char *statement__program_name(const struct statement *st, size_t index)
{
	return get_string(json_array_get(st->programs, index), "name");
}

const char *statement__declared(const struct statement *st, const char *name, const char *section)
{
	for (size_t i = 0; i < json_array_size(st->programs); i++) {
		const json_t *item = json_array_get(st->programs, i);

		if (!strcmp(get_string(item, "name"), name) && !strcmp(plain_section(item), section))
			return get_string(item, "declared");
	}
	return NULL;
}

const char *statement__program_section(const struct statement *st, size_t index)
{
	return plain_section(json_array_get(st->programs, index));
}

const char *statement__loaded_as(const struct statement *st, size_t index)
{
	const char *declared = get_string(json_array_get(st->programs, index), "declared");

	return declared ? declared : statement__program_section(st, index);
}

const char *statement__map_type(const struct statement *st, size_t index)
{
	return get_string(json_array_get(st->maps, index), "type");
}

const char *statement__map_name(const struct statement *st, size_t index)
{
	return get_string(json_array_get(st->maps, index), "name");
}

const char *statement__attach(const struct statement *st, const char *name, size_t index)
{
	for (size_t i = 0; i < json_array_size(st->programs); i++) {
		const json_t *item = json_array_get(st->programs, i);

		if (!strcmp(get_string(item, "name"), name))
			return json_string_value(json_array_get(json_object_get(item, "attach"), index));
	}
	return NULL;
}

bool statement__lists_helper(const struct statement *st, uint32_t number)
{
	return json__has_integer(st->helpers, number);
}

bool statement__lists_kfunc(const struct statement *st, const char *name)
{
	return json__has_string(st->kfuncs, name, strlen(name));
}
