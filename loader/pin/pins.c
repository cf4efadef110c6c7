// SPDX-License-Identifier: Apache-2.0
#include "pin/pins.h"

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "pin/recover.h"
#include "verify/versions.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

uint32_t program__id(int fd)
{
	struct bpf_prog_info info = { 0 };
	__u32 size = sizeof(info);

	return fd < 0 || bpf_prog_get_info_by_fd(fd, &info, &size) ? 0 : info.id;
}

uint32_t link__program(int fd)
{
	struct bpf_link_info info = { 0 };
	__u32 size = sizeof(info);

	return bpf_link_get_info_by_fd(fd, &info, &size) ? 0 : info.prog_id;
}

bool link__is_severed(int fd)
{
	struct bpf_link_info info = { 0 };
	__u32 size = sizeof(info);

	if (bpf_link_get_info_by_fd(fd, &info, &size))
		return true;
	switch (info.type) {
	case BPF_LINK_TYPE_XDP:
	case BPF_LINK_TYPE_TCX:
	case BPF_LINK_TYPE_NETKIT:
		return !info.xdp.ifindex;
	case BPF_LINK_TYPE_CGROUP:
		return !info.cgroup.cgroup_id;
	case BPF_LINK_TYPE_NETNS:
		return !info.netns.netns_ino;
	default:
		return false;
	}
}

int pins__part(char at[BPFFS_PATH_SIZE], const struct pins *p, const char *name)
{
	return bpffs__path(at, p->path, name);
}

int pins__link_path(char at[BPFFS_PATH_SIZE], const struct pins *p, const char *link, const char *suffix)
{
	char directory[BPFFS_PATH_SIZE], name[BPFFS_PATH_SIZE];
	int n = snprintf(name, sizeof(name), "%s%s", link, suffix);

	if (n < 0 || n >= (int)sizeof(name) || pins__part(directory, p, "links"))
		return -ENAMETOOLONG;
	return bpffs__path(at, directory, name);
}

int pins__list_links(const struct pins *p, struct pin_list *links, struct fault *fault)
{
	char at[BPFFS_PATH_SIZE];

	if (pins__part(at, p, "links"))
		return fault__set(fault, -ENAMETOOLONG, "%.200s: name too long", p->path);
	return bpffs__list(at, BPFFS_LINK, links, fault);
}

static int make_home(const struct pins *p)
{
	char at[BPFFS_PATH_SIZE];
	int err = pins__part(at, p, "links");

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
		err = pins__part(at, p, "current");
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
	pins__finish_renames(p);
	err = generation__open(&p->current, at, fault);
	if (!err)
		err = record__check_programs(&p->current, at, fault);
	if (!err)
		err = pins__recover(p, fault);
	else if (err == -ENOENT && !p->current.record) {
		/* Nothing, or a first start that was killed. */
		err = pins__check_ours(p, fault);
		if (err)
			return err;
		err = pins__remove_half(p);
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
	int err = pins__part(at, p, "previous");

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

	if (pins__part(at, p, "next") || json_object_set_new(g->record, "generation", json_integer(number)))
		return fault__set(fault, -ENOMEM, "out of memory");
	return generation__write(g, at, fault);
}

void pins__unstage(const struct pins *p)
{
	char at[BPFFS_PATH_SIZE];

	if (!pins__part(at, p, "next"))
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
	int err = pins__part(next, p, "next");

	if (!err)
		err = pins__part(current, p, "current");
	if (!err)
		err = pins__part(previous, p, "previous");
	if (!err)
		err = rotate_names(next, current, previous, rotate);
	return err ? fault__set(fault, err, "%.300s: %s", p->path, strerror(-err)) : 0;
}

int pins__get_link(const struct pins *p, const char *link)
{
	char at[BPFFS_PATH_SIZE];
	int err = pins__link_path(at, p, link, "");

	return err ? err : bpffs__get(at, BPFFS_LINK);
}

int pins__put_link(const struct pins *p, const char *link, int fd)
{
	char at[BPFFS_PATH_SIZE];
	int err = pins__link_path(at, p, link, "");

	if (!err && bpffs__exists(at))
		err = pins__link_path(at, p, link, PINS_ASIDE);
	if (!err && bpf_obj_pin(fd, at))
		err = -errno;
	return err;
}

int pins__settle_link(const struct pins *p, const char *link)
{
	char at[BPFFS_PATH_SIZE], aside[BPFFS_PATH_SIZE];
	int err = pins__link_path(at, p, link, "");

	if (!err)
		err = pins__link_path(aside, p, link, PINS_ASIDE);
	/* What was there before is detached by losing its name. */
	if (!err && rename(aside, at))
		err = -errno;
	return err;
}

void pins__drop_link(const struct pins *p, const char *link, bool aside)
{
	char at[BPFFS_PATH_SIZE];

	if (!pins__link_path(at, p, link, aside ? PINS_ASIDE : ""))
		bpffs__remove(at);
}

static int retire_link(const struct pins *p, const struct generation *old, const char *link)
{
	const json_t *item = json_object_get(json_object_get(old->record, "links"), link);
	char at[BPFFS_PATH_SIZE];
	int err = pins__link_path(at, p, link, "");

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
	int err = pins__list_links(p, &links, fault);

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
	int err = pins__part(next, p, "next");

	if (!err)
		err = pins__part(current, p, "current");
	if (!err)
		err = pins__part(previous, p, "previous");
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

static int raise_version(const char *home, struct state *state, struct fault *fault)
{
	struct generation g;
	char at[BPFFS_PATH_SIZE];
	int err;

	if (snprintf(at, sizeof(at), "%s/current", home) >= (int)sizeof(at))
		return fault__set(fault, -ENAMETOOLONG, "%.300s: name too long", home);
	err = generation__open_record(&g, at, fault);
	if (!err && state__raise(state, record__text(&g, "project"), record__text(&g, "object"),
				 record__number(&g, "version")))
		err = fault__set(fault, -ENOMEM, "out of memory");
	generation__close(&g);
	return err == -ENOENT ? 0 : err;
}

int load__pinned_versions(const char *root, struct state *state, struct fault *fault)
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
		err = raise_version(at, state, fault);
	}
	file__list_free(&names);
	close(fd);
	return err;
}
