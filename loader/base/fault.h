/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_BASE_FAULT_H
#define LOADER_BASE_FAULT_H

#include <stdbool.h>

#define FAULT_TEXT_SIZE 384

/* What went wrong, for people: one line, lower case, no final period. */
struct fault {
	char text[FAULT_TEXT_SIZE];
	bool usage; /* the command line or the configuration is to blame: exit code 2 */
};

/* Write the text and return @err, so that callers can `return fault__set(...)`. */
int fault__set(struct fault *fault, int err, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The same, and blame the command line or the configuration. */
int fault__usage(struct fault *fault, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same in the command line tool; 126, 127 and 128+n belong to tini. */
enum exit_code { EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_REFUSED };

/* The exit code that goes with a fault. */
int fault__code(const struct fault *fault);

#endif
