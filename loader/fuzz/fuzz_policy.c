// SPDX-License-Identifier: Apache-2.0
/* libFuzzer: trust stores. The first byte selects whether the rest is a public key file or a policy. */
#include "store.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fault fault = { 0 };
	struct trust trust;
	int err;

	if (!size)
		return 0;
	err = store__read(&trust, data + 1, size - 1, data[0] & 1, &fault);
	/* A store is complete, or refused with a text. */
	if (err ? !fault.usage || !fault.text[0] || trust.key_count : !trust.key_count || !trust.threshold)
		abort();
	for (size_t i = 0; !err && i < trust.key_count; i++) {
		if (trust__find(&trust, trust.keys[i].id) != &trust.keys[i])
			abort();
	}
	if (!err)
		trust__free(&trust);
	return 0;
}
