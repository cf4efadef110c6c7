/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_ATTACH_TC_FILTER_H
#define LOADER_ATTACH_TC_FILTER_H

#include "attach/point.h"

/* Whether the kernel lacks tcx (before Linux 6.6), so that tc programs become filters of clsact. */
bool tc_filter__is_needed(const struct attach_point *point);

/*
 * Add a filter that runs the program, beside those that are there, and in the place of one that the same
 * program's killed loader left. Returns a descriptor that tells others that we live, or a negative
 * errno. Unlike a link, the filter stays until it is taken away.
 */
int tc_filter__attach(int program_fd, struct attachment_handle *handle);

/* How many filters of ours there are. */
size_t tc_filter__count(void);

/* Take the filter away, if it still runs our program. */
void tc_filter__detach(const struct attachment_handle *handle);

#endif
