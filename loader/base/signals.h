/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_BASE_SIGNALS_H
#define LOADER_BASE_SIGNALS_H

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

#define SIGNALS_MAX_FDS 4

/*
 * Block signals, so that none is lost while objects are loaded; signals__wait() then takes them. Without
 * @supervise these are SIGTERM, SIGINT and SIGHUP, with @supervise all that can be passed on to a workload.
 */
void signals__block(bool supervise);

/* Restore the signal mask of the loader's start, before a process executes another program. */
void signals__restore(void);

/*
 * Wait for one of the blocked signals and take it, or until one of at most SIGNALS_MAX_FDS descriptors has an
 * event. Returns the number of the signal, or 0 for a descriptor.
 */
int signals__wait_or(const struct pollfd *fds, size_t count);

/* Take a pending SIGHUP; returns false without one, and does not wait. */
bool signals__take_hangup(void);

/* Return whether SIGTERM or SIGINT is pending; the signal stays pending. */
bool signals__stop_is_pending(void);

#endif
