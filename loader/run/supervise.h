/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_SUPERVISE_H
#define LOADER_RUN_SUPERVISE_H

#include <sys/types.h>

/*
 * Wait for the end, calling @reload at each SIGHUP. Without a workload (0) that is SIGTERM or SIGINT;
 * with one its own end, and signals are passed on to its process group. Returns the exit code: 0, or
 * the workload's, or 128 and the signal that ended it.
 */
int supervise__wait(pid_t workload, void (*reload)(void *context), void *context);

#endif
