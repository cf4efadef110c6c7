// SPDX-License-Identifier: Apache-2.0
#include "pin/pins.h"

#include "base/fault.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "pin/bpffs.h"
#include "pin/generation.h"
#include "pin/paths.h"
#include "pin/record.h"
#include "pin/recover.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int make_home(const struct pins *p)
{
	char at[BPFFS_PATH_SIZE];
	int err = paths__part(at, p->path, "links");

	if (!err && ((mkdir(p->path, 0700) && errno != EEXIST) || mkdir(at, 0700)))
		err = -errno;
	return err;
}

/* Fills @p with where the pins of @object are, and @at with where the generation in force is. */
static int find_places(struct pins *p, char at[BPFFS_PATH_SIZE], const char *root, const char *object,
		       struct fault *fault)
{
	int err;

	*p = (struct pins){ 0 };
	err = bpffs__path(p->path, root, object);
	if (!err)
		err = paths__part(at, p->path, "current");
	return err ? fault__set(fault, err, "%.128s: name too long for a pin", object) : 0;
}

int pins__open_existing(struct pins *p, const char *root, const char *object, struct fault *fault)
{
	char at[BPFFS_PATH_SIZE];
	int err = find_places(p, at, root, object, fault);

	if (err)
		return err;
	err = generation__open(&p->current, at, fault);
	if (err == -ENOENT && !fault->text[0])
		fault__set(fault, err, "%.300s: no pins of ours, or a start that was killed: start again",
			   p->path);
	return err;
}

int pins__open(struct pins *p, const char *root, const char *object, struct fault *fault)
{
	char at[BPFFS_PATH_SIZE];
	int err = find_places(p, at, root, object, fault);

	if (err)
		return err;
	recover__renames(p->path);
	err = generation__open(&p->current, at, fault);
	if (!err)
		err = record__check_programs(&p->current, at, fault);
	if (!err)
		err = recover__update(p->path, &p->current, fault);
	else if (err == -ENOENT && !p->current.record) {
		/* Nothing, or a first start that was killed. */
		err = recover__check_ours(p->path, fault);
		if (err)
			return err;
		err = recover__remove_half(p->path);
		if (!err)
			err = make_home(p);
		if (err)
			fault__set(fault, err, "%.300s: %s", p->path, strerror(-err));
	}
	if (err)
		pins__close(p);
	return err;
}

void pins__close(struct pins *p)
{
	generation__close(&p->current);
}

int pins__open_previous(const struct pins *p, struct generation *g, struct fault *fault)
{
	char at[BPFFS_PATH_SIZE];
	int err = paths__part(at, p->path, "previous");

	if (!err)
		err = generation__open(g, at, fault);
	if (!err)
		err = record__check_programs(g, at, fault);
	return err;
}

int pins__stage(const struct pins *p, struct generation *g, struct fault *fault)
{
	char at[BPFFS_PATH_SIZE];
	int64_t number = record__number(&p->current, "generation") + 1;

	if (paths__part(at, p->path, "next") ||
	    json_object_set_new(g->record, "generation", json_integer(number)))
		return fault__set(fault, -ENOMEM, "out of memory");
	return generation__write(g, at, fault);
}

void pins__unstage(const struct pins *p)
{
	char at[BPFFS_PATH_SIZE];

	if (!paths__part(at, p->path, "next"))
		bpffs__remove(at);
}

static int rotate_names(const char *next, const char *current, const char *previous, bool rotate)
{
	int err = 0;

	if (!bpffs__exists(current))
		return rename(next, current) ? -errno : 0;
	if (!renameat2(AT_FDCWD, next, AT_FDCWD, current, RENAME_EXCHANGE)) {
		if (!rotate)
			return bpffs__remove(next);
		err = bpffs__remove(previous);
		return err ? err : rename(next, previous) ? -errno : 0;
	}
	if (errno != EINVAL)
		return -errno;
	/* Before Linux 5.17. */
	err = bpffs__remove(previous);
	if (!err && (rename(current, previous) || rename(next, current)))
		err = -errno;
	return err;
}

int pins__commit(const struct pins *p, bool rotate, struct fault *fault)
{
	char next[BPFFS_PATH_SIZE], current[BPFFS_PATH_SIZE], previous[BPFFS_PATH_SIZE];
	int err = paths__part(next, p->path, "next");

	if (!err)
		err = paths__part(current, p->path, "current");
	if (!err)
		err = paths__part(previous, p->path, "previous");
	if (!err)
		err = rotate_names(next, current, previous, rotate);
	return err ? fault__set(fault, err, "%.300s: %s", p->path, strerror(-err)) : 0;
}

int pins__get_link(const struct pins *p, const char *link)
{
	char at[BPFFS_PATH_SIZE];
	int err = paths__link(at, p->path, link, "");

	return err ? err : bpffs__get(at, BPFFS_LINK);
}

int pins__put_link(const struct pins *p, const char *link, int fd)
{
	char at[BPFFS_PATH_SIZE];
	int err = paths__link(at, p->path, link, "");

	if (!err && bpffs__exists(at))
		err = paths__link(at, p->path, link, PATHS_ASIDE);
	if (!err && bpf_obj_pin(fd, at))
		err = -errno;
	return err;
}

void pins__drop_link(const struct pins *p, const char *link, bool aside)
{
	char at[BPFFS_PATH_SIZE];

	if (!paths__link(at, p->path, link, aside ? PATHS_ASIDE : ""))
		bpffs__remove(at);
}

static int retire_link(const struct pins *p, const struct generation *old, const char *link)
{
	const json_t *item = json_object_get(json_object_get(old->record, "links"), link);
	char at[BPFFS_PATH_SIZE];
	int err = paths__link(at, p->path, link, "");

	if (!err)
		err = bpffs__remove(at);
	if (!err)
		log__write(&(struct log_line){
			.event = "detach",
			.object = record__text(old, "file"),
			.program = json_string_value(json_object_get(item, "program")),
			.target = json_string_value(json_object_get(item, "target")),
		});
	return err;
}

int pins__retire_links(const struct pins *p, const struct generation *g, struct fault *fault)
{
	struct pin_list links;
	int err = paths__list_links(p->path, &links, fault);

	if (err)
		return err;
	for (size_t i = 0; !err && i < links.count; i++) {
		if (g && record__has_link(g, links.items[i].name))
			continue;
		/* At once: without its name it would go some time later. */
		bpf_link_detach(links.items[i].fd);
		err = retire_link(p, &p->current, links.items[i].name);
		if (err)
			fault__set(fault, err, "%.200s/links: cannot remove %.100s: %s", p->path,
				   links.items[i].name, strerror(-err));
	}
	bpffs__free(&links);
	return err;
}

/* Without its name it is what a first start may have left: killed halfway, we keep nobody from starting. */
static int disown_current(const struct pins *p)
{
	char current[BPFFS_PATH_SIZE], next[BPFFS_PATH_SIZE], previous[BPFFS_PATH_SIZE];
	int err = paths__part(next, p->path, "next");

	if (!err)
		err = paths__part(current, p->path, "current");
	if (!err)
		err = paths__part(previous, p->path, "previous");
	if (!err)
		err = bpffs__remove(previous);
	return err ? err : rename(current, next) ? -errno : 0;
}

int pins__remove(struct pins *p, struct fault *fault)
{
	int err = pins__retire_links(p, NULL, fault);

	if (err)
		return err;
	if (p->current.record)
		err = disown_current(p);
	if (!err)
		err = bpffs__remove(p->path);
	return err ? fault__set(fault, err, "%.300s: %s", p->path, strerror(-err)) : 0;
}

static int note_version(const char *home, pins_version *note, void *context, struct fault *fault)
{
	struct generation g;
	char at[BPFFS_PATH_SIZE];
	int err;

	if (snprintf(at, sizeof(at), "%s/current", home) >= (int)sizeof(at))
		return fault__set(fault, -ENAMETOOLONG, "%.300s: name too long", home);
	err = generation__open_record(&g, at, fault);
	if (!err && note(context, record__text(&g, "project"), record__text(&g, "object"),
			 record__number(&g, "version")))
		err = fault__set(fault, -ENOMEM, "out of memory");
	generation__close(&g);
	return err == -ENOENT ? 0 : err;
}

int pins__list_versions(const char *root, pins_version *note, void *context, struct fault *fault)
{
	int fd = bpffs__open(root, false, fault), err;
	struct file_list names;
	char at[BPFFS_PATH_SIZE];

	if (fd == -ENOENT) {
		fault->text[0] = 0;
		return 0;
	}
	if (fd < 0)
		return fd;
	err = file__list(fd, &names);
	if (err)
		fault__set(fault, err, "%.200s: %s", root, strerror(-err));
	for (size_t i = 0; !err && i < names.count; i++) {
		snprintf(at, sizeof(at), "%.255s/%.255s", root, names.names[i]);
		err = note_version(at, note, context, fault);
	}
	file__list_free(&names);
	close(fd);
	return err;
}
