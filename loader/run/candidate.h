/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_CANDIDATE_H
#define LOADER_RUN_CANDIDATE_H

#include "run/kernel_btf.h"
#include "run/objects.h"
#include "run/options.h"
#include "run/versions.h"

#define FINGERPRINT_SIZE 32

/* A set of objects that may be loaded, and the stores that decide about it. */
struct candidate {
	struct trust trust;
	struct trust image; /* the rules that hold beside a host's trust store */
	bool has_image;
	struct versions state;
	struct versions pinned; /* versions below the pin root */
	bool has_state, has_pinned;
	struct object_set set;
	struct kernel_btf btf;
	const struct options *options;
	struct verified_object *inputs; /* NULL before candidate__inputs() */
};

/*
 * Read trust store, state and objects, and verify the objects. Returns the exit code, 0 if all are accepted.
 * Otherwise the fault has a text, unless decision lines have the cause already. Free the candidate in any
 * case.
 */
int candidate__verify(struct candidate *candidate, const struct options *options, struct fault *fault);

/* Return the rules of the image that apply beside the trust store, or NULL. */
const struct trust *candidate__image(const struct candidate *candidate);

/* Return one input for each object of the set, or NULL without memory. The inputs belong to the candidate. */
const struct verified_object *candidate__inputs(struct candidate *candidate);

/* Return the capabilities that loading and attaching requires, as a mask. */
uint64_t candidate__needs(const struct candidate *candidate);

/* Hash names and bytes of all objects, including their signatures and signed targets. */
void candidate__fingerprint(const struct candidate *candidate, uint8_t fingerprint[FINGERPRINT_SIZE]);

/* Save the versions of an accepted set, and unlock the state for the next loader. */
int candidate__remember(struct candidate *candidate, struct fault *fault);

void candidate__free(struct candidate *candidate);

#endif
