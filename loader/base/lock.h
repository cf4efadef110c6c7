/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_BASE_LOCK_H
#define LOADER_BASE_LOCK_H

#include "base/fault.h"

/*
 * Bound every wait from now on. A loader waits for other loaders as long as they take; a command of an
 * operator must not hang on a process that never gives the lock back.
 */
void lock__set_bounded(void);

/*
 * Take the exclusive lock of the directory @fd, which lasts until @fd is closed; @path is its path for
 * messages. Another loader can hold the lock until its health command ends. A line of the event wait names
 * the holder after a moment. Returns 0 or a negative errno with the text set: -EINTR after a signal to stop,
 * and -ETIMEDOUT at the end of a bounded wait.
 */
int lock__take(int fd, const char *path, struct fault *fault);

#endif
