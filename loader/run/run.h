/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_RUN_H
#define LOADER_RUN_RUN_H

#include "run/options.h"

/*
 * Read --attach-file, verify, load and attach; then execute the workload, supervise it, or wait. Returns the
 * exit code.
 */
int run__all(struct options *options);

#endif
