/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_ATTACH_TC_FILTER_H
#define LOADER_ATTACH_TC_FILTER_H

#include "attach/point.h"

/* Return whether the kernel lacks tcx (before Linux 6.6), so that tc programs become filters of clsact. */
bool tc_filter__is_needed(const struct attach_point *point);

/*
 * Add a filter that runs the program, beside existing filters. It replaces a filter that a killed loader left
 * for the same program. Returns a descriptor that marks this loader as alive, or a negative errno. Unlike a
 * link, the filter stays until tc_filter__detach().
 */
int tc_filter__attach(int program_fd, struct attachment_handle *handle);

/* Return the number of this loader's filters. */
size_t tc_filter__count(void);

/* Return whether the filter still runs this loader's program. */
bool tc_filter__is_there(const struct attachment_handle *handle);

/* Remove the filter, if it still runs this loader's program. */
void tc_filter__detach(const struct attachment_handle *handle);

#endif
