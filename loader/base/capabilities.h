/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_BASE_CAPABILITIES_H
#define LOADER_BASE_CAPABILITIES_H

#include <stdint.h>

#define CAPABILITIES_TEXT_SIZE 640

/* A set of capabilities is a mask: bit n is capability n of <linux/capability.h>. */

/* Return the capabilities of @needed that @held lacks. CAP_SYS_ADMIN includes all that bpf(2) needs. */
uint64_t capabilities__missing(uint64_t needed, uint64_t held);

/* Return the effective capabilities of this process. */
uint64_t capabilities__held(void);

/* Parse names separated by commas, each with or without CAP_, to a mask. Returns 0 or -EINVAL. */
int capabilities__parse(const char *list, uint64_t *mask);

/* Write the names of a mask, separated by blanks, each with @prefix. */
void capabilities__format(uint64_t mask, const char *prefix, char text[CAPABILITIES_TEXT_SIZE]);

#endif
