/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_LISTING_H
#define LOADER_RUN_LISTING_H

#include "base/fault.h"
#include "run/options.h"

#define LISTING_NEEDS_ROOT "say --pin-root DIR or --share DIR: only what is pinned outlives its loader"

/*
 * list and status: print what is pinned below --pin-root and --share. Returns 0, or a negative errno with the
 * text set; for status also -ENOLINK when not everything is attached as its record says.
 */
int listing__show(const struct options *options, struct fault *fault);

#endif
