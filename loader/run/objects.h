/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_OBJECTS_H
#define LOADER_RUN_OBJECTS_H

#include "run/options.h"
#include "verify/verify.h"

/* One object of the set: its bytes, which are read once, and its verdict. A refused object keeps neither. */
struct set_item {
	char *name;
	uint8_t *data;
	size_t size;
	struct verdict verdict;
};

struct object_set {
	struct set_item *items;
	size_t count;
	size_t refused, failed; /* the number of refused objects, and of unreadable ones */
	bool is_types;		/* set before: each object has the types of a kernel, and no program */
};

/*
 * Read and verify all objects of a directory, or one file, with a decision line for each. An entry that is
 * not an object is refused and not skipped: otherwise an attacker who can add files could hide an object.
 * The rules of @image (or NULL) apply beside those of the context. The options select programs, for the
 * capabilities of a line.
 * Returns 0, or a negative errno with the text set if nothing can be verified.
 */
int objects__verify(struct object_set *set, const char *path, size_t limit,
		    const struct verify_context *context, const struct trust *image,
		    const struct options *options, struct fault *fault);
void objects__free(struct object_set *set);

#endif
