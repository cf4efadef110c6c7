/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_VERIFY_TRUSTSTORE_H
#define LOADER_VERIFY_TRUSTSTORE_H

#include "verify/trust.h"

#define TRUSTSTORE_KEY_MAX_BYTES    4096
#define TRUSTSTORE_POLICY_MAX_BYTES (1u << 20)

/*
 * Make a trust store of spec/trust-policy.md from bytes. Each function but the first returns 0, or a negative
 * errno with the text set. After an error, only trust__free() may use the store.
 */

/* Make an empty store. */
void truststore__begin(struct trust *trust);

/* Add the key of a .pub file. */
int truststore__add_key(struct trust *trust, const uint8_t *data, size_t size, struct fault *fault);

/* Add a policy and all of its keys. */
int truststore__add_policy(struct trust *trust, const uint8_t *data, size_t size, struct fault *fault);

/* Check that the store has a key, and compute its digest. */
int truststore__finish(struct trust *trust, struct fault *fault);

/*
 * Make a store from one file, a public key or a policy. After an error the store is freed, with a usage
 * fault.
 */
int truststore__parse(struct trust *trust, const uint8_t *data, size_t size, bool is_key,
		      struct fault *fault);

#endif
