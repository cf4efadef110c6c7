/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_BASE_FILE_H
#define LOADER_BASE_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define FILE_LIST_MAX 1024

/*
 * Read a whole regular file of at most @limit bytes, opened once. Symbolic links are followed
 * (mounted configuration is made of them); nothing that could block or act is opened.
 *
 * Returns 0, -EFBIG (larger than @limit), -ENODEV (not a regular file), -EAGAIN (grew while it
 * was read) or the error of the system call. The caller frees *@data.
 */
int file__read(int dir, const char *name, size_t limit, uint8_t **data, size_t *size);

/*
 * Lock a directory for us alone, as long as it is open. Another loader may have it for as long as its health
 * command takes: a signal ends the wait. Returns 0, -EINTR (told to stop) or the error of the system call.
 */
int file__lock(int fd);

/*
 * Make a new file of this name for writing, in the place of one that a killed loader left; never one that
 * somebody else put there. Returns the descriptor or a negative errno.
 */
int file__create(int dir, const char *name, mode_t mode);

/* The names in a directory that don't begin with a dot, sorted. */
struct file_list {
	char **names;
	size_t count;
};

/* Returns 0, -E2BIG (more than FILE_LIST_MAX) or the error of the system call. */
int file__list(int dir, struct file_list *list);
void file__list_free(struct file_list *list);

/*
 * Mark what was inherited beyond the three: nothing that we start gets it, but sockets that systemd passes to
 * this process (LISTEN_FDS), which the workload takes over with it.
 */
void file__keep_inherited(void);

/* Open /dev/null for each closed one of the three: a file that takes its number would get our lines. */
void file__open_standard_streams(void);

#endif
