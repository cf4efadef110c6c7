/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_WORKLOAD_H
#define LOADER_RUN_WORKLOAD_H

#include "base/fault.h"
#include "run/confine.h"

#include <sys/types.h>

/* Find the program as execvp would, but never hand it to a shell. NULL, or a path to be freed. */
char *workload__find(const char *name);

struct workload {
	const char *path;
	char **argv;
	struct confinement confinement;
};

/* Become the workload, confined. Returns only when that fails. */
int workload__become(const struct workload *workload, struct fault *fault);

/*
 * Start the workload as a child, in a process group of its own. It is killed when we are.
 * Returns 0 with *@pid set once the new program runs, or a negative errno with the text set.
 */
int workload__start(const struct workload *workload, pid_t *pid, struct fault *fault);

#endif
