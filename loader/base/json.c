// SPDX-License-Identifier: Apache-2.0
#include "base/json.h"

#include "base/fault.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define LETTERS_AND_DIGITS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

/* jansson recurses for each level: bound the depth first, so that an input cannot exhaust the stack. */
static bool depth_is_bounded(const uint8_t *data, size_t size)
{
	bool in_string = false;
	unsigned depth = 0;

	for (size_t i = 0; i < size; i++) {
		if (in_string) {
			if (data[i] == '\\')
				i++;
			else if (data[i] == '"')
				in_string = false;
		} else if (data[i] == '"') {
			in_string = true;
		} else if (data[i] == '{' || data[i] == '[') {
			if (++depth > JSON_MAX_DEPTH)
				return false;
		} else if ((data[i] == '}' || data[i] == ']') && depth) {
			depth--;
		}
	}
	return true;
}

/*
 * Seed jansson's hashes, so that an attacker cannot choose colliding names. jansson itself would open
 * /dev/urandom, or use the time.
 */
static void seed_hashes(void)
{
	size_t seed;

	if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) == sizeof(seed))
		json_object_seed(seed);
}

/* Set when an allocation of jansson fails in this thread. */
static _Thread_local bool memory_failed;

static void *watched_malloc(size_t size)
{
	void *memory = malloc(size);

	memory_failed |= !memory;
	return memory;
}

/*
 * jansson 2.14 ignores that the buffer of a token cannot grow, and drops characters: a name in a policy would
 * be another name. Watch its allocations, unless the program has given jansson an allocator of its own.
 */
static void watch_memory(void)
{
	json_malloc_t allocate;
	json_free_t release;

	json_get_alloc_funcs(&allocate, &release);
	if (allocate == malloc && release == free)
		json_set_alloc_funcs(watched_malloc, free);
	memory_failed = false;
}

int json__parse(json_t **root, const uint8_t *data, size_t size, struct fault *fault)
{
	json_error_t error;

	*root = NULL;
	/* JSON has no zero bytes, but jansson drops one after a number or a literal. */
	if (memchr(data, 0, size))
		return fault__set(fault, -EINVAL, "JSON with a zero byte");
	if (!depth_is_bounded(data, size))
		return fault__set(fault, -EINVAL, "JSON nested more than %d deep", JSON_MAX_DEPTH);
	seed_hashes();
	watch_memory();
	*root = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, &error);
	if (memory_failed || (!*root && json_error_code(&error) == json_error_out_of_memory)) {
		json_decref(*root);
		*root = NULL;
		return -ENOMEM;
	}
	if (!*root)
		return fault__set(fault, -EINVAL, "not the JSON of the specification (line %d)", error.line);
	if (!json_is_object(*root)) {
		json_decref(*root);
		*root = NULL;
		return fault__set(fault, -EINVAL, "not a JSON object");
	}
	return 0;
}

static bool is_name(const char *text, const char *alphabet)
{
	size_t n = strlen(text);

	return n >= 1 && n <= OBJECT_NAME_MAX && strspn(text, alphabet) == n;
}

bool json__is_object_name(const char *text)
{
	return is_name(text, LETTERS_AND_DIGITS "._-") && text[0] != '.' && text[0] != '-';
}

bool json__is_project(const char *text)
{
	return is_name(text, LETTERS_AND_DIGITS "._-/");
}

static bool read_digits(const char *text, unsigned from, unsigned count, int *value)
{
	*value = 0;
	for (unsigned i = from; i < from + count; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		*value = *value * 10 + (text[i] - '0');
	}
	return true;
}

bool json__time(const char *text, int64_t *seconds)
{
	static const int days_before[] = { 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334 };
	static const int days_in[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	int year, month, day, hour, minute, second, leap, past;

	if (strlen(text) != 20 || text[4] != '-' || text[7] != '-' || text[10] != 'T' || text[13] != ':' ||
	    text[16] != ':' || text[19] != 'Z')
		return false;
	if (!read_digits(text, 0, 4, &year) || !read_digits(text, 5, 2, &month) ||
	    !read_digits(text, 8, 2, &day) || !read_digits(text, 11, 2, &hour) ||
	    !read_digits(text, 14, 2, &minute) || !read_digits(text, 17, 2, &second))
		return false;
	if (year < 1970 || month < 1 || month > 12 || hour > 23 || minute > 59 || second > 59)
		return false;
	leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
	if (day < 1 || day > days_in[month - 1] + (month == 2 && leap))
		return false;
	past = year - 1;
	*seconds = (int64_t)(year - 1970) * 365 + (past / 4 - past / 100 + past / 400) - 477;
	*seconds += days_before[month - 1] + (month > 2 && leap) + day - 1;
	*seconds = ((*seconds * 24 + hour) * 60 + minute) * 60 + second;
	return true;
}

/* RFC 3339 in UTC. strftime() and gmtime() would link locales and time zones into the program. */
const char *json__format_time(int64_t seconds, char text[JSON_TIME_SIZE])
{
	int64_t days = seconds / 86400, second = seconds % 86400;
	/* Days since 1 March of year 0 in eras of 400 years; a year that ends in February. */
	int64_t shifted = days + 719468, era = shifted / 146097, day = shifted % 146097;
	int64_t year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
	int64_t of_year = day - (365 * year + year / 4 - year / 100);
	int64_t month = (5 * of_year + 2) / 153;
	int64_t of_month = of_year - (153 * month + 2) / 5 + 1;

	month = month < 10 ? month + 3 : month - 9;
	year += era * 400 + (month <= 2);
	snprintf(text, JSON_TIME_SIZE, "%04d-%02d-%02dT%02d:%02d:%02dZ", (int)year, (int)month, (int)of_month,
		 (int)(second / 3600), (int)(second / 60 % 60), (int)(second % 60));
	return text;
}

static bool is_strings(const json_t *value)
{
	for (size_t i = 0; i < json_array_size(value); i++) {
		if (!json_is_string(json_array_get(value, i)))
			return false;
	}
	return json_is_array(value);
}

bool json__is_integer(const json_t *value)
{
	return json_is_integer(value) && json_integer_value(value) >= 0 &&
	       json_integer_value(value) < JSON_MAX_INTEGER;
}

static bool is_string_set(const json_t *value)
{
	if (!is_strings(value))
		return false;
	for (size_t i = 1; i < json_array_size(value); i++) {
		if (strcmp(json_string_value(json_array_get(value, i - 1)),
			   json_string_value(json_array_get(value, i))) >= 0)
			return false;
	}
	return true;
}

static bool is_integer_set(const json_t *value)
{
	int64_t last = -1;

	for (size_t i = 0; i < json_array_size(value); i++) {
		const json_t *item = json_array_get(value, i);

		if (!json__is_integer(item) || json_integer_value(item) <= last)
			return false;
		last = json_integer_value(item);
	}
	return json_is_array(value);
}

/* Compare like strcmp(), for a string of @size bytes without a zero byte at its end. */
static int compare(const char *text, size_t size, const char *item)
{
	int order = strncmp(text, item, size);

	return order ? order : item[size] ? -1 : 0;
}

/* Search a sorted set for @text, which has @size bytes, or for @number if @text is NULL. */
static bool search(const json_t *set, const char *text, size_t size, int64_t number)
{
	size_t low = 0, high = json_array_size(set);

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const json_t *item = json_array_get(set, middle);
		int64_t order = text ? compare(text, size, json_string_value(item)) :
				       number - json_integer_value(item);

		if (!order)
			return true;
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return false;
}

bool json__has_integer(const json_t *set, int64_t value)
{
	return search(set, NULL, 0, value);
}

bool json__has_string(const json_t *set, const char *value, size_t size)
{
	return search(set, value, size, 0);
}

static bool is_kind(const json_t *value, enum json_kind kind)
{
	const char *text = json_string_value(value);
	int64_t seconds;

	switch (kind) {
	case JSON_KIND_STRING:
		return text;
	case JSON_KIND_NAME:
		return text && json__is_object_name(text);
	case JSON_KIND_PROJECT:
		return text && json__is_project(text);
	case JSON_KIND_TIME:
		return text && json__time(text, &seconds);
	case JSON_KIND_SHA256:
		return text && strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64;
	case JSON_KIND_INTEGER:
		return json__is_integer(value);
	case JSON_KIND_BOOLEAN:
		return json_is_boolean(value);
	case JSON_KIND_STRINGS:
		return is_strings(value);
	case JSON_KIND_STRING_SET:
		return is_string_set(value);
	case JSON_KIND_INTEGER_SET:
		return is_integer_set(value);
	case JSON_KIND_ARRAY:
		return json_is_array(value);
	case JSON_KIND_OBJECT:
		return json_is_object(value);
	}
	return false;
}

int json__check(const json_t *value, const struct json_member *members, size_t count, const char *where,
		struct fault *fault)
{
	size_t known = 0;

	if (!json_is_object(value))
		return fault__set(fault, -EINVAL, "%s: not an object", where);
	for (size_t i = 0; i < count; i++) {
		const json_t *member = json_object_get(value, members[i].name);

		if (!member && members[i].optional)
			continue;
		if (!member || !is_kind(member, members[i].kind))
			return fault__set(fault, -EINVAL, "%s: %s is %s", where, members[i].name,
					  member ? "wrong" : "missing");
		known++;
	}
	if (json_object_size(value) != known)
		return fault__set(fault, -EINVAL, "%s: unknown member", where);
	return 0;
}

int json__check_items(const json_t *array, const struct json_member *members, size_t count, const char *where,
		      struct fault *fault)
{
	for (size_t i = 0; i < json_array_size(array); i++) {
		int err = json__check(json_array_get(array, i), members, count, where, fault);

		if (err)
			return err;
	}
	return 0;
}
