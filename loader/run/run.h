/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_RUN_H
#define LOADER_RUN_RUN_H

#include "run/options.h"

/* Read --attach-file, verify, load, attach; then become the workload, watch over it, or wait. Returns the
 * exit code. */
int run__all(struct options *options);

#endif
