/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_VERSIONS_H
#define LOADER_RUN_VERSIONS_H

#include "base/fault.h"

#include <stdint.h>

struct json_t; /* jansson stays inside */

/* The state directory of spec/trust-policy.md: the highest version of each object, locked while it is open.
 */
struct versions {
	int dir;
	struct json_t *root;
	bool grew;
};

/* Returns 0, or a negative errno with the text set. Waits for whoever has it open. */
int versions__open(struct versions *state, const char *path, struct fault *fault);

/* Begin with an empty one in memory, which can't be saved. Returns 0 or -ENOMEM. */
int versions__begin(struct versions *state);

/* The highest version that was accepted, or 0. */
int64_t versions__version(const struct versions *state, const char *project, const char *object_name);

/* Remember a version, in memory, if it is higher. Returns 0 or -ENOMEM. */
int versions__raise(struct versions *state, const char *project, const char *object_name, int64_t version);

/* Write what grew, so that after a crash there is the old file or the new one. */
int versions__save(struct versions *state, struct fault *fault);

/* Closes and unlocks; does not save. */
void versions__close(struct versions *state);

#endif
