/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_PRIVILEGES_H
#define LOADER_RUN_PRIVILEGES_H

#include "base/fault.h"

#include <stdint.h>

/* A set of capabilities is a mask: bit n is capability n of <linux/capability.h>. */

/*
 * Make all permitted capabilities effective, because those of the loader's file are only permitted at first.
 * Returns the set, or 0 for none.
 */
uint64_t privileges__raise(void);

/*
 * Make no capability but @keep effective until privileges__raise(): files that will be written without the
 * others must be tried without them. A failure changes nothing.
 */
void privileges__lower(uint64_t keep);

/*
 * Return whether the capabilities of this process do not count for bpf(2), because they are those of a user
 * namespace.
 */
bool privileges__are_of_user_namespace(void);

/* Add to the fault which of the @needed capabilities are missing, and the remedy. */
void privileges__explain(uint64_t needed, struct fault *fault);

/*
 * Check that the workload's bounding set will have no more than @asked. The loader cannot empty the set
 * without CAP_SETPCAP. Returns 0, or -EPERM with the text set.
 */
int privileges__check_bounds(uint64_t asked, struct fault *fault);

/*
 * Drop all capabilities of this process except those of @keep. A child inherits the rest until it calls
 * privileges__drop().
 */
int privileges__keep(uint64_t keep, struct fault *fault);

/*
 * Check that this process may give capabilities to the program that it executes next. Returns 0, or -EPERM
 * with the text set.
 */
int privileges__check_hand_over(struct fault *fault);

/*
 * Keep exactly the capabilities of @keep, and give them to the program that this process executes next
 * (capabilities(7): inheritable and ambient sets). The bounding set loses all others, as far as CAP_SETPCAP
 * allows. no_new_privs keeps execve(2) from returning one. Returns 0 only after a check of the sets.
 */
int privileges__hand_over(uint64_t keep, struct fault *fault);

/*
 * Drop every capability for good: the ambient, inheritable, permitted and effective set, and the bounding set
 * as far as CAP_SETPCAP allows. no_new_privs keeps execve(2) from returning one. Returns 0 only after a check
 * that the sets are empty.
 */
int privileges__drop(struct fault *fault);

#endif
