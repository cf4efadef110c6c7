/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_VERIFY_CODE_H
#define LOADER_VERIFY_CODE_H

#include "verify/object.h"
#include "verify/statement.h"
#include "verify/trust.h"

/*
 * Check rules 4 to 8 of step 12 (spec/trust-policy.md) by the instructions of the code. Returns 0, or
 * -EKEYREJECTED with the text set.
 */
int code__check(const struct object *object, const struct trust *trust, const struct statement *statement,
		struct fault *fault);

#endif
