// SPDX-License-Identifier: Apache-2.0
#include "run/versions.h"

#include "base/fault.h"
#include "base/file.h"
#include "base/json.h"
#include "base/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STATE_NAME	"versions.json"
#define STATE_NEW	".versions.json.new"
#define STATE_MAX_BYTES (1u << 20)
#define COUNT(array)	(sizeof(array) / sizeof((array)[0]))

static const struct json_member state_members[] = {
	{ "stateVersion", JSON_KIND_INTEGER },
	{ "projects", JSON_KIND_OBJECT },
};

static int check_projects(json_t *projects, struct fault *fault)
{
	const char *project, *name;
	json_t *objects, *version;

	json_object_foreach(projects, project, objects) {
		if (!json__is_project(project) || !json_is_object(objects))
			return fault__set(fault, -EINVAL, "not a project");
		json_object_foreach(objects, name, version) {
			if (!json__is_object_name(name) || !json__is_integer(version))
				return fault__set(fault, -EINVAL, "not the version of an object");
		}
	}
	return 0;
}

static int parse(struct versions *s, const uint8_t *data, size_t size, struct fault *fault)
{
	int err = json__parse(&s->root, data, size, fault);

	if (!err)
		err = json__check(s->root, state_members, COUNT(state_members), "state", fault);
	if (!err && json_integer_value(json_object_get(s->root, "stateVersion")) != 1)
		err = fault__set(fault, -EINVAL, "stateVersion: unknown");
	if (!err)
		err = check_projects(json_object_get(s->root, "projects"), fault);
	return err;
}

/* Make the members without json_pack(), which would add 1 % to the size of the loader. */
static int make_empty(struct versions *s)
{
	s->root = json_object();
	if (json_object_set_new(s->root, "stateVersion", json_integer(1)) ||
	    json_object_set_new(s->root, "projects", json_object()))
		return -ENOMEM;
	return 0;
}

int versions__begin(struct versions *s)
{
	*s = (struct versions){ .dir = -1, .file = -1 };
	return make_empty(s);
}

static int read_state(struct versions *s, struct fault *fault)
{
	struct stat st;
	uint8_t *data;
	size_t size;
	int err = file__read(s->dir, STATE_NAME, STATE_MAX_BYTES, &data, &size);

	/* A dangling symbolic link is an error, not an empty state. */
	if (err == -ENOENT && fstatat(s->dir, STATE_NAME, &st, AT_SYMLINK_NOFOLLOW))
		return make_empty(s);
	if (err)
		return fault__set(fault, err, "%s",
				  err == -ENODEV ? "not a regular file" :
				  err == -EFBIG	 ? "too large" :
						   strerror(-err));
	err = parse(s, data, size, fault);
	free(data);
	return err;
}

static int make_next(struct versions *s, struct fault *fault)
{
	s->file = file__create(s->dir, STATE_NEW, 0644);
	if (s->file >= 0)
		return 0;
	if (s->file == -EROFS)
		return fault__set(fault, s->file,
				  "cannot write: %s; mount the directory for writing, without :ro",
				  strerror(EROFS));
	if (s->file != -EACCES && s->file != -EPERM)
		return fault__set(fault, s->file, "cannot write: %s", strerror(-s->file));
	return fault__set(fault, s->file, "cannot write: %s; run chown %u on the directory",
			  strerror(-s->file), geteuid());
}

int versions__open(struct versions *s, const char *path, struct fault *fault)
{
	struct fault inner = { 0 };
	int err;

	*s = (struct versions){ .dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), .file = -1 };
	if (s->dir < 0)
		return fault__set(fault, -errno, "state %.200s: %s", path, strerror(errno));
	err = lock__take(s->dir, path, &inner);
	if (!err)
		err = read_state(s, &inner);
	if (!err)
		err = make_next(s, &inner);
	if (err) {
		fault__set(fault, err, "state %.200s/" STATE_NAME ": %s", path,
			   inner.text[0] ? inner.text : strerror(-err));
		versions__close(s);
	}
	return err;
}

static json_t *objects_of(const struct versions *s, const char *project)
{
	return json_object_get(json_object_get(s->root, "projects"), project);
}

int64_t versions__version(const struct versions *s, const char *project, const char *name)
{
	return json_integer_value(json_object_get(objects_of(s, project), name));
}

int versions__raise(struct versions *s, const char *project, const char *name, int64_t version)
{
	json_t *objects = objects_of(s, project);

	if (version <= versions__version(s, project, name) && json_object_get(objects, name))
		return 0;
	if (!objects) {
		objects = json_object();
		if (json_object_set_new(json_object_get(s->root, "projects"), project, objects))
			return -ENOMEM;
	}
	if (json_object_set_new(objects, name, json_integer(version)))
		return -ENOMEM;
	s->grew = true;
	return 0;
}

static int write_file(int fd, const char *text, size_t size)
{
	while (size) {
		ssize_t n = write(fd, text, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		text += n;
		size -= (size_t)n;
	}
	return fsync(fd) ? -errno : 0;
}

/* After a failure, versions__close() removes the file. */
static int replace_file(struct versions *s, const char *text)
{
	int err = write_file(s->file, text, strlen(text));

	if (!err && renameat(s->dir, STATE_NEW, s->dir, STATE_NAME))
		err = -errno;
	if (err)
		return err;
	close(s->file);
	s->file = -1;
	return fsync(s->dir) ? -errno : 0;
}

int versions__save(struct versions *s, struct fault *fault)
{
	char *text;
	int err;

	if (!s->grew)
		return 0;
	text = json_dumps(s->root, JSON_SORT_KEYS | JSON_COMPACT);
	err = !text ? -ENOMEM : strlen(text) > STATE_MAX_BYTES ? -EFBIG : replace_file(s, text);
	free(text);
	if (err)
		return fault__set(fault, err, "state: cannot write " STATE_NAME ": %s", strerror(-err));
	s->grew = false;
	return 0;
}

void versions__close(struct versions *s)
{
	json_decref(s->root);
	if (s->file >= 0) {
		unlinkat(s->dir, STATE_NEW, 0);
		close(s->file);
	}
	if (s->dir >= 0)
		close(s->dir);
	*s = (struct versions){ .dir = -1, .file = -1 };
}
