/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_BASE_CAPABILITIES_H
#define LOADER_BASE_CAPABILITIES_H

#include <stdint.h>

#define CAPABILITIES_TEXT_SIZE 640

/* A set of capabilities is a mask: bit n is capability n of <linux/capability.h>. */

/* Those of @needed that @held has not, knowing that the kernel takes CAP_SYS_ADMIN for them. */
uint64_t capabilities__missing(uint64_t needed, uint64_t held);

/* The mask of names with commas between them, each with or without CAP_. Returns 0 or -EINVAL. */
int capabilities__parse(const char *list, uint64_t *mask);

/* Their names with blanks between them, each after @prefix. */
void capabilities__format(uint64_t mask, const char *prefix, char text[CAPABILITIES_TEXT_SIZE]);

#endif
