/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_BASE_FAULT_H
#define LOADER_BASE_FAULT_H

#include <stdbool.h>
#include <stdint.h>

#define FAULT_TEXT_SIZE 512

/* The needs of the loaded programs, whatever these are: the kernel's answer fits each of them. */
#define FAULT_ANY_CAPABILITY UINT64_MAX

/*
 * An error. The text is one line, "thing: problem: cause", in lower case and without a final period. A hint
 * follows after a semicolon, and names an option or a command.
 */
struct fault {
	char text[FAULT_TEXT_SIZE];
	bool usage;	       /* the command line or the configuration is wrong: exit code 2 */
	uint64_t capabilities; /* a mask: the lack of one of these explains the kernel's answer */
};

/* Write the text and return @err, so that callers can `return fault__set(...)`. */
int fault__set(struct fault *fault, int err, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Write the text of a wrong command line or configuration; returns -EINVAL. */
int fault__usage(struct fault *fault, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The Python tool has the same codes; 126, 127 and 128+n belong to tini. */
enum exit_code { EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_REFUSED };

/* Return the exit code of a fault. */
int fault__code(const struct fault *fault);

#endif
