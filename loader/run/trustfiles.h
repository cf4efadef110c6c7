/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_TRUSTFILES_H
#define LOADER_RUN_TRUSTFILES_H

#include "verify/trust.h"

/*
 * Read a trust store: a directory, a .pub file or a policy. Returns 0, or a negative errno with a usage
 * fault.
 */
int trustfiles__read(struct trust *trust, const char *path, struct fault *fault);

#endif
