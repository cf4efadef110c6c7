/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_NEEDS_H
#define LOADER_RUN_NEEDS_H

#include "verify/statement.h"

/* The capabilities that loading and attaching what a statement lists takes, as a mask. */
uint64_t needs__capabilities(const struct statement *statement);

#endif
