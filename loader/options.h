/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_OPTIONS_H
#define LOADER_OPTIONS_H

#include "load.h"

#define DEFAULT_OBJECTS	   "/usr/lib/buildtool/objects"
#define DEFAULT_TRUST	   "/etc/buildtool/trust"
#define DEFAULT_TRUST_HOST "/etc/buildtool/trust.host"
#define DEFAULT_STATE	   "/var/lib/buildtool/state"

struct options {
	const char *objects;
	const char *trust; /* NULL: the defaults */
	const char *state; /* NULL: the default, if it is there */
	struct attach_option attach[LOAD_MAX_OPTIONS];
	size_t attach_count;
	bool verify_only, help, version, human;
	const char *platform; /* NULL: this machine's */
	int64_t now;	      /* -1: the clock's */
	char **workload;      /* NULL or argv, ending in NULL */
};

/* Parse the command line, whose strings are cut in place. Returns 0 or -EINVAL. */
int options__parse(struct options *options, char **argv, struct fault *fault);

extern const char options__help[];

#endif
