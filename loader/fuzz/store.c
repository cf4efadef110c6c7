// SPDX-License-Identifier: Apache-2.0
#include "store.h"

#include "verify/truststore.h"

#include <stdlib.h>
#include <string.h>

/* Use a buffer of exactly the data's size, so that a sanitizer finds a read past the end. */
int store__read(struct trust *t, const uint8_t *data, size_t size, bool is_key, struct fault *fault)
{
	uint8_t *copy = malloc(size ? size : 1);
	int err;

	if (!copy)
		abort();
	memcpy(copy, data, size);
	err = truststore__parse(t, copy, size, is_key, fault);
	free(copy);
	return err;
}
