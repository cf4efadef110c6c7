// SPDX-License-Identifier: Apache-2.0
#include "verify/verdict.h"

#include "base/fault.h"
#include "verify/statement.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

const char *verdict__word(enum reason reason)
{
	static const char *const words[] = {
		[REASON_NONE] = NULL,
		[REASON_UNSIGNED] = "unsigned",
		[REASON_MALFORMED] = "malformed",
		[REASON_UNKNOWN_KEY] = "unknown-key",
		[REASON_BAD_SIGNATURE] = "bad-signature",
		[REASON_DIGEST_MISMATCH] = "digest-mismatch",
		[REASON_WRONG_PLATFORM] = "wrong-platform",
		[REASON_EXPIRED] = "expired",
		[REASON_NOT_YET_VALID] = "not-yet-valid",
		[REASON_ROLLED_BACK] = "rolled-back",
		[REASON_BELOW_THRESHOLD] = "below-threshold",
		[REASON_REVOKED] = "revoked",
		[REASON_DENIED_BY_POLICY] = "denied-by-policy",
		[REASON_TOO_LARGE] = "too-large",
	};

	return words[reason];
}

int verdict__refuse(struct verdict *v, enum reason reason, const char *format, ...)
{
	va_list args;

	v->reason = reason;
	va_start(args, format);
	vsnprintf(v->fault.text, sizeof(v->fault.text), format, args);
	va_end(args);
	return -EKEYREJECTED;
}

void verdict__free(struct verdict *v)
{
	statement__free(&v->statement);
}
