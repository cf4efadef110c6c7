/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_OBJECTS_H
#define LOADER_RUN_OBJECTS_H

#include "verify/verify.h"

/* One object of the set: its bytes, read once, and what verification says of them; neither when refused. */
struct set_item {
	char *name;
	uint8_t *data;
	size_t size;
	struct verdict verdict;
};

struct object_set {
	struct set_item *items;
	size_t count;
	size_t refused, failed; /* among them: refused, and could not be read or verified */
};

/*
 * Read and verify all objects of a directory, or one file, writing a decision line for each. Rules of the
 * image (or NULL) hold beside those of the context.
 * Every visible entry of the directory is an object: one that isn't gets refused, not ignored.
 * Returns 0, or a negative errno with the text set when there is nothing to verify.
 */
int objects__verify(struct object_set *set, const char *path, size_t limit,
		    const struct verify_context *context, const struct trust *image, struct fault *fault);
void objects__free(struct object_set *set);

#endif
