// SPDX-License-Identifier: Apache-2.0
#include "run/supervise.h"

#include "base/signals.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS_MAX 1000
#define NAP_NS	   1000000

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

/* Our children by now: what the workload left became ours. */
static bool kill_children(void)
{
	char path[64];
	FILE *file;
	pid_t pid;
	bool found = false;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
	file = fopen(path, "re");
	while (file && fscanf(file, "%d", &pid) == 1)
		found |= !kill(pid, SIGKILL);
	if (file)
		fclose(file);
	return found;
}

/* Without its programs nothing of it must go on, whatever group or session it went to. */
static void end_all(void)
{
	int ignored;

	for (int i = 0; i < ROUNDS_MAX && kill_children(); i++) {
		nanosleep(&(struct timespec){ .tv_nsec = NAP_NS }, NULL);
		reap(0, &ignored);
	}
}

/* Return the next signal that is not for the loader itself. */
static int wait_for_signal(const struct supervise_events *events)
{
	for (;;) {
		int number = signals__wait_or(events->fds, events->count);

		if (number == SIGHUP)
			events->reload(events->context);
		else if (!number)
			events->look(events->context);
		else if (number > 0)
			return number;
	}
}

static int watch(pid_t workload, const struct supervise_events *events)
{
	int code = 0;

	while (!reap(workload, &code)) {
		int number = wait_for_signal(events);

		if (number != SIGCHLD)
			kill(-workload, number);
	}
	/* Kill the rest of the group, which nobody would supervise. */
	kill(-workload, SIGKILL);
	end_all();
	return code;
}

int supervise__wait(pid_t workload, const struct supervise_events *events)
{
	if (workload)
		return watch(workload, events);
	wait_for_signal(events);
	return 0;
}
