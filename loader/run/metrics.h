/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_METRICS_H
#define LOADER_RUN_METRICS_H

#include "base/fault.h"
#include "base/log.h"
#include "load/load.h"

/*
 * Start the metrics of docs/reference/metrics.md, and open the directory of the file. Without a path, nothing
 * is counted or written. Returns 0, or a negative errno with the text set.
 */
int metrics__begin(const char *path, struct fault *fault);

/* Count a decision line. */
void metrics__observe(const struct log_line *line, int64_t duration);

/* Set the loaded set for the gauges; NULL: nothing is loaded. */
void metrics__set_load(const struct load *load);

/* Replace the file atomically. Returns 0, or a negative errno with the text set. */
int metrics__write(struct fault *fault);

#endif
