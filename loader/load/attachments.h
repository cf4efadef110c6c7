/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_LOAD_ATTACHMENTS_H
#define LOADER_LOAD_ATTACHMENTS_H

#include "base/fault.h"
#include "load/internal.h"

/* Plan the attachments of all objects' programs, before anything is loaded. */
int attachments__plan(struct load *load, struct fault *fault);

#endif
