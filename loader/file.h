/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_FILE_H
#define LOADER_FILE_H

#include <stddef.h>
#include <stdint.h>

#define FILE_LIST_MAX 1024

/*
 * Read a whole regular file of at most @limit bytes, opened once. Symbolic links are followed
 * (mounted configuration is made of them); nothing that could block or act is opened.
 *
 * Returns 0, -EFBIG (larger than @limit), -ENODEV (not a regular file), -EAGAIN (grew while it
 * was read) or the error of the system call. The caller frees *@data.
 */
int file__read(int dir, const char *name, size_t limit, uint8_t **data, size_t *size);

/* The names in a directory that don't begin with a dot, sorted. */
struct file_list {
	char **names;
	size_t count;
};

/* Returns 0, -E2BIG (more than FILE_LIST_MAX) or the error of the system call. */
int file__list(int dir, struct file_list *list);
void file__list_free(struct file_list *list);

#endif
