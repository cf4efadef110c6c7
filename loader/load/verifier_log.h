/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_LOAD_VERIFIER_LOG_H
#define LOADER_LOAD_VERIFIER_LOG_H

#include "base/fault.h"

#include <stddef.h>

/* Listen to libbpf, and forget what it and the kernel have said. */
void verifier_log__begin(void);

/* Where the kernel's verifier is to write what it thinks of a program. */
char *verifier_log__buffer(size_t *size);

/* What libbpf said first, or the text of @err. */
const char *verifier_log__warning(int err);

/*
 * Say why loading failed with @err: the program, what the verifier objects to, and where: the line of C and
 * the instruction. For people, the log's last lines are written first. Returns @err with the text set.
 */
int verifier_log__explain(const char *object, int err, struct fault *fault);

#endif
