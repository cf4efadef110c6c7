/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_PIN_GENERATION_H
#define LOADER_PIN_GENERATION_H

#include "base/fault.h"
#include "pin/bpffs.h"

struct json_t; /* jansson stays inside */

/*
 * The pins of one object as it was loaded at one time: a directory with `programs`, `maps` and
 * `record`. The record is a frozen array of one element, a JSON object, and is pinned last: a
 * directory without one is unfinished.
 */
struct generation {
	struct json_t *record;
	struct pin_list programs, maps;
};

/* Open what is pinned in the directory. -ENOENT (no text): there is none, or an unfinished one. */
int generation__open(struct generation *g, const char *path, struct fault *fault);

/* Open the record alone. */
int generation__open_record(struct generation *g, const char *path, struct fault *fault);
void generation__close(struct generation *g);

/* Make the directory and pin everything in it; removes it again when that fails. */
int generation__write(const struct generation *g, const char *path, struct fault *fault);

#endif
