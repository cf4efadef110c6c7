/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_SUPERVISE_H
#define LOADER_RUN_SUPERVISE_H

#include <sys/types.h>

/*
 * Wait for the end, and call @reload for each SIGHUP. Without a workload (0), SIGTERM or SIGINT is the end.
 * With a workload, its exit is the end, and signals are passed on to its process group. Returns 0, the
 * workload's exit code, or 128 plus the signal that ended the workload.
 */
int supervise__wait(pid_t workload, void (*reload)(void *context), void *context);

#endif
