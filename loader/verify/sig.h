/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_VERIFY_SIG_H
#define LOADER_VERIFY_SIG_H

#include "base/fault.h"

#include <stddef.h>
#include <stdint.h>

#define SIG_MAX_COUNT	    16
#define SIG_KEY_ID_SIZE	    32
#define SIG_PUBLIC_KEY_SIZE 32

/* One signature of a record; both borrow the record's bytes. */
struct sig_entry {
	const uint8_t *key_id;
	const uint8_t *signature;
};

/* The signature record of spec/sig-section.md, section 2. Borrows the section's bytes. */
struct sig_record {
	const uint8_t *statement;
	size_t statement_size;
	size_t count;
	struct sig_entry entries[SIG_MAX_COUNT];
};

/* Parse a record. Returns 0, or -EINVAL with the text set. */
int sig__parse(struct sig_record *record, const uint8_t *data, size_t size, struct fault *fault);

/* Make the signing input (section 4); the caller frees it. Returns 0 or -ENOMEM. */
int sig__signing_input(const struct sig_record *record, uint8_t **input, size_t *size);

/* Check the rule for the public key A (section 5). */
bool sig__key_is_strict(const uint8_t key[SIG_PUBLIC_KEY_SIZE]);

/* Verify a signature strictly (section 5); @key has passed sig__key_is_strict(). */
bool sig__verify(const uint8_t *signature, const uint8_t *input, size_t size,
		 const uint8_t key[SIG_PUBLIC_KEY_SIZE]);

#endif
