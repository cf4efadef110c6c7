/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_LOAD_ATTACHMENTS_H
#define LOADER_LOAD_ATTACHMENTS_H

#include "base/fault.h"
#include "load/internal.h"

/* Plan the attachments of all objects' programs, before anything is loaded. */
int attachments__plan(struct load *load, struct fault *fault);

/*
 * Add a planned attachment, with a copy of its target. Returns 0, or a negative errno with the text set if
 * the kernel has no room for it beside another one.
 */
int attachments__add(struct load *load, const struct attachment *planned, struct fault *fault);

/* Return a hash that distinguishes texts and protects nothing. */
uint32_t attachments__hash(const char *text);

#endif
