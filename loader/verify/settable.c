// SPDX-License-Identifier: Apache-2.0
#include "verify/settable.h"

#include "base/fault.h"
#include "base/json.h"
#include "verify/statement.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define ITEMS_MAX   128
#define VALUES_MAX  64
#define ENTRIES_MAX UINT32_MAX
#define INNER	    ".inner" /* libbpf's name of the map inside a map of maps */
#define TEXT_MAX    24	     /* bytes of an integer */
#define SIGN_BIT    (UINT64_C(1) << 63)

static const char *get_string(const json_t *object, const char *name)
{
	return json_string_value(json_object_get(object, name));
}

static int compare(struct integer a, struct integer b)
{
	if (a.negative != b.negative)
		return a.negative ? -1 : 1;
	if (a.magnitude == b.magnitude)
		return 0;
	return (a.magnitude < b.magnitude) == a.negative ? 1 : -1;
}

static bool read_digits(const char *text, unsigned base, uint64_t *value)
{
	*value = 0;
	if (!*text)
		return false;
	for (; *text; text++) {
		unsigned digit = *text >= '0' && *text <= '9' ? (unsigned)(*text - '0') :
				 *text >= 'a' && *text <= 'f' ? (unsigned)(*text - 'a') + 10 :
				 *text >= 'A' && *text <= 'F' ? (unsigned)(*text - 'A') + 10 :
								16;

		if (digit >= base || *value > (UINT64_MAX - digit) / base)
			return false;
		*value = *value * base + digit;
	}
	return true;
}

/* Read a decimal integer, or a hexadecimal one after 0x. */
static bool read_integer(const char *text, struct integer *value)
{
	unsigned base;

	if (strlen(text) > TEXT_MAX)
		return false;
	value->negative = *text == '-';
	text += value->negative;
	base = text[0] == '0' && (text[1] == 'x' || text[1] == 'X') ? 16 : 10;
	if (!read_digits(text + (base == 16 ? 2 : 0), base, &value->magnitude) ||
	    (value->negative && value->magnitude > SIGN_BIT))
		return false;
	value->negative &= value->magnitude != 0;
	return true;
}

static void show_integer(struct integer value, char text[SETTING_TEXT_SIZE])
{
	snprintf(text, SETTING_TEXT_SIZE, "%s%llu", value.negative ? "-" : "",
		 (unsigned long long)value.magnitude);
}

/* Read an integer of a statement, which has one text. */
static bool read_canonical(const json_t *item, struct integer *value)
{
	const char *text = json_string_value(item);
	char canonical[SETTING_TEXT_SIZE];

	if (!text || !read_integer(text, value))
		return false;
	show_integer(*value, canonical);
	return !strcmp(text, canonical);
}

static bool values_ascend(const json_t *values)
{
	struct integer last, value;
	size_t count = json_array_size(values);

	for (size_t i = 0; i < count; i++) {
		if (!read_canonical(json_array_get(values, i), &value) || (i && compare(last, value) >= 0))
			return false;
		last = value;
	}
	return count >= 1 && count <= VALUES_MAX;
}

static bool range_is_valid(const json_t *item)
{
	struct integer min, max;

	return read_canonical(json_object_get(item, "min"), &min) &&
	       read_canonical(json_object_get(item, "max"), &max) && compare(min, max) <= 0;
}

static bool is_from(const json_t *item, const char *member, int64_t low, int64_t high)
{
	int64_t value = json_integer_value(json_object_get(item, member));

	return value >= low && value <= high;
}

static int check_variable(const json_t *item, struct fault *fault)
{
	static const struct json_member boolean[] = { { "name", JSON_KIND_NAME },
						      { "type", JSON_KIND_STRING } };
	static const struct json_member range[] = { { "name", JSON_KIND_NAME },
						    { "type", JSON_KIND_STRING },
						    { "min", JSON_KIND_STRING },
						    { "max", JSON_KIND_STRING } };
	static const struct json_member list[] = { { "name", JSON_KIND_NAME },
						   { "type", JSON_KIND_STRING },
						   { "values", JSON_KIND_STRINGS } };
	static const struct json_member string[] = { { "name", JSON_KIND_NAME },
						     { "type", JSON_KIND_STRING },
						     { "maxBytes", JSON_KIND_INTEGER } };
	const char *type = get_string(item, "type"), *where = "settable variable";
	bool has_values = json_object_get(item, "values");
	int err;

	if (type && !strcmp(type, "boolean"))
		return json__check(item, boolean, 2, where, fault);
	if (type && !strcmp(type, "string")) {
		err = json__check(item, string, 3, where, fault);
		return err || is_from(item, "maxBytes", 1, SETTING_STRING_MAX) ?
			       err :
			       fault__set(fault, -EINVAL, "%s: maxBytes is wrong", where);
	}
	if (!type || strcmp(type, "integer"))
		return fault__set(fault, -EINVAL, "%s: type is %s", where, type ? "wrong" : "missing");
	err = has_values ? json__check(item, list, 3, where, fault) :
			   json__check(item, range, 4, where, fault);
	if (!err && !(has_values ? values_ascend(json_object_get(item, "values")) : range_is_valid(item)))
		err = fault__set(fault, -EINVAL, "%s: its bounds are wrong", where);
	return err;
}

static bool is_map_of_maps(const json_t *map)
{
	const char *type = get_string(map, "type");

	return !strcmp(type, "array_of_maps") || !strcmp(type, "hash_of_maps");
}

/* Return whether the predicate has the map, or the map of maps that @name is inside of. */
static bool has_map(const json_t *predicate, const char *name)
{
	const json_t *maps = json_object_get(predicate, "maps");

	for (size_t i = 0; i < json_array_size(maps); i++) {
		const json_t *map = json_array_get(maps, i);
		const char *outer = get_string(map, "name");
		size_t size = strlen(outer);

		if (!strcmp(outer, name) ||
		    (is_map_of_maps(map) && !strncmp(name, outer, size) && !strcmp(name + size, INNER)))
			return true;
	}
	return false;
}

static int check_map(const json_t *predicate, const json_t *item, struct fault *fault)
{
	static const struct json_member map[] = { { "name", JSON_KIND_NAME },
						  { "minEntries", JSON_KIND_INTEGER },
						  { "maxEntries", JSON_KIND_INTEGER } };
	int err = json__check(item, map, 3, "settable map", fault);

	if (err)
		return err;
	if (!is_from(item, "maxEntries", 1, ENTRIES_MAX) ||
	    !is_from(item, "minEntries", 1, json_integer_value(json_object_get(item, "maxEntries"))))
		return fault__set(fault, -EINVAL, "settable map: its bounds are wrong");
	if (!has_map(predicate, get_string(item, "name")))
		return fault__set(fault, -EINVAL, "settable map: not among the maps");
	return 0;
}

static int check_items(const json_t *predicate, const json_t *items, bool are_maps, struct fault *fault)
{
	const char *last = NULL;
	int err = 0;

	if (!json_array_size(items) || json_array_size(items) > ITEMS_MAX)
		return fault__set(fault, -EINVAL, "settable: not 1 to %d items", ITEMS_MAX);
	for (size_t i = 0; !err && i < json_array_size(items); i++) {
		const json_t *item = json_array_get(items, i);

		err = are_maps ? check_map(predicate, item, fault) : check_variable(item, fault);
		if (!err && last && strcmp(last, get_string(item, "name")) >= 0)
			err = fault__set(fault, -EINVAL, "settable: the names do not ascend");
		last = get_string(item, "name");
	}
	return err;
}

int settable__check(const json_t *predicate, struct fault *fault)
{
	static const struct json_member members[] = { { "variables", JSON_KIND_ARRAY, true },
						      { "maps", JSON_KIND_ARRAY, true } };
	const json_t *settable = json_object_get(predicate, "settable"), *variables, *maps;
	int err;

	if (!settable)
		return 0;
	err = json__check(settable, members, 2, "settable", fault);
	if (err)
		return err;
	variables = json_object_get(settable, "variables");
	maps = json_object_get(settable, "maps");
	if (!variables && !maps)
		return fault__set(fault, -EINVAL, "settable: empty");
	if (variables)
		err = check_items(predicate, variables, false, fault);
	if (!err && maps)
		err = check_items(predicate, maps, true, fault);
	return err;
}

static const json_t *find(const struct statement *st, const char *member, const char *name)
{
	const json_t *items = json_object_get(st->settable, member);

	for (size_t i = 0; i < json_array_size(items); i++) {
		const json_t *item = json_array_get(items, i);

		if (!strcmp(get_string(item, "name"), name))
			return item;
	}
	return NULL;
}

bool settable__has_variable(const struct statement *st, const char *name)
{
	return find(st, "variables", name);
}

bool settable__has_map(const struct statement *st, const char *name)
{
	return find(st, "maps", name);
}

static int outside(const char *text, const char *what, const char *bound, struct fault *fault)
{
	return fault__set(fault, -EKEYREJECTED, "%.64s is %s %.64s; settable of the statement sets the bound",
			  text, what, bound);
}

static int check_integer(const json_t *item, const char *text, struct integer value, struct fault *fault)
{
	const json_t *values = json_object_get(item, "values"), *bound;
	struct integer limit;

	for (size_t i = 0; i < json_array_size(values); i++) {
		read_canonical(json_array_get(values, i), &limit);
		if (!compare(limit, value))
			return 0;
	}
	if (values)
		return outside(text, "none of the values, which begin with",
			       json_string_value(json_array_get(values, 0)), fault);
	bound = json_object_get(item, "min");
	read_canonical(bound, &limit);
	if (compare(value, limit) < 0)
		return outside(text, "below the minimum", json_string_value(bound), fault);
	bound = json_object_get(item, "max");
	read_canonical(bound, &limit);
	if (compare(value, limit) > 0)
		return outside(text, "above the maximum", json_string_value(bound), fault);
	return 0;
}

static int read_string(const json_t *item, const char *text, struct fault *fault)
{
	int64_t limit = json_integer_value(json_object_get(item, "maxBytes"));

	if (strlen(text) > (size_t)limit)
		return fault__set(fault, -EKEYREJECTED,
				  "longer than %lld bytes; settable of the statement sets the bound",
				  (long long)limit);
	for (; *text; text++) {
		if (*text < ' ' || *text > '~')
			return fault__set(fault, -EKEYREJECTED, "not printable ASCII");
	}
	return 0;
}

int settable__read_variable(const struct statement *st, const char *name, const char *text,
			    struct setting_value *value, struct fault *fault)
{
	const json_t *item = find(st, "variables", name);
	const char *type = get_string(item, "type");

	*value = (struct setting_value){ .text = text };
	if (!item)
		return fault__set(fault, -EKEYREJECTED,
				  "the statement does not let this variable be set; name it in load.settable "
				  "before signing");
	if (!strcmp(type, "string")) {
		value->kind = SETTING_STRING;
		return read_string(item, text, fault);
	}
	if (!strcmp(type, "boolean")) {
		value->kind = SETTING_BOOLEAN;
		value->integer.magnitude = !strcmp(text, "true");
		return value->integer.magnitude || !strcmp(text, "false") ?
			       0 :
			       fault__set(fault, -EKEYREJECTED, "%.64s is neither true nor false", text);
	}
	value->kind = SETTING_INTEGER;
	if (!read_integer(text, &value->integer))
		return fault__set(fault, -EKEYREJECTED, "%.64s is not an integer of at most 64 bits", text);
	return check_integer(item, text, value->integer, fault);
}

bool settable__allows_entries(const struct statement *st, const char *name, uint32_t entries)
{
	const json_t *item = find(st, "maps", name);

	return item && json_integer_value(json_object_get(item, "minEntries")) <= entries &&
	       json_integer_value(json_object_get(item, "maxEntries")) >= entries;
}

int settable__read_entries(const struct statement *st, const char *name, const char *text,
			   struct setting_value *value, struct fault *fault)
{
	const json_t *item = find(st, "maps", name);

	*value = (struct setting_value){ .kind = SETTING_ENTRIES, .text = text };
	if (!item)
		return fault__set(fault, -EKEYREJECTED,
				  "the statement does not let the size of this map be set; name it in "
				  "load.settable before signing");
	if (!read_integer(text, &value->integer) || value->integer.negative ||
	    value->integer.magnitude > ENTRIES_MAX)
		return fault__set(fault, -EKEYREJECTED, "%.64s is not a number of entries", text);
	if (!settable__allows_entries(st, name, (uint32_t)value->integer.magnitude))
		return fault__set(fault, -EKEYREJECTED,
				  "%.64s is not from %lld to %lld; settable of the statement sets the bounds",
				  text, (long long)json_integer_value(json_object_get(item, "minEntries")),
				  (long long)json_integer_value(json_object_get(item, "maxEntries")));
	return 0;
}

const char *settable__show(const struct setting_value *value, char text[SETTING_TEXT_SIZE])
{
	if (value->kind == SETTING_STRING)
		return value->text;
	if (value->kind == SETTING_BOOLEAN)
		return value->integer.magnitude ? "true" : "false";
	show_integer(value->integer, text);
	return text;
}
