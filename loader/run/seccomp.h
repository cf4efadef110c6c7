/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_SECCOMP_H
#define LOADER_RUN_SECCOMP_H

#include "base/fault.h"

#include <sys/types.h>

/*
 * A filter for this process and all that it starts: no call of bpf(2) but those on elements of maps; and with
 * a
 * @loader, or 0, no call that ends that process: no signal and no limit.
 * Returns 0 or a negative errno with the text set.
 */
int seccomp__restrict(pid_t loader, struct fault *fault);

#endif
