// SPDX-License-Identifier: Apache-2.0
/*
 * Note which functions of a program are entered. Code compiled with -finstrument-functions calls these two
 * functions.
 *
 * The note is a byte of a shared file for each possible address. A mapping outlives what a loader does at its
 * end: execve, _exit, a kill, another user, a seccomp filter.
 */
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

void __cyg_profile_func_enter(void *function, void *caller);
void __cyg_profile_func_exit(void *function, void *caller);

extern const char __executable_start;
static uint8_t *note;

__attribute__((constructor(101))) static void map_note(void)
{
	int fd = open(REACHED_FILE, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return;
	note = mmap(NULL, REACHED_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (note == MAP_FAILED)
		note = NULL;
	close(fd);
}

void __cyg_profile_func_enter(void *function, void *caller)
{
	uintptr_t offset = (uintptr_t)function - (uintptr_t)&__executable_start;

	(void)caller;
	if (note && offset < REACHED_SIZE)
		note[offset] = 1;
}

void __cyg_profile_func_exit(void *function, void *caller)
{
	(void)function;
	(void)caller;
}
