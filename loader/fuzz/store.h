/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FUZZ_STORE_H
#define FUZZ_STORE_H

#include "verify/trust.h"

/* Read the bytes as the trust store's file: a public key, or else a policy. Answers as truststore__parse()
 * does. */
int store__read(struct trust *trust, const uint8_t *data, size_t size, bool is_key, struct fault *fault);

#endif
