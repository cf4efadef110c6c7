// SPDX-License-Identifier: Apache-2.0
#include "pin/pins.h"

#include "base/fault.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "pin/bpffs.h"
#include "pin/generation.h"
#include "pin/kernel.h"
#include "pin/paths.h"
#include "pin/record.h"
#include "pin/recover.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int make_home(struct pins *p)
{
	int links;

	p->home = bpffs__make(p->root, p->object);
	if (p->home < 0)
		return p->home;
	links = bpffs__make(p->home, "links");
	if (links < 0)
		return links;
	close(links);
	return 0;
}

int pins__open_unread(struct pins *p, int root, const char *shown, const char *object, struct fault *fault)
{
	*p = PINS_NONE;
	p->root = root;
	p->object = object;
	bpffs__show(p->path, shown, object);
	p->home = bpffs__enter(root, object);
	if (p->home == -ENAMETOOLONG)
		return fault__set(fault, p->home, "%.128s: name too long for a pin", object);
	if (p->home < 0 && p->home != -ENOENT)
		return fault__set(fault, p->home, "%.300s: %s", p->path, bpffs__reason(p->home));
	return 0;
}

static int open_current(struct pins *p, struct fault *fault)
{
	return p->home < 0 ? -ENOENT : generation__open(&p->current, p->home, "current", p->path, fault);
}

static int check_generation(const struct generation *g, const struct pins *p, const char *name,
			    struct fault *fault)
{
	char shown[BPFFS_PATH_SIZE];

	bpffs__show(shown, p->path, name);
	/* Directories can be renamed. */
	if (strcmp(record__text(g, "object"), p->object))
		return fault__set(fault, -EEXIST, "%.300s: its record is of another object", shown);
	return record__check_ids(g, shown, fault);
}

int pins__open_existing(struct pins *p, int root, const char *shown, const char *object, struct fault *fault)
{
	int err = pins__open_unread(p, root, shown, object, fault);

	if (!err)
		err = open_current(p, fault);
	if (err == -ENOENT && !fault->text[0])
		fault__set(fault, err, "%.300s: no pins of ours, or a start that was killed: start again",
			   p->path);
	else if (!err)
		err = check_generation(&p->current, p, "current", fault);
	if (err)
		pins__close(p);
	return err;
}

/* There is nothing, or a first start that was killed. */
static int begin_anew(struct pins *p, struct fault *fault)
{
	int err = p->home < 0 ? 0 : recover__check_ours(p->home, p->path, fault);

	if (err)
		return err;
	if (p->home >= 0) {
		err = recover__remove_half(p->home, p->root, p->object);
		close(p->home);
		p->home = -1;
	}
	if (!err)
		err = make_home(p);
	return err ? fault__set(fault, err, "%.300s: %s", p->path, bpffs__reason(err)) : 0;
}

int pins__open(struct pins *p, int root, const char *shown, const char *object, struct fault *fault)
{
	int err = pins__open_unread(p, root, shown, object, fault);

	if (err)
		return err;
	if (p->home >= 0)
		recover__renames(p->home);
	err = open_current(p, fault);
	if (err == -ENOENT && !fault->text[0]) {
		err = begin_anew(p, fault);
	} else if (!err) {
		err = check_generation(&p->current, p, "current", fault);
		if (!err)
			err = recover__update(p->home, p->path, &p->current, fault);
	}
	if (err)
		pins__close(p);
	return err;
}

void pins__close(struct pins *p)
{
	generation__close(&p->current);
	if (p->home >= 0)
		close(p->home);
	p->home = -1;
}

int pins__open_previous(const struct pins *p, struct generation *g, struct fault *fault)
{
	int err = generation__open(g, p->home, "previous", p->path, fault);

	if (err)
		return err;
	err = check_generation(g, p, "previous", fault);
	if (err)
		generation__close(g);
	return err;
}

int pins__stage(const struct pins *p, struct generation *g, struct fault *fault)
{
	int64_t number = record__number(&p->current, "generation") + 1;

	if (json_object_set_new(g->record, "generation", json_integer(number)))
		return fault__set(fault, -ENOMEM, "out of memory");
	return generation__write(g, p->home, "next", p->path, fault);
}

void pins__unstage(const struct pins *p)
{
	generation__remove(p->home, "next");
}

int pins__stage_links(const struct pins *p, const struct generation *g, struct fault *fault)
{
	int err = generation__write_attached(g, p->home, "next");

	return err ? fault__set(fault, err, "%.300s: cannot pin: %s", p->path, bpffs__reason(err)) : 0;
}

static int rotate_names(int home, bool rotate)
{
	int err;

	if (!bpffs__exists(home, "current"))
		return bpffs__rename(home, "next", "current");
	err = bpffs__exchange(home, "next", "current");
	if (!err && !rotate)
		return generation__remove(home, "next");
	if (err && err != -EINVAL)
		return err;
	/* Two renames before Linux 5.17. */
	if (!err) {
		err = generation__remove(home, "previous");
		return err ? err : bpffs__rename(home, "next", "previous");
	}
	err = generation__remove(home, "previous");
	if (!err)
		err = bpffs__rename(home, "current", "previous");
	return err ? err : bpffs__rename(home, "next", "current");
}

int pins__commit(const struct pins *p, bool rotate, struct fault *fault)
{
	int err = rotate_names(p->home, rotate);

	return err ? fault__set(fault, err, "%.300s: %s", p->path, bpffs__reason(err)) : 0;
}

/* An interface that is gone leaves a link without one, which still has its id and its program. */
static bool is_recorded(const struct pins *p, const char *link, int fd)
{
	const json_t *item = json_object_get(json_object_get(p->current.record, "links"), link);
	const char *name = json_string_value(json_object_get(item, "program"));
	int program = bpffs__find(&p->current.programs, name ? name : "");

	if (!name || kernel__link_id(fd) != record__link_id(&p->current, link))
		return false;
	/* A map of struct_ops has the link, and no program. */
	return program < 0 || kernel__link_is_severed(fd) ||
	       kernel__link_program(fd) == kernel__program_id(program);
}

int pins__get_link(const struct pins *p, const char *link)
{
	int fd = paths__get_link(p->home, link);

	if (fd < 0 || is_recorded(p, link, fd))
		return fd;
	close(fd);
	return -EEXIST;
}

static int retire_link(const struct pins *p, const struct generation *g, const struct pin *pin)
{
	const char *link = pin->name;
	const json_t *item = json_object_get(json_object_get(p->current.record, "links"), link);
	char program[BPFFS_NAME_SIZE];
	int err;

	/* The link has another name now, under which it stays. */
	if (g && record__has_link_id(g, kernel__link_id(pin->fd)))
		return paths__remove_link(p->home, link, false);
	/* At once: without its name it would go some time later. */
	bpf_link_detach(pin->fd);
	err = paths__remove_link(p->home, link, false);
	snprintf(program, sizeof(program), "%.*s", (int)strcspn(link, "@"), link);
	if (!err)
		log__write(&(struct log_line){
			.event = "detach",
			.object = p->current.record ? record__text(&p->current, "file") : p->object,
			.program = program,
			.target = item ? json_string_value(json_object_get(item, "target")) :
					 link + strcspn(link, "@") + 1,
		});
	return err;
}

int pins__retire_links(const struct pins *p, const struct generation *g, struct fault *fault)
{
	struct pin_list links;
	int err = paths__list_links(p->home, &links, p->path, fault);

	if (err)
		return err;
	for (size_t i = 0; !err && i < links.count; i++) {
		if (g && record__has_link(g, links.items[i].name))
			continue;
		err = retire_link(p, g, &links.items[i]);
		if (err)
			fault__set(fault, err, "%.200s/links: cannot remove %.100s: %s", p->path,
				   links.items[i].name, bpffs__reason(err));
	}
	bpffs__free(&links);
	return err;
}

/* Without its name it is what a first start may have left: killed halfway, we keep nobody from starting. */
static int disown_current(const struct pins *p)
{
	int err = generation__remove(p->home, "previous");

	if (!err)
		err = bpffs__rename(p->home, "current", "next");
	return err == -ENOENT ? 0 : err;
}

int pins__remove(struct pins *p, struct fault *fault)
{
	int err = p->home < 0 ? 0 : pins__retire_links(p, NULL, fault);

	if (err)
		return err;
	if (p->home >= 0)
		err = disown_current(p);
	if (!err)
		err = bpffs__remove(p->root, p->object);
	return err ? fault__set(fault, err, "%.300s: %s", p->path, bpffs__reason(err)) : 0;
}

static int note_version(int root, const char *shown, const char *object, pins_version *note, void *context,
			struct fault *fault)
{
	struct generation g = { 0 };
	struct pins p;
	int err = pins__open_unread(&p, root, shown, object, fault);

	if (!err)
		err = p.home < 0 ? -ENOENT : generation__open_record(&g, p.home, "current", p.path, fault);
	if (!err && note(context, record__text(&g, "project"), record__text(&g, "object"),
			 record__number(&g, "version")))
		err = fault__set(fault, -ENOMEM, "out of memory");
	generation__close(&g);
	pins__close(&p);
	return err == -ENOENT ? 0 : err;
}

int pins__list_versions(const char *root, pins_version *note, void *context, struct fault *fault)
{
	int fd = bpffs__open(root, false, fault), err;
	struct file_list names;

	if (fd == -ENOENT) {
		fault->text[0] = 0;
		return 0;
	}
	if (fd < 0)
		return fd;
	err = file__list(fd, &names);
	if (err)
		fault__set(fault, err, "%.200s: %s", root, bpffs__reason(err));
	for (size_t i = 0; !err && i < names.count; i++) {
		bpffs__unescape(names.names[i]);
		err = note_version(fd, root, names.names[i], note, context, fault);
	}
	file__list_free(&names);
	close(fd);
	return err;
}
