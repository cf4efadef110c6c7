/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_ATTACH_HOLDER_H
#define LOADER_ATTACH_HOLDER_H

#include "attach/point.h"

#define HOLDER_TEXT_SIZE 256

/* Whether attaching failed because another program is there. */
bool holder__is_there(int err, const struct attach_point *point);

/*
 * Say as far as the kernel tells us whose program is there: its name and id, and the process or
 * the pin that holds it. With @replace, detach it, unless it is our own; true when that was done.
 */
bool holder__find(const struct attach_point *point, bool replace, char text[HOLDER_TEXT_SIZE]);

#endif
