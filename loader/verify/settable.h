/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_VERIFY_SETTABLE_H
#define LOADER_VERIFY_SETTABLE_H

#include "base/fault.h"

#include <stddef.h>
#include <stdint.h>

struct json_t; /* jansson stays inside */
struct statement;

/* What the signers let the loading machine set: the member settable of spec/sig-section.md, section 6. */

/* An integer from -2^63 to 2^64 - 1. Zero is not negative. */
struct integer {
	bool negative;
	uint64_t magnitude;
};

enum setting_kind { SETTING_BOOLEAN, SETTING_INTEGER, SETTING_STRING, SETTING_ENTRIES };

#define SETTING_STRING_MAX 4096

/* A value that the statement allows. */
struct setting_value {
	enum setting_kind kind;
	struct integer integer; /* of a boolean: 0 or 1 */
	const char *text;	/* of a string: borrowed from the caller */
};

/* Check the member of a predicate, if there is one. Returns 0, or -EINVAL with the text set. */
int settable__check(const struct json_t *predicate, struct fault *fault);

/* Return whether the statement lets the variable, or the map, be set. */
bool settable__has_variable(const struct statement *st, const char *name);
bool settable__has_map(const struct statement *st, const char *name);

/*
 * Read the value of a variable, or the number of entries of a map, and check it against the statement's
 * bounds. Integers are decimal, or hexadecimal after 0x. Returns 0, or -EKEYREJECTED with the text set.
 */
int settable__read_variable(const struct statement *st, const char *name, const char *text,
			    struct setting_value *value, struct fault *fault);
int settable__read_entries(const struct statement *st, const char *name, const char *text,
			   struct setting_value *value, struct fault *fault);

/* Return whether the statement allows so many entries of a map. */
bool settable__allows_entries(const struct statement *st, const char *name, uint32_t entries);

#define SETTING_TEXT_SIZE 32

/* Return the text of a value: that of a string, or a number or word in @text. */
const char *settable__show(const struct setting_value *value, char text[SETTING_TEXT_SIZE]);

#endif
