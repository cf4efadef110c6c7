/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_NEEDS_H
#define LOADER_RUN_NEEDS_H

#include "run/options.h"
#include "verify/statement.h"

/*
 * Return the capabilities that loading and attaching requires, as a mask: by the types of the programs of the
 * object in @file that are loaded with these options, and by all of its maps and helpers.
 */
uint64_t needs__capabilities(const struct statement *statement, const char *file,
			     const struct options *options);

#endif
