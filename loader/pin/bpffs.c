// SPDX-License-Identifier: Apache-2.0
#include "pin/bpffs.h"

#include "base/fault.h"
#include "base/file.h"

#include <bpf/bpf.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

static bool is_bpffs(int fd)
{
	struct statfs fs;

	return !fstatfs(fd, &fs) && (unsigned long)fs.f_type == BPF_FS_MAGIC;
}

/* A plain directory made beside a mount that failed would hide that it did. */
static int make_directory(const char *path)
{
	const char *slash = strrchr(path, '/');
	char parent[BPFFS_PATH_SIZE];
	bool found;
	int fd;

	if (!slash || (size_t)(slash - path) >= sizeof(parent))
		return -EINVAL;
	memcpy(parent, path, (size_t)(slash - path) + 1);
	parent[slash - path + 1] = 0;
	fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	found = is_bpffs(fd);
	close(fd);
	if (!found)
		return -EMEDIUMTYPE;
	return mkdir(path, 0700) && errno != EEXIST ? -errno : 0;
}

static bool is_safe(const struct stat *st)
{
	bool closed = !(st->st_mode & 022) || st->st_mode & S_ISVTX || S_ISLNK(st->st_mode);

	return closed && (!st->st_uid || st->st_uid == geteuid());
}

/* The directories that lead to where a link points are not on the way as it is written. */
static int check_links(const char *path, struct fault *fault)
{
	char *real = realpath(path, NULL);
	int err = 0;

	if (!real)
		err = fault__set(fault, -errno, "%.200s: %s", path, strerror(errno));
	else if (strcmp(real, path))
		err = fault__set(fault, -EPERM, "%.200s: not the way without links; say %.200s", path, real);
	free(real);
	return err;
}

/* Names are looked up again and again: who may rename a directory on the way could exchange ours. */
static int check_way(const char *path, struct fault *fault)
{
	char at[BPFFS_PATH_SIZE];
	struct stat link, st;

	for (const char *slash = path; slash; slash = strchr(slash + 1, '/')) {
		size_t n = slash == path ? 1 : (size_t)(slash - path);

		memcpy(at, path, n);
		at[n] = 0;
		if (lstat(at, &link) || stat(at, &st))
			return fault__set(fault, -errno, "%.200s: %s", at, strerror(errno));
		if (!is_safe(&link) || !is_safe(&st))
			return fault__set(fault, -EPERM,
					  "%.200s: others may exchange it, as %.100s lets them", path, at);
	}
	return check_links(path, fault);
}

static int check_directory(int fd, const char *path, struct fault *fault)
{
	struct stat st;
	int err;

	if (!is_bpffs(fd))
		return fault__set(fault, -EMEDIUMTYPE,
				  "%.200s: not in a BPF file system; mount -t bpf bpf /sys/fs/bpf", path);
	if (fstat(fd, &st))
		return fault__set(fault, -errno, "%.200s: %s", path, strerror(errno));
	if (st.st_uid != geteuid())
		return fault__set(fault, -EPERM, "%.200s: belongs to user %u, not to us", path, st.st_uid);
	if (st.st_mode & 077)
		return fault__set(fault, -EPERM,
				  "%.200s: mode %04o lets others in; chmod 0700, or name a "
				  "directory that isn't there yet",
				  path, st.st_mode & 07777);
	err = check_way(path, fault);
	if (err)
		return err;
	err = file__lock(fd);
	return err ? fault__set(fault, err, "%.200s: cannot lock: %s", path,
				err == -EINTR ? "told to stop while another loader has it" : strerror(-err)) :
		     0;
}

int bpffs__open(const char *path, bool create, struct fault *fault)
{
	const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
	int fd, err;

	if (path[0] != '/' || strlen(path) > BPFFS_PATH_SIZE / 4 || path[strlen(path) - 1] == '/')
		return fault__usage(fault, "%.200s: not an absolute path of a directory", path);
	fd = open(path, flags);
	if (fd < 0 && errno == ENOENT && create) {
		err = make_directory(path);
		if (err)
			return fault__set(fault, err, "%.200s: %s", path,
					  err == -EMEDIUMTYPE ?
						  "no BPF file system there; mount -t bpf bpf /sys/fs/bpf" :
						  strerror(-err));
		fd = open(path, flags);
	}
	if (fd < 0)
		return fault__set(fault, -errno, "%.200s: %s", path, strerror(errno));
	err = check_directory(fd, path, fault);
	if (err) {
		close(fd);
		return err;
	}
	return fd;
}

int bpffs__path(char path[BPFFS_PATH_SIZE], const char *directory, const char *name)
{
	int n = snprintf(path, BPFFS_PATH_SIZE, "%s/", directory);
	size_t at = n < 0 ? BPFFS_PATH_SIZE : (size_t)n, start = at;

	for (; *name && at + 4 < BPFFS_PATH_SIZE; name++) {
		unsigned char c = (unsigned char)*name;

		if (c <= ' ' || c > '~' || strchr(",%/", c))
			at += (size_t)snprintf(path + at, 4, "%%%02X", c);
		else
			path[at++] = c == '.' ? ',' : (char)c;
	}
	if (*name || at == start || at - start > 255)
		return -ENAMETOOLONG;
	path[at] = 0;
	return 0;
}

static int hex_digit(char c)
{
	return isdigit((unsigned char)c) ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

void bpffs__unescape(char *name)
{
	char *out = name;

	while (*name) {
		if (name[0] == '%' && hex_digit(name[1]) >= 0 && hex_digit(name[2]) >= 0) {
			*out++ = (char)(hex_digit(name[1]) * 16 + hex_digit(name[2]));
			name += 3;
		} else {
			*out++ = *name == ',' ? '.' : *name;
			name++;
		}
	}
	*out = 0;
}

bool bpffs__exists(const char *path)
{
	return !access(path, F_OK);
}

/* Names of directory entries are escaped already. */
static int entry_path(char path[BPFFS_PATH_SIZE], const char *directory, const char *entry)
{
	int n = snprintf(path, BPFFS_PATH_SIZE, "%s/%s", directory, entry);

	return n < 0 || n >= BPFFS_PATH_SIZE ? -ENAMETOOLONG : 0;
}

static int list_names(const char *path, struct file_list *names)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), err;

	if (fd < 0)
		return -errno;
	err = file__list(fd, names);
	close(fd);
	return err;
}

int bpffs__remove(const char *path)
{
	char inner[BPFFS_PATH_SIZE];
	struct file_list names;
	int err;

	if (!unlink(path) || errno == ENOENT)
		return 0;
	err = list_names(path, &names);
	if (err)
		return err;
	for (size_t i = 0; !err && i < names.count; i++) {
		err = entry_path(inner, path, names.names[i]);
		if (!err)
			err = bpffs__remove(inner);
	}
	file__list_free(&names);
	if (!err && rmdir(path))
		err = -errno;
	return err;
}

/* The kernel's own name of what a descriptor is; its calls take one kind for another. */
static bool is_kind(int fd, enum bpffs_kind kind)
{
	static const char *const words[] = {
		[BPFFS_PROGRAM] = "anon_inode:bpf-prog",
		[BPFFS_MAP] = "anon_inode:bpf-map",
		[BPFFS_LINK] = "anon_inode:bpf-link",
	};
	char path[32], text[32] = "";

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (readlink(path, text, sizeof(text) - 1) < 0)
		return false;
	/* A link that was just made has the other spelling. */
	if (!strcmp(text, "anon_inode:bpf_link"))
		text[14] = '-';
	return !strcmp(text, words[kind]);
}

int bpffs__get(const char *path, enum bpffs_kind kind)
{
	int fd = bpf_obj_get(path);

	if (fd < 0)
		return -errno;
	if (is_kind(fd, kind))
		return fd;
	close(fd);
	return -EBADF;
}

static int open_pin(const char *path, const char *entry, enum bpffs_kind kind, struct pin *pin,
		    struct fault *fault)
{
	static const char *const words[] = { "program", "map", "link" };
	char inner[BPFFS_PATH_SIZE];
	int fd = entry_path(inner, path, entry);

	if (!fd)
		fd = bpffs__get(inner, kind);
	if (fd == -EBADF)
		return fault__set(fault, -EEXIST, "%.300s: not the %s that was pinned there", inner,
				  words[kind]);
	if (fd < 0)
		return fault__set(fault, fd, "%.300s: %s", inner, strerror(-fd));
	*pin = (struct pin){ .name = strdup(entry), .fd = fd };
	if (!pin->name) {
		close(fd);
		return fault__set(fault, -ENOMEM, "out of memory");
	}
	bpffs__unescape(pin->name);
	return 0;
}

int bpffs__list(const char *path, enum bpffs_kind kind, struct pin_list *list, struct fault *fault)
{
	struct file_list names;
	int err = list_names(path, &names);

	*list = (struct pin_list){ 0 };
	if (err == -ENOENT)
		return 0;
	if (err)
		return fault__set(fault, err, "%.300s: %s", path, strerror(-err));
	list->items = calloc(names.count + 1, sizeof(*list->items));
	if (!list->items)
		err = fault__set(fault, -ENOMEM, "out of memory");
	for (size_t i = 0; !err && i < names.count; i++) {
		err = open_pin(path, names.names[i], kind, &list->items[i], fault);
		list->count += !err;
	}
	file__list_free(&names);
	if (err)
		bpffs__free(list);
	return err;
}

int bpffs__copy(const struct pin_list *list, struct pin_list *copy)
{
	copy->items = calloc(list->count + 1, sizeof(*copy->items));
	if (!copy->items)
		return -ENOMEM;
	for (size_t i = 0; i < list->count; i++) {
		struct pin *pin = &copy->items[copy->count];

		pin->fd = fcntl(list->items[i].fd, F_DUPFD_CLOEXEC, 3);
		if (pin->fd < 0)
			return -errno;
		copy->count++;
		pin->name = strdup(list->items[i].name);
		if (!pin->name)
			return -ENOMEM;
	}
	return 0;
}

void bpffs__free(struct pin_list *list)
{
	for (size_t i = 0; i < list->count; i++) {
		free(list->items[i].name);
		close(list->items[i].fd);
	}
	free(list->items);
	*list = (struct pin_list){ 0 };
}

int bpffs__find(const struct pin_list *list, const char *name)
{
	for (size_t i = 0; i < list->count; i++) {
		if (!strcmp(list->items[i].name, name))
			return list->items[i].fd;
	}
	return -1;
}
