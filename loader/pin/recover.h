/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_PIN_RECOVER_H
#define LOADER_PIN_RECOVER_H

#include "base/fault.h"
#include "pin/generation.h"

/* Repairs what a loader that was killed left below the pins of one object, the directory @home. */

/* Take back an update that was cut off before it counted, or complete one that counts already. */
int recover__update(const char *home, const struct generation *current, struct fault *fault);

/*
 * Kernels before 5.17 can't exchange two names: there, a loader killed between two renames leaves
 * no `current`, and a `next` that is attached already.
 */
void recover__renames(const char *home);

/* Without a `current`: -EEXIST with the text set when something is there that no first start leaves. */
int recover__check_ours(const char *home, struct fault *fault);

/* Take away half a first start, and free its hooks at once. */
int recover__remove_half(const char *home);

#endif
