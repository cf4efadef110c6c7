/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_H
#define LOADER_RUN_H

#include "run/options.h"

/* The same in the command line tool; 126, 127 and 128+n belong to tini. */
enum exit_code { EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_REFUSED };

/* The exit code that goes with a fault. */
int run__code(const struct fault *fault);

/* Write the line of an error; returns the exit code. */
int run__fail(const struct fault *fault);

/* Read --attach-file, verify, load, attach; then become the workload, watch over it, or wait. Returns the
 * exit code. */
int run__all(struct options *options);

#endif
