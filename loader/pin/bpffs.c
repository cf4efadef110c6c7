// SPDX-License-Identifier: Apache-2.0
#include "pin/bpffs.h"

#include "base/fault.h"
#include "base/file.h"
#include "base/lock.h"

#include <bpf/bpf.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#define FD_PATH_SIZE 32
#define DEPTH_MAX    8 /* a loader makes three levels */

static bool is_bpffs(int fd)
{
	struct statfs fs;

	return !fstatfs(fd, &fs) && (unsigned long)fs.f_type == BPF_FS_MAGIC;
}

/* The kernel opens a pinned program or link only for writing, so even a listing fails there. */
static bool is_read_only(int fd)
{
	struct statfs fs;

	return !fstatfs(fd, &fs) && fs.f_flags & ST_RDONLY;
}

static bool is_safe(const struct stat *st)
{
	bool closed = !(st->st_mode & 022) || st->st_mode & S_ISVTX || S_ISLNK(st->st_mode);

	return closed && (!st->st_uid || st->st_uid == geteuid());
}

/* These errors are not EPERM: for EPERM the loader names a missing capability, and no capability helps here.
 */
static int belongs_to(const char *path, uid_t owner, struct fault *fault)
{
	return fault__set(fault, -EACCES,
			  "%.200s: belongs to user %u, and this process is user %u; run as its owner "
			  "(docker: --user %u)",
			  path, owner, geteuid(), owner);
}

static int others_may(const char *path, size_t prefix, struct fault *fault)
{
	return fault__set(fault, -EACCES, "%.200s: others may exchange it, as %.*s lets them", path,
			  prefix > 100 ? 100 : (int)prefix, path);
}

/* Why the directory whose path is the first @prefix bytes of @path can't be entered. */
static int explain(const char *path, int at, const char *name, size_t prefix, int err, struct fault *fault)
{
	struct stat st;
	char *real;
	bool found = !fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW);

	if (found && err == -EACCES && st.st_uid != geteuid())
		return belongs_to(path, st.st_uid, fault);
	if (!found || !S_ISLNK(st.st_mode))
		return fault__set(fault, err, "%.200s: %s", path, strerror(-err));
	if (!is_safe(&st))
		return others_may(path, prefix, fault);
	real = realpath(path, NULL);
	fault__set(fault, -EACCES, "%.150s: the path contains a symbolic link%s%.150s", path,
		   real ? ": use " : "", real ? real : "");
	free(real);
	return -EACCES;
}

/*
 * Open the directory above, one name after the other, and look at each: who may rename a directory on the way
 * could exchange ours before it is opened. Returns a descriptor, or a negative errno with the text set.
 */
static int open_parent(const char *path, struct fault *fault)
{
	int at = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), next, err = at < 0 ? -errno : 0;
	const char *slash = path, *end;
	char name[NAME_MAX + 1];
	struct stat st;

	if (err)
		return fault__set(fault, err, "/: %s", strerror(-err));
	for (; !fstat(at, &st) && is_safe(&st); slash = end) {
		end = strchr(slash + 1, '/');
		if (!end)
			return at;
		snprintf(name, sizeof(name), "%.*s", (int)(end - slash - 1), slash + 1);
		next = openat(at, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (next < 0)
			err = explain(path, at, name, (size_t)(end - path), -errno, fault);
		close(at);
		if (err)
			return err;
		at = next;
	}
	close(at);
	return others_may(path, slash == path ? 1 : (size_t)(slash - path), fault);
}

static int check_directory(int fd, const char *path, bool by_operator, struct fault *fault)
{
	struct stat st;

	if (!is_bpffs(fd))
		return fault__set(fault, -EMEDIUMTYPE,
				  "%.200s: not in a BPF file system; mount -t bpf bpf /sys/fs/bpf", path);
	if (is_read_only(fd))
		return fault__set(fault, -EROFS,
				  "%.200s: mounted read-only; mount it for writing, without :ro", path);
	if (fstat(fd, &st))
		return fault__set(fault, -errno, "%.200s: %s", path, strerror(errno));
	if (st.st_uid != geteuid() && !(by_operator && !geteuid()))
		return belongs_to(path, st.st_uid, fault);
	if (st.st_mode & 077)
		return fault__set(fault, -EACCES,
				  "%.200s: mode %04o lets others in; chmod 0700, or name a "
				  "directory that isn't there yet",
				  path, st.st_mode & 07777);
	return 0;
}

static bool is_path(const char *path)
{
	static const char *const bad[] = { "//", "/./", "/../" };
	size_t n = strlen(path);
	char closed[BPFFS_PATH_SIZE];

	if (path[0] != '/' || n < 2 || n > BPFFS_PATH_SIZE / 4 || path[n - 1] == '/')
		return false;
	snprintf(closed, sizeof(closed), "%s/", path);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (strstr(closed, bad[i]))
			return false;
	}
	return true;
}

static int open_root(int parent, const char *path, bool create, struct fault *fault)
{
	const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
	const char *name = strrchr(path, '/') + 1;
	int fd = openat(parent, name, flags);

	if (fd < 0 && errno == ENOENT && create) {
		/* A plain directory made beside a mount that failed would hide that it did. */
		if (!is_bpffs(parent))
			return fault__set(fault, -EMEDIUMTYPE,
					  "%.200s: no BPF file system there; mount -t bpf bpf /sys/fs/bpf",
					  path);
		if (mkdirat(parent, name, 0700) && errno != EEXIST)
			return fault__set(fault, -errno, "%.200s: %s", path, strerror(errno));
		fd = openat(parent, name, flags);
	}
	return fd < 0 ? explain(path, parent, name, strlen(path), -errno, fault) : fd;
}

static int open_unlocked(const char *path, bool create, bool by_operator, struct fault *fault)
{
	int parent, fd, err;

	if (!is_path(path))
		return fault__usage(fault, "%.200s: not an absolute path of a directory", path);
	parent = open_parent(path, fault);
	if (parent < 0)
		return parent;
	fd = open_root(parent, path, create, fault);
	close(parent);
	if (fd < 0)
		return fd;
	err = check_directory(fd, path, by_operator, fault);
	if (err) {
		close(fd);
		return err;
	}
	return fd;
}

static int open_directory(const char *path, bool create, bool by_operator, struct fault *fault)
{
	int fd = open_unlocked(path, create, by_operator, fault), err;
	struct fault inner = { 0 };

	if (fd < 0)
		return fd;
	err = lock__take(fd, path, &inner);
	if (err) {
		close(fd);
		return fault__set(fault, err, "%.200s: %s", path, inner.text);
	}
	return fd;
}

int bpffs__open(const char *path, bool create, struct fault *fault)
{
	return open_directory(path, create, false, fault);
}

int bpffs__open_to_look(const char *path, struct fault *fault)
{
	return open_unlocked(path, false, false, fault);
}

int bpffs__open_as_operator(const char *path, struct fault *fault)
{
	return open_directory(path, false, true, fault);
}

void bpffs__remove_root(const char *path, int root)
{
	struct fault ignored = { 0 };
	struct stat named, held;
	const char *name = strrchr(path, '/') + 1;
	int parent = open_parent(path, &ignored);

	if (parent < 0)
		return;
	/*
	 * A directory of another user was made for a container, which needs it at its next start. The call
	 * fails for the root of the file system and for a directory that is not empty.
	 */
	if (!fstatat(parent, name, &named, AT_SYMLINK_NOFOLLOW) && !fstat(root, &held) &&
	    named.st_dev == held.st_dev && named.st_ino == held.st_ino && held.st_uid == geteuid())
		unlinkat(parent, name, AT_REMOVEDIR);
	close(parent);
}

int bpffs__reopen(int directory)
{
	int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static int escape(char entry[BPFFS_NAME_SIZE], const char *name)
{
	size_t at = 0;

	for (; *name && at + 4 <= BPFFS_NAME_SIZE; name++) {
		unsigned char c = (unsigned char)*name;

		if (c <= ' ' || c > '~' || strchr(",%/", c))
			at += (size_t)snprintf(entry + at, 4, "%%%02X", c);
		else
			entry[at++] = c == '.' ? ',' : (char)c;
	}
	if (*name || !at)
		return -ENAMETOOLONG;
	entry[at] = 0;
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

const char *bpffs__reason(int err)
{
	switch (err) {
	case -ELOOP:
		return "a symbolic link or a directory too deep, which no loader makes";
	case -EXDEV:
		return "another file system is mounted there";
	case -E2BIG:
		return "more than 1024 entries, which no loader makes; remove the directories that hold no "
		       "pins";
	default:
		return strerror(-err);
	}
}

void bpffs__show(char path[BPFFS_PATH_SIZE], const char *directory, const char *name)
{
	char entry[BPFFS_NAME_SIZE];

	snprintf(path, BPFFS_PATH_SIZE, "%.700s/%.255s", directory, escape(entry, name) ? "…" : entry);
}

bool bpffs__exists(int directory, const char *name)
{
	char entry[BPFFS_NAME_SIZE];
	struct stat st;

	return !escape(entry, name) && !fstatat(directory, entry, &st, AT_SYMLINK_NOFOLLOW);
}

/* Open an entry, never by a symbolic link and never in another mount. */
static int open_entry(int directory, const char *entry, int flags)
{
	const struct open_how how = {
		.flags = (unsigned)flags | O_NOFOLLOW | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV,
	};
	int fd = (int)syscall(SYS_openat2, directory, entry, &how, sizeof(how));
	struct stat inner, outer;

	if (fd >= 0)
		return fd;
	/* Before Linux 5.6, or below an engine that does not know the call. */
	if (errno != ENOSYS && errno != EPERM)
		return -errno;
	fd = openat(directory, entry, flags | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (!fstat(fd, &inner) && !fstat(directory, &outer) && inner.st_dev == outer.st_dev)
		return fd;
	close(fd);
	return -EXDEV;
}

static int enter(int directory, const char *entry)
{
	int fd = open_entry(directory, entry, O_RDONLY | O_DIRECTORY);
	struct stat st;

	if (fd == -ENOTDIR && !fstatat(directory, entry, &st, AT_SYMLINK_NOFOLLOW) && S_ISLNK(st.st_mode))
		return -ELOOP;
	return fd;
}

int bpffs__enter(int directory, const char *name)
{
	char entry[BPFFS_NAME_SIZE];
	int err = escape(entry, name);

	return err ? err : enter(directory, entry);
}

int bpffs__make(int directory, const char *name)
{
	char entry[BPFFS_NAME_SIZE];
	int err = escape(entry, name);

	if (!err && mkdirat(directory, entry, 0700))
		err = -errno;
	return err ? err : enter(directory, entry);
}

static int move(int directory, const char *from, const char *to, unsigned flags)
{
	char old[BPFFS_NAME_SIZE], new[BPFFS_NAME_SIZE];
	int err = escape(old, from);

	if (!err)
		err = escape(new, to);
	if (!err && (flags ? renameat2(directory, old, directory, new, flags) :
			     renameat(directory, old, directory, new)))
		err = -errno;
	return err;
}

int bpffs__rename(int directory, const char *from, const char *to)
{
	return move(directory, from, to, 0);
}

int bpffs__exchange(int directory, const char *one, const char *other)
{
	return move(directory, one, other, RENAME_EXCHANGE);
}

static int remove_entry(int directory, const char *entry, int depth);

/* All that is there now, however much: what somebody adds meanwhile makes the removal of the directory fail.
 */
static int empty(int directory, int depth)
{
	struct dirent *item;
	int fd = bpffs__reopen(directory), err = 0;
	DIR *stream = fd < 0 ? NULL : fdopendir(fd);

	if (!stream) {
		err = fd < 0 ? fd : -errno;
		if (fd >= 0)
			close(fd);
		return err;
	}
	while (!err && (item = readdir(stream))) {
		if (strcmp(item->d_name, ".") && strcmp(item->d_name, ".."))
			err = remove_entry(directory, item->d_name, depth);
	}
	closedir(stream);
	return err;
}

static int remove_entry(int directory, const char *entry, int depth)
{
	int fd, err = 0;

	if (!unlinkat(directory, entry, 0) || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	fd = depth ? enter(directory, entry) : -ELOOP;
	if (fd < 0)
		return fd;
	err = empty(fd, depth - 1);
	close(fd);
	if (!err && unlinkat(directory, entry, AT_REMOVEDIR) && errno != ENOENT)
		err = -errno;
	return err;
}

int bpffs__remove(int directory, const char *name)
{
	char entry[BPFFS_NAME_SIZE];
	int err = escape(entry, name);

	return err ? err : remove_entry(directory, entry, DEPTH_MAX);
}

/* The call pins by path: that of the directory that we hold, whatever has its name by now. */
int bpffs__pin(int directory, const char *name, int fd)
{
	char path[FD_PATH_SIZE + BPFFS_NAME_SIZE], entry[BPFFS_NAME_SIZE];
	int err = escape(entry, name);

	if (err)
		return err;
	snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", directory, entry);
	return bpf_obj_pin(fd, path) ? -errno : 0;
}

/* The kernel's own name of what a descriptor is; its calls take one kind for another. */
static bool is_kind(int fd, enum bpffs_kind kind)
{
	static const char *const words[] = {
		[BPFFS_PROGRAM] = "anon_inode:bpf-prog",
		[BPFFS_MAP] = "anon_inode:bpf-map",
		[BPFFS_LINK] = "anon_inode:bpf-link",
	};
	char path[FD_PATH_SIZE], text[32] = "";

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (readlink(path, text, sizeof(text) - 1) < 0)
		return false;
	/* A link that was just made has the other spelling. */
	if (!strcmp(text, "anon_inode:bpf_link"))
		text[14] = '-';
	return !strcmp(text, words[kind]);
}

/* The call follows a symbolic link at the end of a path: it is given what was opened without. */
static int get(int pin, enum bpffs_kind kind, uint32_t flags)
{
	LIBBPF_OPTS(bpf_obj_get_opts, opts, .file_flags = flags);
	char path[FD_PATH_SIZE];
	struct stat st;
	int fd;

	if (fstat(pin, &st) || !S_ISREG(st.st_mode))
		return -EBADF;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", pin);
	fd = bpf_obj_get_opts(path, &opts);
	if (fd < 0)
		return -errno;
	if (is_kind(fd, kind))
		return fd;
	close(fd);
	return -EBADF;
}

static int get_entry(int directory, const char *entry, enum bpffs_kind kind, uint32_t flags)
{
	int pin = open_entry(directory, entry, O_PATH), fd;

	if (pin < 0)
		return pin == -ELOOP ? -EBADF : pin;
	fd = get(pin, kind, flags);
	close(pin);
	return fd;
}

int bpffs__get(int directory, const char *name, enum bpffs_kind kind)
{
	char entry[BPFFS_NAME_SIZE];
	int err = escape(entry, name);

	return err ? err : get_entry(directory, entry, kind, 0);
}

int bpffs__limit(int directory, struct pin *pin, uint32_t flags)
{
	char entry[BPFFS_NAME_SIZE];
	int err = escape(entry, pin->name), fd;

	if (err)
		return err;
	fd = get_entry(directory, entry, BPFFS_MAP, flags);
	if (fd < 0)
		return fd;
	close(pin->fd);
	pin->fd = fd;
	return 0;
}

static int open_pin(int directory, const char *shown, const char *entry, enum bpffs_kind kind,
		    struct pin *pin, struct fault *fault)
{
	static const char *const words[] = { "program", "map", "link" };
	int fd = get_entry(directory, entry, kind, 0);

	if (fd == -EBADF)
		return fault__set(fault, -EEXIST, "%.200s/%.100s: not the %s that was pinned there", shown,
				  entry, words[kind]);
	if (fd < 0)
		return fault__set(fault, fd, "%.200s/%.100s: %s", shown, entry, bpffs__reason(fd));
	*pin = (struct pin){ .name = strdup(entry), .fd = fd };
	if (!pin->name) {
		close(fd);
		return fault__set(fault, -ENOMEM, "out of memory");
	}
	bpffs__unescape(pin->name);
	return 0;
}

int bpffs__list(int directory, const char *name, enum bpffs_kind kind, struct pin_list *list,
		const char *shown, struct fault *fault)
{
	struct file_list names = { 0 };
	char path[BPFFS_PATH_SIZE];
	int fd = bpffs__enter(directory, name), err = fd < 0 ? fd : file__list(fd, &names);

	*list = (struct pin_list){ 0 };
	bpffs__show(path, shown, name);
	if (err == -ENOENT)
		return 0;
	if (err)
		fault__set(fault, err, "%.300s: %s", path, bpffs__reason(err));
	else if (!(list->items = calloc(names.count + 1, sizeof(*list->items))))
		err = fault__set(fault, -ENOMEM, "out of memory");
	for (size_t i = 0; !err && i < names.count; i++) {
		err = open_pin(fd, path, names.names[i], kind, &list->items[i], fault);
		list->count += !err;
	}
	if (fd >= 0)
		close(fd);
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
