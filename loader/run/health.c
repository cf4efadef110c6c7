// SPDX-License-Identifier: Apache-2.0
#include "run/health.h"

#include "base/fault.h"
#include "base/log.h"
#include "base/signals.h"
#include "run/confine.h"
#include "run/environment.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ARGUMENTS_MAX 32
#define NAP_US	      10000
#define FILES_MAX     16384

static int split(char *command, char **argv)
{
	char *word;
	int n = 0;

	while ((word = strsep(&command, " \t"))) {
		if (!*word)
			continue;
		if (n == ARGUMENTS_MAX)
			return -E2BIG;
		argv[n++] = word;
	}
	argv[n] = NULL;
	return n;
}

int health__parse(const char *command, struct fault *fault)
{
	char *copy = strdup(command), *argv[ARGUMENTS_MAX + 1];
	int n = copy ? split(copy, argv) : -ENOMEM;

	if (n == -ENOMEM)
		return fault__set(fault, n, "out of memory");
	if (n <= 0 || argv[0][0] != '/')
		n = fault__usage(fault,
				 "--health-command %.200s: not an absolute path with at most %d arguments",
				 command, ARGUMENTS_MAX - 1);
	else if (access(argv[0], X_OK))
		n = fault__set(fault, -errno, "--health-command %.200s: %s", argv[0], strerror(errno));
	free(copy);
	return n > 0 ? 0 : n;
}

/*
 * Close each descriptor by itself before Linux 5.9, which has no close_range(2). The loader has fewer than
 * FILES_MAX.
 */
static void close_files(void)
{
	for (int fd = 3; syscall(SYS_close_range, 3, UINT32_MAX, 0) && fd < FILES_MAX; fd++)
		close(fd);
}

static void run_child(const char *command, const struct confinement *confinement)
{
	char *copy = strdup(command), *argv[ARGUMENTS_MAX + 1];
	struct fault fault = { 0 };

	if (!copy || split(copy, argv) <= 0)
		_exit(127);
	setpgid(0, 0);
	/* During a reload, the maps for the workload are open. Only the workload may inherit them. */
	environment__forget_descriptors();
	close_files();
	if (confine__enter(confinement, &fault)) {
		dprintf(STDOUT_FILENO, "--health-command: %s\n", fault.text);
		_exit(127);
	}
	signals__restore();
	/* stderr carries the loader's decision lines only. */
	dup2(STDOUT_FILENO, STDERR_FILENO);
	execv(argv[0], argv);
	_exit(127);
}

/* Return the wait status of the child, or a negative errno. */
static int wait_for(pid_t child, int64_t deadline)
{
	int status;
	pid_t done;

	for (;;) {
		done = waitpid(child, &status, WNOHANG);
		if (done == child)
			return status;
		if (done < 0 && errno != EINTR)
			return -errno;
		if (signals__stop_is_pending())
			return -EINTR;
		if (log__clock() > deadline)
			return -ETIMEDOUT;
		nanosleep(&(struct timespec){ .tv_nsec = NAP_US * 1000 }, NULL);
	}
}

int health__check(const char *command, int seconds, const struct confinement *confinement,
		  struct fault *fault)
{
	int64_t started = log__clock();
	int status;
	pid_t child;

	signal(SIGCHLD, SIG_DFL); /* an ignored SIGCHLD would discard the command's exit status */
	child = fork();
	if (!child)
		run_child(command, confinement);
	if (child < 0)
		return fault__set(fault, -errno, "--health-command: %s", strerror(errno));
	setpgid(child, child);
	status = wait_for(child, started + (int64_t)seconds * 1000000);
	if (status < 0) {
		kill(child, SIGKILL); /* the command may have left its group */
		kill(-child, SIGKILL);
		waitpid(child, NULL, 0);
	}
	if (status == -ETIMEDOUT)
		return fault__set(fault, status,
				  "--health-command: still running after %d s; --health-wait sets the limit",
				  seconds);
	if (status == -EINTR)
		return fault__set(fault, status, "--health-command: stopped by a signal to the loader");
	if (status < 0)
		return fault__set(fault, status, "--health-command: %s", strerror(-status));
	if (WIFSIGNALED(status))
		return fault__set(fault, -EIO, "--health-command: ended by signal %d", WTERMSIG(status));
	if (WEXITSTATUS(status))
		return fault__set(fault, -EIO, "--health-command: ended with exit code %d",
				  WEXITSTATUS(status));
	log__write(&(struct log_line){ .event = "health", .message = "good", .started = started });
	return 0;
}
