/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_CONFINE_H
#define LOADER_RUN_CONFINE_H

#include "base/fault.h"

#include <stdint.h>
#include <sys/types.h>

struct options;

/* What a program that the loader starts must not do, though it may be of the loader's user. */
struct confinement {
	const char *hidden[3]; /* directories of pins, up to a NULL: hidden from a program of our user */
	bool seccomp;
	bool has_user; /* another user than ours */
	uid_t uid;
	gid_t gid;
	uint64_t keep; /* capabilities of a workload that loads programs itself */
	pid_t loader;  /* which watches over it, so that it must outlive it; or 0 */
};

/*
 * The confinement that the options ask for, of a program below @loader or, for 0, in its place. Returns 0; or
 * -EPERM or -EINVAL with the text set when this kernel, or these options, cannot keep it away from the pins.
 */
int confine__plan(struct confinement *confinement, const struct options *options, pid_t loader,
		  struct fault *fault);

/* The capabilities, as a mask, that it takes from a loader to start a program and to send signals to it. */
uint64_t confine__needs(const struct confinement *confinement);

/* Give up user, capabilities and all else, for good. Only execve follows. */
int confine__enter(const struct confinement *confinement, struct fault *fault);

#endif
