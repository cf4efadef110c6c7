// SPDX-License-Identifier: Apache-2.0
/*
 * A static workload. `exit N` ends with N, `wait N` ends with N on SIGTERM, and `orphans N` leaves five
 * orphans and then waits like `wait N`.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile int code;

static void leave(int number)
{
	(void)number;
	_exit(code);
}

static void make_orphans(void)
{
	for (int i = 0; i < 5; i++) {
		if (!fork()) {
			if (!fork()) {
				usleep(50000);
				_exit(0);
			}
			_exit(0);
		}
	}
}

int main(int argc, char **argv)
{
	code = argc > 2 ? atoi(argv[2]) : 1;
	if (!strcmp(argv[1], "exit"))
		return code;
	signal(SIGTERM, leave);
	if (!strcmp(argv[1], "orphans")) {
		signal(SIGCHLD, SIG_IGN);
		make_orphans();
	}
	for (;;)
		pause();
}
