/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_PIN_BPFFS_H
#define LOADER_PIN_BPFFS_H

#include "base/fault.h"

#include <stddef.h>
#include <stdint.h>

#define BPFFS_PATH_SIZE 1024 /* of paths that messages show */
#define BPFFS_NAME_SIZE 256

/*
 * Every look-up below a root begins at a held descriptor and takes one name. A workload of our user may
 * exchange directories for symbolic links at any moment: no link and no mount is followed.
 *
 * Names are escaped here. In its names a BPF file system allows no dot, and no file system a slash: a dot
 * becomes a comma; a comma, a percent sign, a slash and what can't be printed become %XX.
 */

/*
 * Open and lock a directory of a BPF file system that is ours alone; one that is not there is made
 * when @create and its parent is in a BPF file system. Whoever can write to it could put other
 * programs behind our names, whoever can open it could hold the lock: mode 0700 and our owner.
 * Returns the descriptor, which holds the lock, or a negative errno with the text set.
 */
int bpffs__open(const char *path, bool create, struct fault *fault);

/*
 * Open such a directory without its lock, to look at pins that another start may be changing. Nobody keeps
 * the caller waiting. Returns the descriptor, or a negative errno with the text set.
 */
int bpffs__open_to_look(const char *path, struct fault *fault);

/*
 * Open and lock a directory for list, status or detach, which attach nothing new. Root may also open the
 * directory of another user: on a host, the pins of a container belong to the container's user.
 */
int bpffs__open_as_operator(const char *path, struct fault *fault);

/* Remove a directory of our user that was opened here, if it is empty and still at its path. */
void bpffs__remove_root(const char *path, int root);

/* Open the same directory once more, for a lock of its own. Returns a descriptor or a negative errno. */
int bpffs__reopen(int directory);

/* The name back from one of a directory entry, in place. */
void bpffs__unescape(char *name);

/* What a negative errno of these functions means, for messages. */
const char *bpffs__reason(int err);

/* Write DIRECTORY/NAME, for messages; what is too long is cut. */
void bpffs__show(char path[BPFFS_PATH_SIZE], const char *directory, const char *name);

bool bpffs__exists(int directory, const char *name);

/* Open a directory in @directory. Returns a descriptor or a negative errno: -ELOOP for a symbolic link. */
int bpffs__enter(int directory, const char *name);

/* Make one and open it. Returns a descriptor or a negative errno: -EEXIST when the name is taken. */
int bpffs__make(int directory, const char *name);

/* Give an entry another name, in the place of what has it. Returns 0 or a negative errno. */
int bpffs__rename(int directory, const char *from, const char *to);

/* Exchange two entries in one step. Returns 0, -EINVAL before Linux 5.17, or another negative errno. */
int bpffs__exchange(int directory, const char *one, const char *other);

/* Remove a pin, or a directory with everything in it; what isn't there is no error. */
int bpffs__remove(int directory, const char *name);

/* Pin what is behind the descriptor. Returns 0 or a negative errno. */
int bpffs__pin(int directory, const char *name, int fd);

/*
 * Open what is pinned under the name if it is of this kind. Returns the descriptor or a negative errno;
 * -EBADF for another kind, a directory or a link.
 */
enum bpffs_kind { BPFFS_PROGRAM, BPFFS_MAP, BPFFS_LINK };
int bpffs__get(int directory, const char *name, enum bpffs_kind kind);

/* Pins of one directory, opened. */
struct pin {
	char *name; /* unescaped */
	int fd;
};

struct pin_list {
	struct pin *items;
	size_t count;
};

/*
 * Open the map of a pin once more, with BPF_F_RDONLY or BPF_F_WRONLY: the kernel asks each descriptor for
 * what user space may do, and forgets what the first one was made with. Returns 0 or a negative errno.
 */
int bpffs__limit(int directory, struct pin *pin, uint32_t flags);

/*
 * Open all pins in the directory @name of @directory, all of them of one kind. A directory that isn't there
 * has none. @shown is the path of @directory, for the text.
 */
int bpffs__list(int directory, const char *name, enum bpffs_kind kind, struct pin_list *list,
		const char *shown, struct fault *fault);
/* The same pins once more, on descriptors of their own. */
int bpffs__copy(const struct pin_list *list, struct pin_list *copy);
void bpffs__free(struct pin_list *list);

/* The descriptor of the pin of this name, or -1. */
int bpffs__find(const struct pin_list *list, const char *name);

#endif
