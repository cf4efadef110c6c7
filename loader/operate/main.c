// SPDX-License-Identifier: Apache-2.0
/* ebpf-pins: what operators do with pins, outside of a container's start. */
#include "base/arch.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/signals.h"
#include "base/version.h"
#include "load/load.h"
#include "operate/commands.h"
#include "run/options.h"

#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

#define USE_COMMAND "use list, status, detach or rollback"

static const char help[] =
	"usage: ebpf-pins list|status|detach|rollback --pin-root DIR [OPTION]...\n"
	"       ebpf-pins list|status|detach --share DIR [OPTION]...\n"
	"\n"
	"  list                     print what is pinned, and where it is attached\n"
	"  status                   the same; exit code 1 when not all of it is attached\n"
	"  detach                   detach and remove all pins, or shared entries without a user\n"
	"  rollback                 put the previous programs back, all or none\n"
	"\n"
	"  --pin-root DIR           the directory that verify-and-load pins to\n"
	"  --share DIR              the directory that loaders share\n"
	"  --json                   list and status: for machines\n"
	"  --log json|human         form of the lines on stderr (json)\n"
	"  --version, --help, -h\n"
	"\n"
	"Exit codes: 0 done, 1 could not do it, 2 usage or configuration.\n";

int main(int argc, char **argv)
{
	struct fault fault = { 0 };
	struct options options;

	(void)argc;
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* no other process of this user takes its descriptors */
	file__open_standard_streams();
	file__keep_inherited();
	signals__block(false);
	log__set_program("ebpf-pins");
	lock__set_bounded();
	log__set_human(options__ask_human(argv));
	if (options__parse(&options, argv, &fault)) {
		char *hint = strstr(fault.text, "; -- ");

		/* The loader's hint is about workloads. */
		if (hint)
			strcpy(hint, "; " USE_COMMAND);
		return log__fail(&fault);
	}
	log__set_human(options.human);
	if (options.help)
		return fputs(help, stdout) < 0 || fflush(stdout) ? EXIT_FAILED : EXIT_DONE;
	if (options.version)
		return printf("ebpf-pins %s (%s, libbpf %s)\n", LOADER_VERSION, PLATFORM,
			      load__library_version()) < 0;
	if (options.command != COMMAND_RUN)
		return commands__run(&options);
	fault__usage(&fault, "no command; " USE_COMMAND);
	return log__fail(&fault);
}
