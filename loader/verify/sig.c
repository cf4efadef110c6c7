// SPDX-License-Identifier: Apache-2.0
#include "verify/sig.h"

#include "base/fault.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIG_HEADER_SIZE	  32
#define SIG_ENTRY_SIZE	  96
#define SIG_UNIT	  1024
#define SIG_MAX_SECTION	  524288
#define SIG_MAX_STATEMENT 262144
#define SIG_RESERVED	  4 /* a record always has room for this many signatures */

static const uint8_t sig_magic[8] = { 0x7f, 'B', 'P', 'F', 'S', 'I', 'G', 0 };

static uint32_t get_le32(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static int parse_entries(struct sig_record *r, const uint8_t *data, struct fault *fault)
{
	const uint8_t *p = data + SIG_HEADER_SIZE + r->statement_size;

	for (size_t i = 0; i < r->count; i++, p += SIG_ENTRY_SIZE) {
		r->entries[i].key_id = p;
		r->entries[i].signature = p + SIG_KEY_ID_SIZE;
		if (i && memcmp(r->entries[i - 1].key_id, p, SIG_KEY_ID_SIZE) >= 0)
			return fault__set(fault, -EINVAL, "signature record: key ids not ascending");
	}
	return 0;
}

int sig__parse(struct sig_record *r, const uint8_t *data, size_t size, struct fault *fault)
{
	size_t used;

	*r = (struct sig_record){ 0 };
	if (size < SIG_HEADER_SIZE || memcmp(data, sig_magic, sizeof(sig_magic)))
		return fault__set(fault, -EINVAL, "signature record: wrong magic");
	if (get_le32(data + 8) != 1)
		return fault__set(fault, -EINVAL, "signature record: unknown version %u", get_le32(data + 8));
	if (get_le32(data + 12) != size || size % SIG_UNIT || size > SIG_MAX_SECTION)
		return fault__set(fault, -EINVAL, "signature record: wrong section size");
	r->statement_size = get_le32(data + 16);
	r->count = get_le32(data + 20);
	if (r->statement_size < 1 || r->statement_size > SIG_MAX_STATEMENT)
		return fault__set(fault, -EINVAL, "signature record: wrong statement size");
	if (r->count < 1 || r->count > SIG_MAX_COUNT)
		return fault__set(fault, -EINVAL, "signature record: wrong signature count");
	if (!sodium_is_zero(data + 24, 8))
		return fault__set(fault, -EINVAL, "signature record: reserved bytes not zero");

	/* At most 32 + 262144 + 16 * 96: no sum here can wrap. */
	used = SIG_HEADER_SIZE + r->statement_size + r->count * SIG_ENTRY_SIZE;
	if (size < used || size < SIG_HEADER_SIZE + r->statement_size + SIG_RESERVED * SIG_ENTRY_SIZE)
		return fault__set(fault, -EINVAL, "signature record: section too small");
	if (!sodium_is_zero(data + used, size - used))
		return fault__set(fault, -EINVAL, "signature record: padding not zero");
	r->statement = data + SIG_HEADER_SIZE;
	return parse_entries(r, data, fault);
}

int sig__signing_input(const struct sig_record *r, uint8_t **input, size_t *size)
{
	char head[64];
	int n = snprintf(head, sizeof(head), "DSSEv1 28 application/vnd.in-toto+json %zu ",
			 r->statement_size);

	*size = (size_t)n + r->statement_size;
	*input = malloc(*size);
	if (!*input)
		return -ENOMEM;
	memcpy(*input, head, (size_t)n);
	memcpy(*input + n, r->statement, r->statement_size);
	return 0;
}

/* No sodium_init(): it seeds random numbers and selects ciphers, and verification uses neither. */
bool sig__key_is_strict(const uint8_t key[SIG_PUBLIC_KEY_SIZE])
{
	return crypto_core_ed25519_is_valid_point(key) == 1;
}

/*
 * Return whether libsodium itself checks that R is a canonical point of prime order (section 5). libsodium
 * checks that S < L, that R is not of small order, and the equation. Up to 1.0.18 (library version 10.3) it
 * compares the bytes of R with those of [S]B - [k]A. With A of prime order (sig__key_is_strict), only
 * canonical points of prime order pass. Later versions multiply by the cofactor, so sig__verify() checks R.
 * The vectors mixed-order-r and non-canonical-r prove both. The version is that of the running library, which
 * can differ from the headers.
 */
static bool sodium_compares_r(void)
{
	return sodium_library_version_major() == 10 && sodium_library_version_minor() <= 3;
}

bool sig__verify(const uint8_t *signature, const uint8_t *input, size_t size,
		 const uint8_t key[SIG_PUBLIC_KEY_SIZE])
{
	return crypto_sign_verify_detached(signature, input, size, key) == 0 &&
	       (sodium_compares_r() || crypto_core_ed25519_is_valid_point(signature) == 1);
}
