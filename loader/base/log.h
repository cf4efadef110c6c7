/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_BASE_LOG_H
#define LOADER_BASE_LOG_H

#include "base/fault.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One decision line of spec/decision-lines.md; members that don't apply are left zero. */
struct log_line {
	const char *event;
	const char *object, *program, *target;
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

/* The name before lines for people; verify-and-load without it. */
void log__set_program(const char *name);

/* For people instead of JSON. */
void log__set_human(bool human);
bool log__is_human(void);

/*
 * From now on lines may be left out when there are too many: what comes again and again must not fill
 * a disk. How many were left out is said. The lines of a start, and those of its end, are never, but from
 * the first call on nobody waits for a reader that has stalled: it would hold up the end.
 */
void log__bound(bool bounded);

/* Shown every line, also those that are left out, with its duration in microseconds. */
void log__set_observer(void (*observer)(const struct log_line *line, int64_t duration));

/* Write the line to stderr, in one system call. */
void log__write(const struct log_line *line);

/* Write the line of an error; returns its exit code. */
int log__fail(const struct fault *fault);

#define LOG_DATE_SIZE 32

/* Write YYYY-MM-DDTHH:MM:SS in UTC. */
void log__format_date(int64_t seconds, char text[LOG_DATE_SIZE]);

/* Monotonic microseconds, never 0. */
int64_t log__clock(void);

#endif
