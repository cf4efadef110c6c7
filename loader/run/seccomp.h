/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_SECCOMP_H
#define LOADER_RUN_SECCOMP_H

#include "base/fault.h"

#include <stdbool.h>
#include <sys/types.h>

/*
 * Filter the calls of this process and of all that it starts. Denied are bpf(2) except on elements of maps,
 * typing into the terminal (TIOCSTI), and limits of other processes. With @loader, not 0, signals to that
 * process are denied, too; with @hides_pins, user namespaces. Returns 0 or a negative errno with the text
 * set.
 */
int seccomp__restrict(pid_t loader, bool hides_pins, struct fault *fault);

#endif
