/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_ATTACH_PLAN_H
#define LOADER_ATTACH_PLAN_H

#include "attach/point.h"
#include "base/fault.h"

/*
 * Find the points of the program's @target (NULL without one) before anything is loaded, and prepare the
 * program for them. Returns their number (0: load only), -EINVAL for a wrong target (a usage fault),
 * -EKEYREJECTED if the policy denies the target, -EINTR after a signal during the wait, or another negative
 * errno for a missing target. @target must outlive the points.
 */
int plan__program(struct bpf_object *object, struct bpf_program *program, const char *target,
		  const struct attach_options *options, struct attach_point *points, size_t room,
		  struct fault *fault);

/* Return whether the program cannot be attached without a target, which its section does not have. */
bool plan__needs_target(const struct bpf_program *program);

/*
 * Find the points that the target of a known point means now: an interface, a cgroup or a network namespace
 * can be another one, or match a pattern, since then. Does not wait, and changes no program. Returns the
 * number of points, or a negative errno for a missing target.
 */
int plan__again(const struct attach_point *known, struct attach_point *points, size_t room,
		struct fault *fault);

/* Find the point of a struct_ops map in the same way; other maps have no point. */
int plan__map(struct bpf_map *map, const char *target, struct attach_point *point, struct fault *fault);

#endif
