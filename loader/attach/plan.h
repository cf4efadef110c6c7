/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_ATTACH_PLAN_H
#define LOADER_ATTACH_PLAN_H

#include "attach/point.h"
#include "base/fault.h"

/*
 * Find, before anything is loaded, the points that @target (NULL: none was given) means for the
 * program, and prepare the program for them. Returns their number (0: load only), -EINVAL with
 * the configuration blamed, -EKEYREJECTED when the policy denies it, -EINTR when a stop signal came
 * while waiting, or another negative errno when the target isn't there. @target must outlive the points.
 */
int plan__program(struct bpf_object *object, struct bpf_program *program, const char *target,
		  const struct attach_options *options, struct attach_point *points, size_t room,
		  struct fault *fault);

/* The same for a map: a struct_ops map is attached, any other gives 0 points. */
int plan__map(struct bpf_map *map, const char *target, struct attach_point *point, struct fault *fault);

#endif
