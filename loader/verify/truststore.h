/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_VERIFY_TRUSTSTORE_H
#define LOADER_VERIFY_TRUSTSTORE_H

#include "verify/trust.h"

#define TRUSTSTORE_KEY_MAX_BYTES    4096
#define TRUSTSTORE_POLICY_MAX_BYTES (1u << 20)

/* Make a trust store of spec/trust-policy.md from bytes. All but the first return 0 or a negative errno with
 * the text set; a store with an error is for trust__free() alone. */

/* Begin an empty store. */
void truststore__begin(struct trust *trust);

/* Add the key of a .pub file. */
int truststore__add_key(struct trust *trust, const uint8_t *data, size_t size, struct fault *fault);

/* Take the policy, and all of its keys. */
int truststore__add_policy(struct trust *trust, const uint8_t *data, size_t size, struct fault *fault);

/* Check that there is a key, and name the store by its digest. */
int truststore__finish(struct trust *trust, struct fault *fault);

/* The four steps for one file: a public key, or else a policy. A store with an error is freed, its giver
 * blamed. */
int truststore__parse(struct trust *trust, const uint8_t *data, size_t size, bool is_key,
		      struct fault *fault);

#endif
