// SPDX-License-Identifier: Apache-2.0
/* The loader without libbpf, for builds with sanitizers: it verifies, and loads nothing. */
#include "../load.h"

#include <errno.h>

int load__start(struct load **load, const struct load_input *inputs, size_t count,
		const struct load_options *options, struct fault *fault)
{
	(void)inputs;
	(void)count;
	(void)options;
	*load = NULL;
	return fault__set(fault, -EOPNOTSUPP, "this build only verifies");
}

int load__keep_over_exec(const struct load *load, struct fault *fault)
{
	(void)load;
	return fault__set(fault, -EOPNOTSUPP, "this build only verifies");
}

void load__stop(struct load *load)
{
	(void)load;
}

const char *load__library_version(void)
{
	return "none";
}
