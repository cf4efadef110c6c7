/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_HEALTH_H
#define LOADER_RUN_HEALTH_H

#include "base/fault.h"
#include "run/confine.h"

/* Check that the command is an absolute path of a program, and arguments, separated by blanks. */
int health__parse(const char *command, struct fault *fault);

/*
 * Run the command, without a shell and confined as the workload is, for at most @seconds. Returns 0 if it
 * ended with 0. Otherwise it returns -EIO, -ETIMEDOUT, or -EINTR after SIGTERM or SIGINT, with the text set.
 */
int health__check(const char *command, int seconds, const struct confinement *confinement,
		  struct fault *fault);

#endif
