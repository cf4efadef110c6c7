/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_WORKLOAD_H
#define LOADER_RUN_WORKLOAD_H

#include "base/fault.h"
#include "run/confine.h"

#include <sys/types.h>

/*
 * Find the program like execvp(3), but never pass it to a shell. Returns a path to be freed, or NULL with the
 * text set, also if the program's interpreter does not exist.
 */
char *workload__find(const char *name, struct fault *fault);

struct workload {
	const char *path;
	char **argv;
	struct confinement confinement;
};

/* Execute the workload in this process, confined. Returns only after a failure. */
int workload__become(const struct workload *workload, struct fault *fault);

/*
 * Start the workload as a child, in a process group of its own. The kernel kills it when the loader is
 * killed. Returns 0 with *@pid set after the exec, or a negative errno with the text set.
 */
int workload__start(const struct workload *workload, pid_t *pid, struct fault *fault);

#endif
