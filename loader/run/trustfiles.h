/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_TRUSTFILES_H
#define LOADER_RUN_TRUSTFILES_H

#include "verify/trust.h"

/*
 * Read a trust store: a directory, a .pub file or a policy. Returns 0, or a negative errno with a usage
 * fault.
 */
int trustfiles__read(struct trust *trust, const char *path, struct fault *fault);

/*
 * Read the image's store @path, whose rules for objects hold beside those of @host. Keys, threshold, clock
 * and rollback are the host's alone, but a key that the image's policy revokes is revoked. Returns 1 when
 * there are rules, 0 when there are none, or a negative errno with the text set. To be freed in any case.
 */
int trustfiles__read_image(struct trust *rules, const struct trust *host, const char *path,
			   struct fault *fault);

#endif
