/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_LOAD_ROLLBACK_H
#define LOADER_LOAD_ROLLBACK_H

#include "base/fault.h"
#include "load/internal.h"

/* Add one that goes back to what is pinned as the previous one; -ENOENT without text when nothing is. */
int rollback__prepare(struct load *load, const char *object, struct fault *fault);

#endif
