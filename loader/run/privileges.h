/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_PRIVILEGES_H
#define LOADER_RUN_PRIVILEGES_H

#include "base/fault.h"

#include <stdint.h>

/* A set of capabilities is a mask: bit n is capability n of <linux/capability.h>. */

/*
 * Make all permitted capabilities effective: those of a file are only permitted at first.
 * Returns the set, or 0 when there is none.
 */
uint64_t privileges__raise(void);

/* Add to a fault of the kernel's which of the @needed capabilities aren't here, and what to do. */
void privileges__explain(uint64_t needed, struct fault *fault);

/*
 * Check that what is started later has no more than @asked in its bounding set: without CAP_SETPCAP it
 * can't be emptied. Returns 0, or -EPERM with the text set.
 */
int privileges__check_bounds(uint64_t asked, struct fault *fault);

/*
 * Keep no capability but those of @keep that are there, for as long as this process runs; whatever it
 * starts keeps them only until privileges__drop().
 */
int privileges__keep(uint64_t keep, struct fault *fault);

/*
 * Give up every capability for good: ambient, bounding (as far as CAP_SETPCAP allows),
 * inheritable, permitted and effective set, and no_new_privs, which keeps execve from giving
 * any back. Returns 0 only when it has looked and none is left.
 */
int privileges__drop(struct fault *fault);

#endif
