// SPDX-License-Identifier: Apache-2.0
#include "base/signals.h"

#include <errno.h>
#include <stddef.h>
#include <time.h>

static sigset_t initial, waited;

void signals__block(bool supervise)
{
	static const int own[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS };

	signal(SIGPIPE, SIG_IGN);
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
	sigprocmask(SIG_SETMASK, &initial, NULL);
}

int signals__wait(void)
{
	int number;

	do
		number = sigwaitinfo(&waited, NULL);
	while (number < 0 && errno == EINTR);
	return number;
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
