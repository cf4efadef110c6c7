/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_PIN_PINS_H
#define LOADER_PIN_PINS_H

#include "pin/generation.h"

#include <stdint.h>

/*
 * One object's pins: ROOT/OBJECT with
 *   current   what is attached now
 *   previous  what was before, for a rollback
 *   next      only while an update is under way, or after one that was killed
 *   links     what keeps programs attached: PROGRAM@TARGET
 * The lock of the root is held by whoever calls.
 */
struct pins {
	char path[BPFFS_PATH_SIZE]; /* for messages; empty when there is no pin root */
	const char *object;	    /* the caller's, as is the next */
	int root, home;		    /* directories: of all objects; of this one, or -1 */
	struct generation current;  /* its record is NULL when there is none */
};

/* No pins at all: what pins__close() may be given. */
#define PINS_NONE ((struct pins){ .root = -1, .home = -1 })

/*
 * Open an object's pins below the directory @root, whose path is @shown. What a killed loader left half done
 * is first put back to `current`, or taken away when there is none. Programs and maps are compared with the
 * record.
 */
int pins__open(struct pins *p, int root, const char *shown, const char *object, struct fault *fault);

/* The same for pins that are there; it changes nothing. */
int pins__open_existing(struct pins *p, int root, const char *shown, const char *object, struct fault *fault);

/* Without a look at the record, for pins__remove() alone. */
int pins__open_unread(struct pins *p, int root, const char *shown, const char *object, struct fault *fault);
void pins__close(struct pins *p);

/* The generation `previous`; -ENOENT without text when there is none. */
int pins__open_previous(const struct pins *p, struct generation *g, struct fault *fault);

/* Pin a new generation as `next`, beside `current`. */
int pins__stage(const struct pins *p, struct generation *g, struct fault *fault);
void pins__unstage(const struct pins *p);

/* Pin in `next` which links there are. */
int pins__stage_links(const struct pins *p, const struct generation *g, struct fault *fault);

/* Make `next` the `current` one; with @rotate the old one becomes `previous`. */
int pins__commit(const struct pins *p, bool rotate, struct fault *fault);

/*
 * The link of this name: a descriptor or a negative errno; -EEXIST when it is not the one of the record, or
 * runs another program.
 */
int pins__get_link(const struct pins *p, const char *link);

/* Take away all links that the record doesn't have, writing a line for each. */
int pins__retire_links(const struct pins *p, const struct generation *g, struct fault *fault);

/* Take everything away, detaching what is attached. */
int pins__remove(struct pins *p, struct fault *fault);

/* Takes the version of an object that is pinned. Returns 0 or -ENOMEM. */
typedef int pins_version(void *context, const char *project, const char *object_name, int64_t version);

/* Call @note with each version that is pinned below a root, if it is there. */
int pins__list_versions(const char *root, pins_version *note, void *context, struct fault *fault);

#endif
