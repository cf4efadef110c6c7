/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_METRICS_H
#define LOADER_RUN_METRICS_H

#include "base/log.h"
#include "load/load.h"

/* Counters and gauges of docs/reference/metrics.md, for the file of --metrics-file; none without a path. */
void metrics__begin(const char *path);

/* Count what a decision line says. */
void metrics__observe(const struct log_line *line, int64_t duration);

/* What is in the kernel now; NULL: nothing. */
void metrics__set_load(const struct load *load);

/* Replace the file, so that a reader sees the old one or the new one. 0 or a negative errno with the text
 * set. */
int metrics__write(struct fault *fault);

#endif
