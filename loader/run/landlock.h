/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_LANDLOCK_H
#define LOADER_RUN_LANDLOCK_H

#include "base/fault.h"

/* Landlock: what this process and all that it starts can never do again, without any privilege. */

/* Whether this kernel can keep a process away from directories: since Linux 5.19, if it is enabled. */
bool landlock__hides_directories(void);

/* Whether it can keep a process from sending signals to others: since Linux 6.12. */
bool landlock__scopes_signals(void);

struct landlock {
	const char *const *hidden; /* directories of BPF file systems; or NULL, then nothing is hidden */
	bool scope_signals;	   /* if the kernel can */
};

/*
 * Hide each BPF file system that is mounted and the directories of @hidden, up to a NULL: nothing in them can
 * be opened, listed, made, removed or renamed. Landlock has no rule that denies, so all else is allowed by
 * name, and in the directories above them nothing new can be made. no_new_privs is set before. Returns 0 or a
 * negative errno with the text set.
 */
int landlock__restrict(const struct landlock *wanted, struct fault *fault);

#endif
