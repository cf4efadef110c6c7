/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SHA-256 by OpenSSL, which uses the processor's instructions for it. On s390x, OpenSSL's detection of the
 * processor links most of libcrypto (5 MB), so libsodium computes the hash there, and wherever
 * SHA256_BY_SODIUM is defined.
 */
#ifndef LOADER_BASE_SHA256_H
#define LOADER_BASE_SHA256_H

#if defined(__s390x__) || defined(SHA256_BY_SODIUM)
#include <sodium.h>
#define SHA256_CTX			 crypto_hash_sha256_state
#define SHA256_Init(state)		 crypto_hash_sha256_init(state)
#define SHA256_Update(state, data, size) crypto_hash_sha256_update(state, (const void *)(data), size)
#define SHA256_Final(digest, state)	 crypto_hash_sha256_final(state, digest)
#else
/* The deprecated low-level functions need neither heap nor provider, so the linker adds only these. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/sha.h>
#endif

#include <stddef.h>
#include <stdint.h>

#define SHA256_SIZE 32

static inline void sha256__hash(uint8_t digest[SHA256_SIZE], const void *data, size_t size)
{
	SHA256_CTX state;

	SHA256_Init(&state);
	SHA256_Update(&state, data, size);
	SHA256_Final(digest, &state);
}

#endif
