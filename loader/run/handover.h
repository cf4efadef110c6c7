/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_HANDOVER_H
#define LOADER_RUN_HANDOVER_H

#include "run/objects.h"

/*
 * Put each verified object into a memory file that nobody can change any more (memfd_create(2), F_SEAL_WRITE,
 * GROW, SHRINK and SEAL), and let its descriptor survive execve(2). The environment names it:
 * BUILDTOOL_OBJECT_FD_NAME for each object, and BUILDTOOL_OBJECTS for all ("NAME=FD NAME=FD"), with the
 * signed names. Existing variables of such names are removed first. Returns 0, or a negative errno with the
 * text set.
 */
int handover__export(const struct object_set *set, struct fault *fault);

#endif
