/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_VERIFY_H
#define LOADER_VERIFY_H

#include "verify/statement.h"
#include "verify/trust.h"

/* In the order of spec/sig-section.md, section 8; the words are an API. */
enum reason {
	REASON_NONE,
	REASON_UNSIGNED,
	REASON_MALFORMED,
	REASON_UNKNOWN_KEY,
	REASON_BAD_SIGNATURE,
	REASON_DIGEST_MISMATCH,
	REASON_WRONG_PLATFORM,
	REASON_EXPIRED,
	REASON_NOT_YET_VALID,
	REASON_ROLLED_BACK,
	REASON_BELOW_THRESHOLD,
	REASON_REVOKED,
	REASON_DENIED_BY_POLICY,
	REASON_TOO_LARGE,
};

const char *reason__word(enum reason reason);

struct state;

struct verify_context {
	const struct trust *trust;
	const struct state *state;  /* NULL without a state directory */
	const struct state *pinned; /* what is pinned at the moment; or NULL */
	const char *platform;	    /* NULL for any */
	int64_t now;		    /* seconds since the epoch */
};

struct verdict {
	enum reason reason; /* REASON_NONE: accepted */
	struct fault fault;
	bool has_digest;
	uint8_t digest[DIGEST_SIZE];
	/* Accepted: the keys that counted. Refused: those that the record names. */
	const uint8_t *key_ids[SIG_MAX_COUNT];
	size_t key_id_count;
	struct statement statement;
};

/*
 * Section 7: verify one object. Key ids in the verdict borrow from @data.
 * Returns 0 (accepted), -EKEYREJECTED (refused, with reason and text) or -ENOMEM.
 */
int verify__object(const struct verify_context *context, const uint8_t *data, size_t size,
		   struct verdict *verdict);

/* Fill a verdict of refusal; returns -EKEYREJECTED. */
int verdict__refuse(struct verdict *verdict, enum reason reason, const char *text);
void verdict__free(struct verdict *verdict);

#endif
