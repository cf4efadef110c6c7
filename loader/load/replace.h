/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_LOAD_REPLACE_H
#define LOADER_LOAD_REPLACE_H

#include "base/fault.h"
#include "load/internal.h"

/* Programs of freplace: each replaces a function of a program of another object of the same load. */

/* Let libbpf load programs of freplace by the targets of replace__bind(); before an object is opened. */
int replace__take_over(struct fault *fault);

/* Return whether a program of the unit is one of freplace, so that the unit is loaded after the others. */
bool replace__has_programs(const struct load *load, const struct unit *unit);

/* Check that the options of the load suit programs of freplace. */
int replace__check(const struct load *load, struct fault *fault);

/* Give the programs of freplace of a unit their targets, which are loaded; before the unit is loaded. */
int replace__bind(const struct load *load, const struct unit *unit, struct fault *fault);

#endif
