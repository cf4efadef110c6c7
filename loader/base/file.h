/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_BASE_FILE_H
#define LOADER_BASE_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define FILE_LIST_MAX 1024

/*
 * Read a whole regular file of at most @limit bytes, opened once. Symbolic links are followed, because
 * Kubernetes mounts consist of them. Only regular files are opened: opening a FIFO can block, and opening a
 * device can act.
 *
 * Returns 0, -EFBIG (larger than @limit), -ENODEV (not a regular file), -EAGAIN (grew while it
 * was read) or the error of the system call. The caller frees *@data.
 */
int file__read(int dir, const char *name, size_t limit, uint8_t **data, size_t *size);

/*
 * Make a new file for writing. An existing file of this name, as a killed loader leaves it, is removed and
 * never opened, because another user may have made it. Returns the descriptor or a negative errno.
 */
int file__create(int dir, const char *name, mode_t mode);

/*
 * Return the descriptor of a sealed file in memory with these bytes, at its first byte, or a negative errno.
 * The descriptor survives execve(2).
 */
int file__make_sealed(const char *name, const uint8_t *data, size_t size);

/* The sorted names of a directory, without those that begin with a dot. */
struct file_list {
	char **names;
	size_t count;
};

/* Returns 0, -E2BIG (more than FILE_LIST_MAX) or the error of the system call. */
int file__list(int dir, struct file_list *list);
void file__list_free(struct file_list *list);

/*
 * Mark inherited descriptors above stderr close-on-exec. Only the sockets that systemd passes (LISTEN_FDS)
 * stay open for the workload.
 */
void file__keep_inherited(void);

/*
 * Open /dev/null for each closed standard stream, so that no other file gets the number of stderr, and log
 * lines.
 */
void file__open_standard_streams(void);

#endif
