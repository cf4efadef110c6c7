/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_CANDIDATE_H
#define LOADER_RUN_CANDIDATE_H

#include "run/objects.h"
#include "run/options.h"
#include "run/versions.h"

#define FINGERPRINT_SIZE 32

/* A set of objects on its way to the kernel, with what it is judged by. */
struct candidate {
	struct trust trust;
	struct trust image; /* the rules that hold beside a host's trust store */
	bool has_image;
	struct versions state;
	struct versions pinned; /* versions below the pin root */
	bool has_state, has_pinned;
	struct object_set set;
	struct verified_object *inputs; /* NULL until somebody asks */
};

/*
 * Read trust store, state and objects, and verify. Returns the exit code: 0 when all are accepted, else
 * with a text, unless the lines have said everything. To be freed in any case.
 */
int candidate__verify(struct candidate *candidate, const struct options *options, struct fault *fault);

/* The rules of the image that hold beside the trust store, or NULL. */
const struct trust *candidate__image(const struct candidate *candidate);

/* One for each object of the set. They are the candidate's, and borrow from it; NULL without memory. */
const struct verified_object *candidate__inputs(struct candidate *candidate);

/* The capabilities that it takes to load and attach, as a mask. */
uint64_t candidate__needs(const struct candidate *candidate);

/* Equal only for the same names and the same bytes, signatures and targets among them. */
void candidate__fingerprint(const struct candidate *candidate, uint8_t fingerprint[FINGERPRINT_SIZE]);

/* Remember the versions of a set that was accepted as a whole, and let the next loader in. */
int candidate__remember(struct candidate *candidate, struct fault *fault);

void candidate__free(struct candidate *candidate);

#endif
