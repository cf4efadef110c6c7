/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_ATTACH_EXPLAIN_H
#define LOADER_ATTACH_EXPLAIN_H

#include "attach/point.h"
#include "base/fault.h"

/*
 * Set the text for the error of attaching to the point, which messages call @shown: the target, the kernel's
 * reason, @cause with its hint, or what is known about the cause. Returns @err.
 */
int explain__error(int err, const struct attach_point *point, const char *shown, const char *cause,
		   struct fault *fault);

#endif
