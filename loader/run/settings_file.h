/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_SETTINGS_FILE_H
#define LOADER_RUN_SETTINGS_FILE_H

#include "run/options.h"

/*
 * Read --settings: an option's word and its value on each line, such as "set x.bpf.o:rate=10". Its constants
 * and sizes stand at the place of --settings among those of the command line. Returns 0, or a negative errno
 * with a usage fault.
 */
int settings_file__read(struct options *options, struct fault *fault);

#endif
