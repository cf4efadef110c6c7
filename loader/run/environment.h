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

#define ENVIRONMENT_OBJECTS "BUILDTOOL_OBJECTS"

/*
 * Name descriptor @fd of the object that is signed as @name: BUILDTOOL_OBJECT_FD_NAME. Returns 0, or a
 * negative errno with the text set, also if another object has the variable.
 */
int environment__export_object(const char *name, int fd, struct fault *fault);

/* Name descriptor @fd of the types of --btf: BUILDTOOL_BTF_FD. Returns 0, or a negative errno with the text
 * set. */
int environment__export_types(int fd, struct fault *fault);

/*
 * Remove the variables that name descriptors of maps, objects and types. Those of an earlier start, or of an
 * attacker, name wrong descriptors.
 */
void environment__forget_descriptors(void);

#endif
