/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_LOAD_ATTACHMENTS_H
#define LOADER_LOAD_ATTACHMENTS_H

#include "base/fault.h"
#include "load/internal.h"

/* Find out, before anything is loaded, where the programs of all objects are to be attached. */
int attachments__plan(struct load *load, struct fault *fault);

#endif
