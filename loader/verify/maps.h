/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_VERIFY_MAPS_H
#define LOADER_VERIFY_MAPS_H

#include "verify/object.h"
#include "verify/trust.h"

/*
 * What rules 4 to 6 of step 12 (spec/trust-policy.md) say of maps that act beyond their object: those of
 * struct_ops, and those that libbpf pins by name. Returns 0, -EKEYREJECTED with the text set, or -ENOMEM.
 */
int maps__check(const struct object *object, const struct trust *trust, struct fault *fault);

#endif
