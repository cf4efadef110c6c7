/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_VERIFY_STATEMENT_H
#define LOADER_VERIFY_STATEMENT_H

#include "base/fault.h"

#include <stddef.h>
#include <stdint.h>

struct json_t; /* jansson stays inside */

/* The signed statement of spec/sig-section.md, section 6. Its strings borrow from @root. */
struct statement {
	struct json_t *root;
	const char *name; /* of the subject */
	const char *digest;
	const char *platform;
	const char *project;
	int64_t version;
	int64_t created;
	int64_t not_after; /* INT64_MAX when absent */
	const struct json_t *programs, *maps, *helpers, *kfuncs;
	const struct json_t *settable; /* NULL: nothing */
};

/* Parse a statement. Returns 0, -EINVAL with the text set, or -ENOMEM. */
int statement__parse(struct statement *st, const uint8_t *data, size_t size, struct fault *fault);
void statement__free(struct statement *st);

size_t statement__program_count(const struct statement *st);
const char *statement__program_type(const struct statement *st, size_t index);
const char *statement__program_name(const struct statement *st, size_t index);

/*
 * Return the section name by which the program of this section is loaded, or NULL if its own section decides.
 * @section has no ? at its beginning.
 */
const char *statement__declared(const struct statement *st, const char *program, const char *section);

/* Return the section of program @index without ? at its beginning, and the name by which it is loaded. */
const char *statement__program_section(const struct statement *st, size_t index);
const char *statement__loaded_as(const struct statement *st, size_t index);

/* Return NULL after the last map. */
const char *statement__map_type(const struct statement *st, size_t index);
const char *statement__map_name(const struct statement *st, size_t index);

/* Return whether the statement lists a call of the code. */
bool statement__lists_helper(const struct statement *st, uint32_t number);
bool statement__lists_kfunc(const struct statement *st, const char *name);

/* Return default target @index of the program, or NULL after the last one. */
const char *statement__attach(const struct statement *st, const char *program, size_t index);

#endif
