/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_LOAD_ROLLBACK_H
#define LOADER_LOAD_ROLLBACK_H

#include "base/fault.h"
#include "load/internal.h"

/* Add the previous generation of a pinned object. Returns -ENOENT without a text if there is none. */
int rollback__prepare(struct load *load, const char *object, struct fault *fault);

#endif
