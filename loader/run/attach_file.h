/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_ATTACH_FILE_H
#define LOADER_RUN_ATTACH_FILE_H

#include "run/options.h"

/*
 * Read --attach-file: a PROGRAM=TARGET on each line; lines that begin with # are comments. Targets of
 * --attach replace all targets of the file for the same program. Returns 0, or a negative errno with a usage
 * fault.
 */
int attach_file__read(struct options *options, struct fault *fault);

#endif
