/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_PIN_GENERATION_H
#define LOADER_PIN_GENERATION_H

#include "base/fault.h"
#include "pin/bpffs.h"

struct json_t; /* jansson stays inside */

/*
 * The pins of one object as it was loaded at one time: a directory with `programs`, `maps`, `record` and,
 * with a pin root, `attached`. The last two are frozen arrays of one element, a JSON object. The record is
 * pinned after programs and maps: a directory without one is unfinished. The ids of the links, which are made
 * later, are in `attached`.
 */
struct generation {
	struct json_t *record, *attached;
	struct pin_list programs, maps;
};

/*
 * Open what is pinned in the directory @name of @directory, whose path is @shown. -ENOENT (no text): there is
 * none, or an unfinished one. -ESTALE: an earlier release of the loader made it.
 */
int generation__open(struct generation *g, int directory, const char *name, const char *shown,
		     struct fault *fault);

/* Open the record alone. */
int generation__open_record(struct generation *g, int directory, const char *name, const char *shown,
			    struct fault *fault);
void generation__close(struct generation *g);

/* Make the directory and pin everything in it; removes it again when that fails. */
int generation__write(const struct generation *g, int directory, const char *name, const char *shown,
		      struct fault *fault);

/* Pin what is attached now in a generation that is there. Returns 0 or a negative errno. */
int generation__write_attached(const struct generation *g, int directory, const char *name);

/* Remove it, its record first: half of one is none. What isn't there is no error. */
int generation__remove(int directory, const char *name);

#endif
