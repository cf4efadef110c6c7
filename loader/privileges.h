/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_PRIVILEGES_H
#define LOADER_PRIVILEGES_H

#include "fault.h"

/*
 * Give up every capability for good: ambient, bounding (as far as CAP_SETPCAP allows),
 * inheritable, permitted and effective set, and no_new_privs, which keeps execve from giving
 * any back. Returns 0 only when it has looked and none is left.
 */
int privileges__drop(struct fault *fault);

#endif
