/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_HOOK_H
#define LOADER_HOOK_H

#include "attach/attach.h"

#define HOOK_TEXT_SIZE 256

/* Whether attaching failed because another program is there. */
bool hook__is_taken(int err, const struct attach_point *point);

/*
 * Say as far as the kernel tells us whose program is there: its name and id, and the process or
 * the pin that holds it. With @replace, detach it, unless it is our own; true when that was done.
 */
bool hook__find_holder(const struct attach_point *point, bool replace, char text[HOOK_TEXT_SIZE]);

#endif
