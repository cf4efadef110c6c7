/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_LOAD_REFRESH_H
#define LOADER_LOAD_REFRESH_H

#include "base/fault.h"
#include "load/internal.h"

/* Programs whose interface, cgroup or network namespace goes and comes while the loader runs. */

/*
 * Mark the attachments that the kernel no longer has as lost, with a line for each. Links with pins below
 * @pin_root are found there, if this process may open pins: it has its capabilities if it @attaches_again.
 * Returns whether there is one.
 */
bool refresh__find_lost(struct load *load, bool attaches_again, const char *pin_root);

/*
 * Plan @next, which takes the place of @next->old: the same objects at the points that their targets mean
 * now. Attachments that are in place stay. Returns whether there is something to attach or to detach. A
 * target that is missing stays lost, and the text is set.
 */
bool refresh__plan(struct load *next, struct fault *fault);

/* Write the problem as a line of the event error, unless it was the last one that was written. */
void refresh__report(struct load *load, const struct fault *fault);

/* Return the number of targets without an attachment, and of attachments that the kernel refused. */
size_t refresh__count_lost(const struct load *load);

#endif
