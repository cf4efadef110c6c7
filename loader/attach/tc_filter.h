/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_CLSACT_H
#define LOADER_CLSACT_H

#include "attach/attach.h"

/* Whether the kernel lacks tcx (before Linux 6.6), so that tc programs become filters of clsact. */
bool clsact__is_needed(const struct attach_point *point);

/*
 * Add a filter that runs the program, beside those that are there, and in the place of one that the same
 * program's killed loader left. Returns a descriptor that tells others that we live, or a negative
 * errno. Unlike a link, the filter stays until it is taken away.
 */
int clsact__attach(int program_fd, struct attachment_handle *handle);

/* How many filters of ours there are. */
size_t clsact__count(void);

/* Take the filter away, if it still runs our program. */
void clsact__detach(const struct attachment_handle *handle);

#endif
