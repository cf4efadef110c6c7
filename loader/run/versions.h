/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_VERSIONS_H
#define LOADER_RUN_VERSIONS_H

#include "base/fault.h"

#include <stdint.h>

struct json_t; /* jansson stays inside */

/* The state of spec/trust-policy.md: the highest version of each object. An open state is locked. */
struct versions {
	int dir;
	int file; /* the next file, made before anything is loaded, or -1 */
	struct json_t *root;
	bool grew;
};

/*
 * Open and lock the state, and make the file for the next one: a start must fail before it loads anything,
 * not after. Another loader's lock is waited for. Returns 0, or a negative errno with the text set.
 */
int versions__open(struct versions *state, const char *path, struct fault *fault);

/* Make an empty state in memory, which cannot be saved. Returns 0 or -ENOMEM. */
int versions__begin(struct versions *state);

/* Return the highest version that was accepted, or 0. */
int64_t versions__version(const struct versions *state, const char *project, const char *object_name);

/* Note a higher version in memory. Returns 0 or -ENOMEM. */
int versions__raise(struct versions *state, const char *project, const char *object_name, int64_t version);

/* Write a changed state atomically, so that a crash leaves the old file or the new one. */
int versions__save(struct versions *state, struct fault *fault);

/* Close and unlock the state, without saving it. */
void versions__close(struct versions *state);

#endif
