// SPDX-License-Identifier: Apache-2.0
#include "base/signals.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>

static sigset_t initial, waited;

void signals__block(bool supervise)
{
	static const int own[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS };

	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a write beyond the limit of files fails with EFBIG, and is reported */
	if (supervise) {
		signal(SIGCHLD, SIG_DFL); /* an ignored SIGCHLD would discard the workload's exit status */
		sigfillset(&waited);
		for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
			sigdelset(&waited, own[i]);
	} else {
		sigemptyset(&waited);
		sigaddset(&waited, SIGTERM);
		sigaddset(&waited, SIGINT);
		sigaddset(&waited, SIGHUP);
	}
	sigprocmask(SIG_BLOCK, &waited, supervise ? NULL : &initial);
}

void signals__restore(void)
{
	signal(SIGPIPE, SIG_DFL);
	signal(SIGXFSZ, SIG_DFL);
	sigprocmask(SIG_SETMASK, &initial, NULL);
}

static int wait_for_signal(void)
{
	int number;

	do
		number = sigwaitinfo(&waited, NULL);
	while (number < 0 && errno == EINTR);
	return number;
}

int signals__wait_or(const struct pollfd *others, size_t count)
{
	struct pollfd fds[1 + SIGNALS_MAX_FDS];
	static int pending = -1;
	int number;

	if (pending < 0)
		pending = signalfd(-1, &waited, SFD_CLOEXEC | SFD_NONBLOCK);
	if (pending < 0 || count > SIGNALS_MAX_FDS)
		return wait_for_signal();
	fds[0] = (struct pollfd){ .fd = pending, .events = POLLIN };
	memcpy(fds + 1, others, count * sizeof(*others));
	for (;;) {
		number = sigtimedwait(&waited, NULL, &(struct timespec){ 0 });
		if (number > 0)
			return number;
		if (poll(fds, 1 + count, -1) <= 0)
			continue;
		for (size_t i = 1; i <= count; i++) {
			if (fds[i].revents)
				return 0;
		}
	}
}

bool signals__take_hangup(void)
{
	sigset_t hangup;

	sigemptyset(&hangup);
	sigaddset(&hangup, SIGHUP);
	return sigtimedwait(&hangup, NULL, &(struct timespec){ 0 }) == SIGHUP;
}

bool signals__stop_is_pending(void)
{
	sigset_t pending;

	return !sigpending(&pending) && (sigismember(&pending, SIGTERM) || sigismember(&pending, SIGINT));
}
