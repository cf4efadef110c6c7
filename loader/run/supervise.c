// SPDX-License-Identifier: Apache-2.0
#include "run/supervise.h"

#include "base/signals.h"

#include <stdbool.h>
#include <sys/wait.h>
#include <unistd.h>

/* Reap all ended children, including orphans of the workload. Returns whether the workload ended. */
static bool reap(pid_t workload, int *code)
{
	bool ended = false;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid != workload)
			continue;
		ended = true;
		*code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	}
	return ended;
}

static int watch(pid_t workload, void (*reload)(void *context), void *context)
{
	int code = 0;

	while (!reap(workload, &code)) {
		int number = signals__wait();

		if (number == SIGHUP)
			reload(context);
		else if (number > 0 && number != SIGCHLD)
			kill(-workload, number);
	}
	/* Kill the rest of the group, which nobody would supervise. */
	kill(-workload, SIGKILL);
	return code;
}

int supervise__wait(pid_t workload, void (*reload)(void *context), void *context)
{
	if (workload)
		return watch(workload, reload, context);
	for (;;) {
		int number = signals__wait();

		if (number == SIGHUP)
			reload(context);
		else if (number > 0)
			return 0;
	}
}
