/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_OPERATE_COMMANDS_H
#define LOADER_OPERATE_COMMANDS_H

#include "run/options.h"

/* Carry out list, status, detach or rollback. Returns the exit code. */
int commands__run(const struct options *options);

#endif
