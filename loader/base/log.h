/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_BASE_LOG_H
#define LOADER_BASE_LOG_H

#include "base/fault.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One decision line of spec/decision-lines.md; members that do not apply are zero. */
struct log_line {
	const char *event;
	const char *object, *program, *target;
	const char *value; /* of a setting */
	const char *decision, *reason;
	const uint8_t *digest;
	const uint8_t *const *key_ids;
	size_t key_id_count;
	const uint8_t *policy, *image_policy;
	const char *platform;
	const char *message;
	const char *outcome;		     /* of a reload */
	const char *capabilities, *unneeded; /* names with blanks between them */
	size_t count;
	int64_t started; /* of log__clock(); gives durationUs */
};

/* Set the program's name in lines for people; the default is verify-and-load. */
void log__set_program(const char *name);

/* Write lines for people instead of JSON. */
void log__set_human(bool human);
bool log__is_human(void);

/*
 * Bound the rate of lines from now on (true), or no longer (false), so that repeated lines cannot fill a
 * disk. A line of the event suppressed counts the omitted lines. From the first call on, the loader also
 * omits a line that a stalled reader does not accept, because waiting would delay the end.
 */
void log__bound(bool bounded);

/* Call @observer for every line, omitted ones included, with its duration in microseconds. */
void log__set_observer(void (*observer)(const struct log_line *line, int64_t duration));

/* Write the line to stderr in one system call. */
void log__write(const struct log_line *line);

/* Write a fault as a line of the event error; returns its exit code. */
int log__fail(const struct fault *fault);

/* Return monotonic microseconds, never 0. */
int64_t log__clock(void);

#endif
