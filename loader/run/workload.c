// SPDX-License-Identifier: Apache-2.0
#include "run/workload.h"

#include "base/arch.h"
#include "base/fault.h"
#include "base/signals.h"
#include "run/confine.h"
#include "run/interpreter.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static bool is_program(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISREG(st.st_mode) && !faccessat(AT_FDCWD, path, X_OK, AT_EACCESS);
}

/* Set the text for a workload that is_program() does not accept. */
static void explain_missing(const char *name, struct fault *fault)
{
	struct stat st;

	if (!strchr(name, '/') || stat(name, &st))
		fault__set(
			fault, -ENOENT,
			"workload %.200s: no such program; mount its file, or let images.base name an image "
			"that has it",
			name);
	else if (S_ISDIR(st.st_mode))
		fault__set(fault, -ENOENT,
			   "workload %.200s: is a directory; docker run -v makes one if the host has no such "
			   "file",
			   name);
	else
		fault__set(
			fault, -ENOENT,
			"workload %.200s: not executable; check chmod +x, and the option noexec of its mount",
			name);
}

char *workload__find(const char *name, struct fault *fault)
{
	const char *dirs = strchr(name, '/') ? "" : getenv("PATH");
	char *path = NULL;

	for (const char *p = dirs; p; p = strchr(p, ':') ? strchr(p, ':') + 1 : NULL) {
		int n = (int)strcspn(p, ":");

		if (asprintf(&path, "%.*s%s%s", n, p, n ? "/" : "", name) < 0) {
			fault__set(fault, -ENOMEM, "workload %.200s: %s", name, strerror(ENOMEM));
			return NULL;
		}
		if (is_program(path)) {
			if (!interpreter__check(path, fault))
				return path;
			free(path);
			return NULL;
		}
		free(path);
	}
	explain_missing(name, fault);
	return NULL;
}

int workload__become(const struct workload *w, struct fault *fault)
{
	int err = confine__enter(&w->confinement, fault);

	if (err)
		return err;
	signals__restore();
	execv(w->path, w->argv);
	err = -errno;
	return fault__set(fault, err, "workload %.200s: %s%s", w->path, strerror(-err),
			  err == -ENOEXEC ? "; build it for " PLATFORM ", or begin a script with #!" : "");
}

/* Make the workload's group the foreground of the terminal, so that Ctrl-C reaches the workload. */
static void take_terminal(pid_t parent_group)
{
	setpgid(0, 0);
	if (tcgetpgrp(STDIN_FILENO) == parent_group)
		tcsetpgrp(STDIN_FILENO, getpid());
}

static void run_child(const struct workload *w, int report, pid_t parent_group)
{
	struct fault fault = { 0 };
	ssize_t n;

	take_terminal(parent_group);
	workload__become(w, &fault);
	n = write(report, fault.text, sizeof(fault.text));
	(void)n;
	_exit(1);
}

int workload__start(const struct workload *w, pid_t *pid, struct fault *fault)
{
	pid_t group = getpgrp();
	int report[2];
	ssize_t n;

	if (pipe2(report, O_CLOEXEC))
		return fault__set(fault, -errno, "workload: %s", strerror(errno));
	/* Adopt the workload's orphans, to reap them. */
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	/* Our files in /proc are root's then: no workload of our user changes when the kernel kills us. */
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	*pid = fork();
	if (!*pid)
		run_child(w, report[1], group);
	close(report[1]);
	if (*pid < 0) {
		close(report[0]);
		return fault__set(fault, -errno, "workload: %s", strerror(errno));
	}
	setpgid(*pid, *pid);
	/* The exec closes the pipe. A failed exec writes its reason to the pipe first. */
	n = read(report[0], fault->text, sizeof(fault->text) - 1);
	close(report[0]);
	if (!n)
		return 0;
	waitpid(*pid, NULL, 0);
	return -ENOEXEC;
}
