/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_ATTACH_FILE_H
#define LOADER_RUN_ATTACH_FILE_H

#include "run/options.h"

/*
 * Read --attach-file: a PROGRAM=TARGET on each line, lines that begin with # are comments. A program
 * that the command line names has the command line's targets alone. Returns 0 or a negative errno
 * with the text set and the configuration blamed.
 */
int attach_file__read(struct options *options, struct fault *fault);

#endif
