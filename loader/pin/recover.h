/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RECOVER_H
#define LOADER_RECOVER_H

#include "pin/pins.h"

/* What a loader that was killed left below one object's pins, for pins__open(). */

/* Take back an update that didn't come to its end, or complete one that counts already. */
int pins__recover(const struct pins *p, struct fault *fault);

/*
 * Kernels before 5.17 can't exchange two names: there, a loader killed between two renames leaves
 * no `current`, and a `next` that is attached already.
 */
void pins__finish_renames(const struct pins *p);

/* Without a `current`: -EEXIST with the text set when something is there that no first start leaves. */
int pins__check_ours(const struct pins *p, struct fault *fault);

/* Take away half a first start, and free its hooks at once. */
int pins__remove_half(const struct pins *p);

/* A link's name while it waits for the one of its predecessor; names of links have an @ before this. */
#define PINS_ASIDE "+new"

/* Of pins.c: paths below the object's pins, and its links, opened. */
int pins__part(char at[BPFFS_PATH_SIZE], const struct pins *p, const char *name);
int pins__link_path(char at[BPFFS_PATH_SIZE], const struct pins *p, const char *link, const char *suffix);
int pins__list_links(const struct pins *p, struct pin_list *links, struct fault *fault);

#endif
