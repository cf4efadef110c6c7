/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_LOAD_SWITCH_H
#define LOADER_LOAD_SWITCH_H

#include "base/fault.h"
#include "load/internal.h"

/* Attach each program, or update its existing link. */
int switch__all(struct load *load, struct fault *fault);

/* Restore the old attachments, except those of committed objects. */
void switch__undo(struct load *load);

/* Detach the attachments that the new set does not have. A failure leaves one attached, and is reported. */
void switch__settle(struct load *load);

#endif
