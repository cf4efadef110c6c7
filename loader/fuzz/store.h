/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FUZZ_STORE_H
#define FUZZ_STORE_H

#include "verify/trust.h"

/* Read a trust store from a public key or a policy. Returns the result of truststore__parse(). */
int store__read(struct trust *trust, const uint8_t *data, size_t size, bool is_key, struct fault *fault);

#endif
