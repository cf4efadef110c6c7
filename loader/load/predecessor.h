/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_LOAD_PREDECESSOR_H
#define LOADER_LOAD_PREDECESSOR_H

#include "base/fault.h"
#include "load/internal.h"

/* The link that an attachment takes over, of a pin or of the load that is updated. */

/*
 * Return whether the kernel has the link at the point of the attachment: interface, cgroup or network
 * namespace, hook, and the mode of XDP if the target names one. Names do not count: an interface of one name
 * can be another one by now, and one interface can have several names.
 */
bool predecessor__is_at(const struct attachment *a, int link);

/*
 * Find the link that holds the place of the attachment, whatever its name; else the link of its name, which
 * is replaced. Sets @old_link, @old_program, @old and @renamed of the attachment. Returns 0, also without
 * such a link, or a negative errno with the text set.
 */
int predecessor__find(const struct load *load, struct attachment *a, struct fault *fault);

#endif
