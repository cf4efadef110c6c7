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

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define MAX_ARGUMENTS 32

#define PINS_NAME "ebpf-pins"

/* An image's entrypoint is this program; the other one, beside it, has the commands that change pins. */
static int become_pins(const struct options *o)
{
	char path[PATH_MAX], *slash;
	struct fault fault = { 0 };
	const char *argv[MAX_ARGUMENTS + 6] = { PINS_NAME };
	ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - sizeof(PINS_NAME));
	size_t count = 1;

	for (char **from = o->arguments; *from && count <= MAX_ARGUMENTS; from++)
		argv[count++] = *from;
	/* What the entrypoint says of them, if the command does not. */
	if (o->pin_root)
		argv[count++] = "--pin-root", argv[count++] = o->pin_root;
	if (o->share)
		argv[count++] = "--share", argv[count++] = o->share;
	path[length > 0 ? length : 0] = 0;
	slash = strrchr(path, '/');
	if (slash && count < MAX_ARGUMENTS) {
		memcpy(slash + 1, PINS_NAME, sizeof(PINS_NAME));
		execv(path, (char *const *)argv);
	}
	fault__usage(&fault,
		     "%s: there is no " PINS_NAME " beside verify-and-load; set image.tools = true and build "
		     "the image again, or run buildtool load %s on the host",
		     options__command(o), options__command(o));
	return log__fail(&fault);
}

/* Run a command. A loader of an image starts and checks only: ebpf-pins has the commands that change pins. */
static int run_command(struct options *o)
{
	struct fault fault = { 0 };

	if (o->command == COMMAND_RUN)
		return run__all(o);
	if (o->command == COMMAND_STATUS)
		return listing__show(o, &fault) ? log__fail(&fault) : EXIT_DONE;
	return become_pins(o);
}

int main(int argc, char **argv)
{
	struct fault fault = { 0 };
	struct options options;

	(void)argc;
	/* Another process of this user must not take the descriptors of a loader that stays without a
	 * workload. */
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	file__open_standard_streams();
	file__keep_inherited();
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
