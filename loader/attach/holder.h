/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_ATTACH_HOLDER_H
#define LOADER_ATTACH_HOLDER_H

#include "attach/point.h"

#define HOLDER_TEXT_SIZE 256

/* Return whether attaching failed because another program holds the hook. */
bool holder__is_there(int err, const struct attach_point *point);

/*
 * Describe the program that holds the hook, as far as the kernel shows it: its name and id, and the process
 * or the pin that holds it. The text has a hint. With @replace, detach the program, unless it belongs to this
 * loader; returns true after that.
 */
bool holder__find(const struct attach_point *point, bool replace, char text[HOLDER_TEXT_SIZE]);

#endif
