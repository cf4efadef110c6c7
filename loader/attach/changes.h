/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_ATTACH_CHANGES_H
#define LOADER_ATTACH_CHANGES_H

#include "base/fault.h"

#include <poll.h>

#define CHANGES_COUNT 3

/*
 * Descriptors that become readable when targets may have gone or come: interfaces of this network namespace
 * (netlink), entries beside watched paths (inotify), and mounts of namespaces. -1: not open.
 */
struct changes {
	struct pollfd fds[CHANGES_COUNT];
};

/* Open the descriptor for interfaces. Returns 0 or a negative errno with the text set. */
int changes__open(struct changes *changes, struct fault *fault);

/*
 * Watch the directories above a path, as far as they exist and are of one file system; @changes is a struct
 * changes. A path that cannot be watched is looked at when another descriptor becomes readable.
 */
void changes__watch(void *changes, const char *path);

/* Take all news, so that the descriptors are readable only for later ones. */
void changes__take(struct changes *changes);
void changes__close(struct changes *changes);

#endif
