/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_ATTACH_H
#define LOADER_ATTACH_H

#include "fault.h"

struct bpf_link;
struct bpf_program;

/* A target that means: load the program, attach it nowhere (a tail call's target, for example). */
#define ATTACH_NOWHERE "none"

/*
 * Check, before anything is loaded, that the program can take @target (NULL: none was given),
 * and prepare the program for it. Returns 0, -EINVAL with the configuration blamed, or another
 * negative errno when the target isn't there.
 */
int attach__check(struct bpf_program *program, const char *target, struct fault *fault);

/* True when nothing is to be attached. */
bool attach__is_nowhere(const struct bpf_program *program, const char *target);

/* Attach the loaded program. Returns 0 or a negative errno with the text set. */
int attach__program(struct bpf_program *program, const char *target, struct bpf_link **link,
		    struct fault *fault);

#endif
