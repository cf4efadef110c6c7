/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_ENVIRONMENT_H
#define LOADER_RUN_ENVIRONMENT_H

#include "load/load.h"

/*
 * Let the descriptors of all maps survive execve(2), and name them in the environment: BUILDTOOL_FD_MAP, or
 * BUILDTOOL_FD_OBJECT_MAP if several objects have the map. Existing variables of such names are removed
 * first. A NULL @load only removes. Returns 0, or a negative errno with the text set.
 */
int environment__export_maps(const struct load *load, struct fault *fault);

/* Remove the variables that name maps. */
void environment__forget_maps(void);

#endif
