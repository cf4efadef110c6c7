/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_LISTING_H
#define LOADER_RUN_LISTING_H

#include "base/fault.h"
#include "run/options.h"

#define LISTING_NEEDS_ROOT "no directory of pins; use --pin-root DIR or --share DIR"

/*
 * Print the pins below --pin-root and --share, for the commands list and status. Returns 0, or a negative
 * errno with the text set. status returns -ENOLINK if an attachment of a record is missing.
 */
int listing__show(const struct options *options, struct fault *fault);

#endif
