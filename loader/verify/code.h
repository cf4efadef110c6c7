/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_VERIFY_CODE_H
#define LOADER_VERIFY_CODE_H

#include "verify/object.h"
#include "verify/statement.h"
#include "verify/trust.h"

/*
 * Rules 4 to 8 of step 12 (spec/trust-policy.md): what the policy says of the code, decided by the
 * instructions. Returns 0, or -EKEYREJECTED with the text set.
 */
int code__check(const struct object *object, const struct trust *trust, const struct statement *statement,
		struct fault *fault);

#endif
