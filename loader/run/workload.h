/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_WORKLOAD_H
#define LOADER_WORKLOAD_H

#include "load/load.h"

#include <sys/types.h>

/* Find the program as execvp would, but never hand it to a shell. NULL, or a path to be freed. */
char *workload__find(const char *name);

/*
 * Let the descriptors of all maps survive execve, and name them in the environment: BUILDTOOL_FD_MAP,
 * or BUILDTOOL_FD_OBJECT_MAP where several objects have the map. Variables of such names that were
 * there before are removed. A NULL @load only removes. Returns 0 or a negative errno with the text set.
 */
int workload__export_maps(const struct load *load, struct fault *fault);

struct workload {
	const char *path;
	char **argv;
	bool deny_bpf;
};

/* Become the workload, with no capability left. Returns only when that fails. */
int workload__become(const struct workload *workload, struct fault *fault);

/*
 * Start the workload as a child, in a process group of its own. It is killed when we are.
 * Returns 0 with *@pid set once the new program runs, or a negative errno with the text set.
 */
int workload__start(const struct workload *workload, pid_t *pid, struct fault *fault);

#endif
