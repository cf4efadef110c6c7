/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_LINE_FILE_H
#define LOADER_RUN_LINE_FILE_H

#include "run/options.h"

/*
 * Read a file of options once, and call @add for each line that is neither empty nor a comment (#), without
 * the blanks around it. Lines are printable ASCII, and live as long as the process. @option is the name of
 * the option, without dashes; @form is what a line must be. Returns 0, or a negative errno with a usage
 * fault.
 */
int line_file__read(struct options *options, const char *option, const char *path, const char *form,
		    int (*add)(struct options *options, char *line, struct fault *fault),
		    struct fault *fault);

#endif
