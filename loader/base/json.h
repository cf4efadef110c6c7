/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_BASE_JSON_H
#define LOADER_BASE_JSON_H

#include "base/fault.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#define JSON_MAX_DEPTH	 8
#define JSON_MAX_INTEGER ((int64_t)1 << 53) /* exclusive */
#define OBJECT_NAME_MAX	 128

enum json_kind {
	JSON_KIND_STRING,
	JSON_KIND_NAME,	   /* an object name */
	JSON_KIND_PROJECT, /* an object name with slashes */
	JSON_KIND_TIME,
	JSON_KIND_SHA256, /* 64 lower-case hex digits */
	JSON_KIND_INTEGER,
	JSON_KIND_BOOLEAN,
	JSON_KIND_STRINGS,     /* an array of strings */
	JSON_KIND_STRING_SET,  /* the same, strictly ascending */
	JSON_KIND_INTEGER_SET, /* an array of integers, strictly ascending */
	JSON_KIND_ARRAY,
	JSON_KIND_OBJECT,
};

struct json_member {
	const char *name;
	enum json_kind kind;
	bool optional;
};

/*
 * Parse one JSON object by the rules of spec/sig-section.md, section 6.
 * Returns 0, -EINVAL with the text set, or -ENOMEM; the caller drops the reference.
 */
int json__parse(json_t **root, const uint8_t *data, size_t size, struct fault *fault);

/*
 * Check that @value is an object of exactly these members, each of its kind.
 * @where is its name in the text. Returns 0 or -EINVAL.
 */
int json__check(const json_t *value, const struct json_member *members, size_t count, const char *where,
		struct fault *fault);

/* Check each item of an array in the same way. */
int json__check_items(const json_t *array, const struct json_member *members, size_t count, const char *where,
		      struct fault *fault);

/* Parse YYYY-MM-DDTHH:MM:SSZ to seconds since the epoch. Returns false for any other text. */
bool json__time(const char *text, int64_t *seconds);

#define JSON_TIME_SIZE 32

/* Write seconds since the epoch as YYYY-MM-DDTHH:MM:SSZ. Returns @text. */
const char *json__format_time(int64_t seconds, char text[JSON_TIME_SIZE]);

bool json__is_object_name(const char *text);
bool json__is_project(const char *text);
bool json__is_integer(const json_t *value);

/* Search a sorted set, in logarithmic time. */
bool json__has_integer(const json_t *set, int64_t value);
bool json__has_string(const json_t *set, const char *value, size_t size);

#endif
