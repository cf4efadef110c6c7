/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_BASE_SIGNALS_H
#define LOADER_BASE_SIGNALS_H

#include <signal.h>
#include <stdbool.h>

/*
 * Signals are blocked from the start, so that none gets lost while we load, and waited for. Those that
 * stop us and SIGHUP always; all that can be passed on, when @supervise.
 */
void signals__block(bool supervise);

/* Give a process that is about to become another program what we began with. */
void signals__restore(void);

/* Take one of the blocked signals, waiting for it. */
int signals__wait(void);

/* Take SIGHUP if it has come; without waiting. */
bool signals__take_hangup(void);

/* Whether SIGTERM or SIGINT has come; it stays pending. */
bool signals__stop_is_pending(void);

#endif
