// SPDX-License-Identifier: Apache-2.0
#include "run/landlock.h"

#include "base/fault.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* From <linux/landlock.h>, which is older on some machines that build this. */
#define RULESET_VERSION	  1u
#define RULE_PATH_BENEATH 1
#define WRITE_FILE	  (UINT64_C(1) << 1)
#define READ_FILE	  (UINT64_C(1) << 2)
#define READ_DIR_TO_MAKE  UINT64_C(0x1ff8) /* read, remove and make entries: bits 3 to 12 */
#define REFER		  (UINT64_C(1) << 13)
#define SCOPE_SIGNAL	  (UINT64_C(1) << 1)
#define VERSION_OF_REFER  2 /* before it, nothing could be renamed to another directory */
#define VERSION_OF_SCOPES 6
#define OF_FILES	  (WRITE_FILE | READ_FILE)
#define OF_DIRECTORIES	  (OF_FILES | READ_DIR_TO_MAKE | REFER)
#define HIDDEN_MAX	  64
#define PLACES_MAX	  256 /* directories above the hidden ones */

struct ruleset_attributes {
	uint64_t handled_access_fs, handled_access_net, scoped;
};

struct rule {
	uint64_t allowed_access;
	int32_t parent_fd;
} __attribute__((packed));

static int version(void)
{
	return (int)syscall(SYS_landlock_create_ruleset, NULL, 0, RULESET_VERSION);
}

bool landlock__hides_directories(void)
{
	return version() >= VERSION_OF_REFER;
}

bool landlock__scopes_signals(void)
{
	return version() >= VERSION_OF_SCOPES;
}

/* What is hidden, and the directories above: each is an inode, whatever its path. */
struct walk {
	int ruleset;
	char *hidden[HIDDEN_MAX];
	size_t hidden_count;
	struct {
		dev_t device;
		ino_t inode;
	} above[PLACES_MAX];
	size_t above_count;
};

/* mountinfo has \040 for a blank. */
static void unescape(char *path)
{
	char *out = path;

	for (; *path; path++) {
		unsigned octal;

		if (*path == '\\' && sscanf(path + 1, "%3o", &octal) == 1) {
			*out++ = (char)octal;
			path += 3;
		} else {
			*out++ = *path;
		}
	}
	*out = 0;
}

static int hide(struct walk *w, const char *path)
{
	if (w->hidden_count == HIDDEN_MAX)
		return -E2BIG;
	w->hidden[w->hidden_count] = strdup(path);
	if (!w->hidden[w->hidden_count])
		return -ENOMEM;
	unescape(w->hidden[w->hidden_count++]);
	return 0;
}

/* One line: id, parent, device, root, mount point, options, fields up to a hyphen, type, ... */
static int read_mount(struct walk *w, char *line)
{
	char *fields = strstr(line, " - "), *path = line;

	if (!fields || strncmp(fields + 3, "bpf ", 4))
		return 0;
	for (int i = 0; i < 4 && path; i++)
		path = strchr(path + 1, ' ');
	if (!path)
		return -EINVAL;
	path[1 + strcspn(path + 1, " ")] = 0;
	return hide(w, path + 1);
}

static int read_mounts(struct walk *w)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t room = 0;
	int err = 0;

	if (!file)
		return -errno;
	while (!err && getline(&line, &room, file) > 0)
		err = read_mount(w, line);
	if (!err && ferror(file)) /* a line that was not read could be a BPF file system */
		err = -EIO;
	free(line);
	fclose(file);
	return err;
}

static bool is_above(const char *path, const char *hidden)
{
	size_t n = strlen(path);

	return !strncmp(path, hidden, n) && (n == 1 || hidden[n] == '/');
}

static bool leads_to_hidden(const struct walk *w, const char *path)
{
	for (size_t i = 0; i < w->hidden_count; i++) {
		if (is_above(path, w->hidden[i]))
			return true;
	}
	return false;
}

static bool is_hidden(const struct walk *w, const char *path)
{
	for (size_t i = 0; i < w->hidden_count; i++) {
		if (!strcmp(path, w->hidden[i]))
			return true;
	}
	return false;
}

/* A rule is for an inode: one for a directory above by its other name would show what is hidden below. */
static bool is_noted(const struct walk *w, const struct stat *st)
{
	for (size_t i = 0; i < w->above_count; i++) {
		if (w->above[i].device == st->st_dev && w->above[i].inode == st->st_ino)
			return true;
	}
	return false;
}

static int note_above(struct walk *w)
{
	char path[PATH_MAX];
	struct stat st;

	for (size_t i = 0; i < w->hidden_count; i++) {
		snprintf(path, sizeof(path), "%s", w->hidden[i]);
		for (char *end = path + strlen(path); end;) {
			if (!stat(*path ? path : "/", &st) && !is_noted(w, &st)) {
				if (w->above_count == PLACES_MAX)
					return -E2BIG;
				w->above[w->above_count].device = st.st_dev;
				w->above[w->above_count++].inode = st.st_ino;
			}
			if (!*path)
				break;
			end = strrchr(path, '/');
			if (end)
				*end = 0;
		}
	}
	return 0;
}

static int allow(const struct walk *w, int fd, uint64_t access)
{
	const struct rule rule = { .allowed_access = access, .parent_fd = fd };

	/* Files that are no place of a file system, as those of namespaces, take no rule and need none. */
	if (syscall(SYS_landlock_add_rule, w->ruleset, RULE_PATH_BENEATH, &rule, 0) && errno != EBADFD)
		return -errno;
	return 0;
}

static int allow_below(struct walk *w, const char *path, int directory);

/* What went away meanwhile needs no rule. */
static int allow_entry(struct walk *w, const char *above, int directory, const char *name)
{
	int fd = openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC), err = 0;
	char path[PATH_MAX];
	struct stat st;

	if (fd < 0)
		return 0;
	if (snprintf(path, sizeof(path), "%s/%s", above[1] ? above : "", name) >= (int)sizeof(path))
		err = -ENAMETOOLONG;
	else if (is_hidden(w, path) || fstat(fd, &st))
		err = 0;
	else if (S_ISDIR(st.st_mode) && leads_to_hidden(w, path))
		err = allow_below(w, path, fd);
	else if (!S_ISLNK(st.st_mode) && !is_noted(w, &st))
		err = allow(w, fd, S_ISDIR(st.st_mode) ? OF_DIRECTORIES : OF_FILES);
	close(fd);
	return err;
}

/* All but the hidden ones in a directory above them. One that we can't list stays closed as a whole. */
static int allow_below(struct walk *w, const char *path, int directory)
{
	int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), err = 0;
	DIR *stream = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *item;

	if (!stream) {
		if (fd >= 0)
			close(fd);
		return 0;
	}
	while (!err && (item = readdir(stream))) {
		if (strcmp(item->d_name, ".") && strcmp(item->d_name, ".."))
			err = allow_entry(w, path, directory, item->d_name);
	}
	closedir(stream);
	return err;
}

static int allow_the_rest(struct walk *w, const char *const *hidden)
{
	int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), err = root < 0 ? -errno : 0;

	for (; !err && *hidden; hidden++)
		err = hide(w, *hidden);
	if (!err)
		err = read_mounts(w);
	if (!err)
		err = note_above(w);
	if (!err)
		err = allow_below(w, "/", root);
	if (root >= 0)
		close(root);
	for (size_t i = 0; i < w->hidden_count; i++)
		free(w->hidden[i]);
	return err;
}

int landlock__restrict(const struct landlock *wanted, struct fault *fault)
{
	struct ruleset_attributes attributes = { 0 };
	size_t size = sizeof(attributes.handled_access_fs);
	struct walk w = { 0 };
	int err;

	if (wanted->hidden)
		attributes.handled_access_fs = OF_DIRECTORIES;
	if (wanted->scope_signals && landlock__scopes_signals()) {
		attributes.scoped = SCOPE_SIGNAL;
		size = sizeof(attributes);
	}
	if (!attributes.handled_access_fs && !attributes.scoped)
		return 0;
	w.ruleset = (int)syscall(SYS_landlock_create_ruleset, &attributes, size, 0);
	err = w.ruleset < 0 ? -errno : 0;
	if (!err && wanted->hidden)
		err = allow_the_rest(&w, wanted->hidden);
	if (!err && syscall(SYS_landlock_restrict_self, w.ruleset, 0))
		err = -errno;
	if (w.ruleset >= 0)
		close(w.ruleset);
	return err ? fault__set(fault, err, "landlock: %s", strerror(-err)) : 0;
}
