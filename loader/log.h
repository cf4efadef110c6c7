/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_LOG_H
#define LOADER_LOG_H

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
	const uint8_t *policy;
	const char *platform;
	const char *message;
	int64_t started; /* of log__clock(); gives durationUs */
};

/* For people instead of JSON. */
void log__set_human(bool human);

/* Write the line to stderr, in one system call. */
void log__write(const struct log_line *line);

/* Monotonic microseconds, never 0. */
int64_t log__clock(void);

#endif
