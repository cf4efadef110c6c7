/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_LOAD_SWITCH_H
#define LOADER_LOAD_SWITCH_H

#include "base/fault.h"
#include "load/internal.h"

/* Get the program of each attachment to its place, in place of what is there. */
int switch__all(struct load *load, struct fault *fault);

/* Put back what was there before, except of objects that are committed. */
void switch__undo(struct load *load);

/* Take away what the new set has no place for. Failures leave something attached too much, and are said. */
void switch__settle(struct load *load);

#endif
