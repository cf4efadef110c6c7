/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_PIN_BPFFS_H
#define LOADER_PIN_BPFFS_H

#include "base/fault.h"

#include <stddef.h>

#define BPFFS_PATH_SIZE 1024

/*
 * Open and lock a directory of a BPF file system that is ours alone; one that is not there is made
 * when @create and its parent is in a BPF file system. Whoever can write to it could put other
 * programs behind our names, whoever can open it could hold the lock: mode 0700 and our owner.
 * Returns the descriptor, which holds the lock, or a negative errno with the text set.
 */
int bpffs__open(const char *path, bool create, struct fault *fault);

/*
 * Write the path of @name in @directory. In its names a BPF file system allows no dot, and no file
 * system a slash: a dot becomes a comma; a comma, a percent sign, a slash and what can't be printed
 * become %XX. Returns 0 or -ENAMETOOLONG.
 */
int bpffs__path(char path[BPFFS_PATH_SIZE], const char *directory, const char *name);

/* The name back from one of a directory entry, in place. */
void bpffs__unescape(char *name);

bool bpffs__exists(const char *path);

/* Remove a pin, or a directory with everything in it; what isn't there is no error. */
int bpffs__remove(const char *path);

/* Open what is pinned at @path if it is of this kind. Returns the descriptor or a negative errno; -EBADF for
 * another kind. */
enum bpffs_kind { BPFFS_PROGRAM, BPFFS_MAP, BPFFS_LINK };
int bpffs__get(const char *path, enum bpffs_kind kind);

/* Pins of one directory, opened. */
struct pin {
	char *name; /* unescaped */
	int fd;
};

struct pin_list {
	struct pin *items;
	size_t count;
};

/* Open all pins of a directory, all of them of one kind. A directory that isn't there has none. */
int bpffs__list(const char *path, enum bpffs_kind kind, struct pin_list *list, struct fault *fault);
/* The same pins once more, on descriptors of their own. */
int bpffs__copy(const struct pin_list *list, struct pin_list *copy);
void bpffs__free(struct pin_list *list);

/* The descriptor of the pin of this name, or -1. */
int bpffs__find(const struct pin_list *list, const char *name);

#endif
