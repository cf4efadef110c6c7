/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_PIN_RECORD_H
#define LOADER_PIN_RECORD_H

#include "attach/point.h"
#include "base/fault.h"
#include "pin/generation.h"

#include <stdint.h>

#define RECORD_NAME	"record"
#define RECORD_ATTACHED "attached"

struct json_t; /* jansson stays inside */
struct verified_object;

/* The record of a generation: what was verified, and where it is attached. */

/*
 * Read the record that is pinned as a map, RECORD_NAME or RECORD_ATTACHED: of this type and name, and frozen.
 * Returns 0, -ESTALE for one of an earlier release, or another negative errno, with the text set.
 */
int record__read(int fd, const char *name, struct json_t **record, struct fault *fault);

/* Freeze it and pin it in a directory. Returns 0 or a negative errno. */
int record__pin(const struct json_t *record, int directory, const char *name);

/* Make the record of an object that was verified, loaded now. NULL without memory. */
struct json_t *record__make(const struct verified_object *object);

/* The variant: what else than the object decides which programs it gives, as a hash. */
int record__set_variant(struct generation *g, const uint8_t hash[32]);

/* Programs that are taken over were loaded when @from says. Returns 0 or -ENOMEM. */
int record__keep_since(struct generation *g, const struct generation *from);

/* Links on interfaces belong to the network namespace that the loader runs in: its number. */
int64_t record__own_namespace(void);

/* Strings of the record, "" when it has none, and numbers, 0. */
const char *record__text(const struct generation *g, const char *member);
int64_t record__number(const struct generation *g, const char *member);

/* The kernel's ids of programs and maps, so that a pin that was exchanged for another shows. */
int record__note_ids(struct generation *g);

/* What a start has set in the object: a constant, or the entries of a map. Returns 0 or -ENOMEM. */
int record__note_setting(struct generation *g, const char *name, const char *value);

/* Compare them with what is pinned: all of it, and nothing else. -EEXIST with the text set for a difference.
 */
int record__check_ids(const struct generation *g, const char *shown, struct fault *fault);

/* Whether a record says the same of the bytes and of what else decides about the programs. */
bool record__is_same_code(const struct generation *a, const struct generation *b);

/* The layout of each map, of map_reuse.h; "" for one that it doesn't have. */
int record__note_map(struct generation *g, const char *name, const char *layout);
const char *record__layout(const struct generation *g, const char *name);

/* What user space may do with a map, if not all: BPF_F_RDONLY or BPF_F_WRONLY, or 0. */
int record__note_access(struct generation *g, const char *name, uint32_t flags);
uint32_t record__access(const struct generation *g, const char *name);

/* What is attached: names of links, with program and target for people. */
int record__note_link(struct generation *g, const char *link, const char *program,
		      const struct attach_point *point);

/* The point of one of the record's links; strings borrow from it. */
void record__read_point(const struct json_t *item, struct attach_point *point);
bool record__has_link(const struct generation *g, const char *link);

/* The kernel's ids of what is attached: noted at the end of a start, or 0. */
int record__note_link_id(struct generation *g, const char *link, uint32_t id);
uint32_t record__link_id(const struct generation *g, const char *link);
bool record__has_link_id(const struct generation *g, uint32_t id);

#endif
