/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_NEEDS_H
#define LOADER_RUN_NEEDS_H

#include "verify/statement.h"

/*
 * Return the capabilities that loading and attaching requires by the statement's programs, maps and helpers,
 * as a mask.
 */
uint64_t needs__capabilities(const struct statement *statement);

#endif
