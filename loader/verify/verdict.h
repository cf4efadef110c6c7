/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_VERIFY_VERDICT_H
#define LOADER_VERIFY_VERDICT_H

#include "base/fault.h"
#include "verify/object.h"
#include "verify/sig.h"
#include "verify/statement.h"

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

const char *verdict__word(enum reason reason);

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

/* Fill a verdict of refusal; returns -EKEYREJECTED. */
int verdict__refuse(struct verdict *verdict, enum reason reason, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void verdict__free(struct verdict *verdict);

#endif
