/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_COMMANDS_H
#define LOADER_RUN_COMMANDS_H

#include "run/options.h"

/* list, status, detach and rollback: what becomes of pins. Returns the exit code. */
int commands__run(const struct options *options);

#endif
