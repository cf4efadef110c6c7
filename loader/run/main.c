// SPDX-License-Identifier: Apache-2.0
#include "base/arch.h"
#include "base/log.h"
#include "base/signals.h"
#include "base/version.h"
#include "load/load.h"
#include "run/commands.h"
#include "run/options.h"
#include "run/run.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

/* A file that is opened in the place of a closed one would get our lines. */
static void open_standard_streams(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
		if (fcntl(fd, F_GETFD) < 0)
			open("/dev/null", O_RDWR); /* takes the lowest free number, which is this one */
	}
}

int main(int argc, char **argv)
{
	struct fault fault = { 0 };
	struct options options;

	(void)argc;
	open_standard_streams();
	signals__block(false);
	if (options__parse(&options, argv, &fault))
		return log__fail(&fault);
	log__set_human(options.human);
	if (options.help)
		return fputs(options__help, stdout) < 0 || fflush(stdout) ? EXIT_FAILED : EXIT_DONE;
	if (options.version)
		return printf("verify-and-load %s (%s, libbpf %s)\n", LOADER_VERSION, PLATFORM,
			      load__library_version()) < 0;
	return options.command == COMMAND_RUN ? run__all(&options) : commands__run(&options);
}
