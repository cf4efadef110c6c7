/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_LOAD_SHARE_H
#define LOADER_LOAD_SHARE_H

#include "base/fault.h"

struct load;
struct unit;

/*
 * Programs and maps that many loaders use: below a directory, an entry for each object (its digest,
 * and what else decides about its programs), made by the first who needs it. Whoever uses one holds
 * a lock on it, which its workload inherits. Entries that nobody holds are taken away by the next
 * loader that makes one, or by the last user if that is a loader.
 */
int share__obtain(struct load *load, struct fault *fault);

/* Let go of the unit's entry, and take it away when we were the last. */
void share__release(struct unit *unit);

/* Whether somebody uses the entry of a directory. */
bool share__is_used(int directory, const char *entry);

/*
 * Take away the entries that nobody uses. The lock of the directory, whose path is @shown, is held by whoever
 * calls.
 */
int share__clean(int directory, const char *shown, struct fault *fault);

#endif
