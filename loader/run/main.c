// SPDX-License-Identifier: Apache-2.0
#include "base/arch.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/log.h"
#include "base/signals.h"
#include "base/version.h"
#include "load/load.h"
#include "run/listing.h"
#include "run/options.h"
#include "run/run.h"

#include <stdio.h>

/* What a container's start needs, and its health check; the other commands change what is attached. */
static int run_command(struct options *o)
{
	struct fault fault = { 0 };

	if (o->command == COMMAND_RUN)
		return run__all(o);
	if (o->command == COMMAND_STATUS)
		return listing__show(o, &fault) ? log__fail(&fault) : EXIT_DONE;
	fault__usage(&fault, "%s is a command of ebpf-pins", options__command(o));
	return log__fail(&fault);
}

int main(int argc, char **argv)
{
	struct fault fault = { 0 };
	struct options options;

	(void)argc;
	file__open_standard_streams();
	signals__block(false);
	log__set_human(options__ask_human(argv));
	if (options__parse(&options, argv, &fault))
		return log__fail(&fault);
	log__set_human(options.human);
	if (options.help)
		return fputs(options__help, stdout) < 0 || fflush(stdout) ? EXIT_FAILED : EXIT_DONE;
	if (options.version)
		return printf("verify-and-load %s (%s, libbpf %s)\n", LOADER_VERSION, PLATFORM,
			      load__library_version()) < 0;
	return run_command(&options);
}
