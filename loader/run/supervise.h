/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_SUPERVISE_H
#define LOADER_RUN_SUPERVISE_H

#include <poll.h>
#include <stddef.h>
#include <sys/types.h>

/* The calls of supervise__wait(), and the descriptors that it watches. */
struct supervise_events {
	void (*reload)(void *context); /* for each SIGHUP */
	void (*look)(void *context);   /* when a descriptor is readable */
	struct pollfd *fds;
	size_t count;
	void *context;
};

/*
 * Wait for the end, and call what the events are for. Without a workload (0), SIGTERM or SIGINT is the end.
 * With a workload, its exit is the end, and signals are passed on to its process group. Returns 0, the
 * workload's exit code, or 128 plus the signal that ended the workload.
 */
int supervise__wait(pid_t workload, const struct supervise_events *events);

#endif
