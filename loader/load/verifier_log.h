/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_LOAD_VERIFIER_LOG_H
#define LOADER_LOAD_VERIFIER_LOG_H

#include "base/fault.h"

#include <stddef.h>

/* Collect libbpf's warnings from now on, and clear both logs. */
void verifier_log__begin(void);

/* Return the buffer for the log of the kernel verifier. */
char *verifier_log__buffer(size_t *size);

/* Return libbpf's first warning, or the text of @err. */
const char *verifier_log__warning(int err);

/*
 * Set the text for a load that failed with @err: the program, the verifier's objection, the line of C and the
 * instruction. If the objection is about a capability, the fault names it. With --log human, write the last
 * lines of the log first. Returns @err.
 */
int verifier_log__explain(const char *object, int err, struct fault *fault);

#endif
