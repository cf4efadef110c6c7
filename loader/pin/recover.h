/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_PIN_RECOVER_H
#define LOADER_PIN_RECOVER_H

#include "base/fault.h"
#include "pin/generation.h"

/* Repairs what a loader that was killed left below the pins of one object, whose directory is open as @home.
 */

/* Take back an update that was cut off before it counted, or complete one that counts already. */
int recover__update(int home, const char *shown, const struct generation *current, struct fault *fault);

/*
 * Kernels before 5.17 can't exchange two names: there, a loader killed between two renames leaves
 * no `current`, and a `next` that is attached already.
 */
void recover__renames(int home);

/* Without a `current`: -EEXIST with the text set when something is there that no first start leaves. */
int recover__check_ours(int home, const char *shown, struct fault *fault);

/* Take away half a first start, the directory @object of @root, and free its hooks at once. */
int recover__remove_half(int home, int root, const char *object);

#endif
