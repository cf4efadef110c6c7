// SPDX-License-Identifier: Apache-2.0
#include "base/lock.h"

#include "base/fault.h"
#include "base/log.h"
#include "base/signals.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

#define NAP_NS	    500000
#define NAP_MAX_NS  8000000
#define MOMENT_US   2000000
#define BOUND_US    20000000
#define BOUND_TEXT  "20 seconds"
#define HOLDER_SIZE 96

static bool is_bounded;

void lock__set_bounded(void)
{
	is_bounded = true;
}

/* Write "process PID (NAME)". The kernel lists no process of other PID namespaces. */
static void find_holder(int fd, char holder[HOLDER_SIZE])
{
	FILE *locks = fopen("/proc/locks", "re"), *comm;
	char line[256], path[32], name[32];
	unsigned major_, minor_;
	unsigned long inode;
	struct stat st;
	int pid;

	snprintf(holder, HOLDER_SIZE, "a process that /proc/locks does not show");
	if (fstat(fd, &st))
		st.st_ino = 0;
	while (locks && fgets(line, sizeof(line), locks)) {
		if (sscanf(line, "%*d: FLOCK %*s %*s %d %x:%x:%lu", &pid, &major_, &minor_, &inode) != 4 ||
		    inode != st.st_ino || makedev(major_, minor_) != st.st_dev || pid <= 0)
			continue;
		snprintf(path, sizeof(path), "/proc/%d/comm", pid);
		comm = fopen(path, "re");
		if (comm && fscanf(comm, "%31[^\n]", name) == 1)
			snprintf(holder, HOLDER_SIZE, "process %d (%s)", pid, name);
		else
			snprintf(holder, HOLDER_SIZE, "process %d", pid);
		if (comm)
			fclose(comm);
		break;
	}
	if (locks)
		fclose(locks);
}

int lock__take(int fd, const char *path, struct fault *fault)
{
	int64_t begun = log__clock();
	char holder[HOLDER_SIZE], message[HOLDER_SIZE + 32];
	bool is_said = false;
	long nap = NAP_NS;

	while (flock(fd, LOCK_EX | LOCK_NB)) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return fault__set(fault, -errno, "cannot lock: %s", strerror(errno));
		if (signals__stop_is_pending())
			return fault__set(
				fault, -EINTR,
				"cannot lock: stopped by a signal while another loader holds the lock");
		if (is_bounded && log__clock() - begun > BOUND_US) {
			find_holder(fd, holder);
			return fault__set(fault, -ETIMEDOUT,
					  "cannot lock: %s still holds the lock after " BOUND_TEXT
					  "; end that process, or try again",
					  holder);
		}
		if (!is_said && log__clock() - begun > MOMENT_US) {
			find_holder(fd, holder);
			snprintf(message, sizeof(message), "%s holds the lock", holder);
			log__write(&(struct log_line){ .event = "wait", .target = path, .message = message });
			is_said = true;
		}
		nanosleep(&(struct timespec){ .tv_nsec = nap }, NULL);
		nap = nap < NAP_MAX_NS ? nap * 2 : nap;
	}
	return 0;
}
