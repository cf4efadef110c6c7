/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_SECCOMP_H
#define LOADER_RUN_SECCOMP_H

#include "base/fault.h"

/*
 * Deny bpf(2) to this process and all that it starts, but for reading and writing the elements of
 * maps whose descriptors it has. Needs no_new_privs. Returns 0 or a negative errno with the text set.
 */
int seccomp__deny_bpf(struct fault *fault);

#endif
