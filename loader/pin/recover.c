// SPDX-License-Identifier: Apache-2.0
#include "pin/recover.h"

#include "base/fault.h"
#include "base/file.h"
#include "base/json.h"
#include "pin/bpffs.h"
#include "pin/generation.h"
#include "pin/kernel.h"
#include "pin/paths.h"
#include "pin/record.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool has_program(const struct generation *g, uint32_t id)
{
	for (size_t i = 0; id && i < g->programs.count; i++) {
		if (kernel__program_id(g->programs.items[i].fd) == id)
			return true;
	}
	return false;
}

static const char *link_program_name(const struct generation *g, const char *link)
{
	const json_t *item = json_object_get(json_object_get(g->record, "links"), link);

	return json_string_value(json_object_get(item, "program"));
}

static bool cut_aside(char *link)
{
	size_t n = strlen(link), m = strlen(PATHS_ASIDE);

	if (n < m || strcmp(link + n - m, PATHS_ASIDE))
		return false;
	link[n - m] = 0;
	return true;
}

/* Without its name a link goes, too, but some time later: until then its hook would be taken. */
static int remove_link(int fd, const char *at)
{
	bpf_link_detach(fd);
	return bpffs__remove(at);
}

/* One link after a loader was killed: what `next` put there goes back to what `current` had. */
static int restore_link(const char *home, const struct generation *current, const struct pin *pin,
			const struct generation *next)
{
	char at[BPFFS_PATH_SIZE], link[BPFFS_PATH_SIZE];
	uint32_t id = kernel__link_program(pin->fd);
	const char *program;
	int fd, new_fd, err;

	snprintf(link, sizeof(link), "%s", pin->name);
	err = paths__link(at, home, pin->name, "");
	if (err)
		return err;
	if (cut_aside(link)) {
		/* After the commit it only waited for its name. */
		if (has_program(current, id) && record__has_link(current, link))
			return paths__settle_link(home, link);
		return remove_link(pin->fd, at);
	}
	program = link_program_name(current, link);
	if (!program)
		return remove_link(pin->fd, at);
	/* After the commit what can be updated was, and what was replaced waits aside for this name. */
	if (record__number(next, "generation") <= record__number(current, "generation"))
		return 0;
	fd = bpffs__find(&current->programs, program);
	new_fd = bpffs__find(&next->programs, program);
	if (fd < 0 || new_fd < 0 || id == kernel__program_id(fd) || id != kernel__program_id(new_fd))
		return 0;
	LIBBPF_OPTS(bpf_link_update_opts, opts, .flags = BPF_F_REPLACE, .old_prog_fd = new_fd);
	if (!bpf_link_update(pin->fd, fd, &opts))
		return 0;
	/* Whatever it was attached to is gone since: the start that comes attaches anew. */
	return errno == ENOLINK || errno == ENODEV ? 0 : -errno;
}

static int restore_links(const char *home, const struct generation *current, const struct generation *next,
			 struct fault *fault)
{
	struct pin_list links;
	int err = paths__list_links(home, &links, fault);

	if (err)
		return err;
	for (size_t i = 0; !err && i < links.count; i++) {
		err = restore_link(home, current, &links.items[i], next);
		if (err)
			fault__set(fault, err, "%.200s/links: cannot restore %.100s: %s", home,
				   links.items[i].name, strerror(-err));
	}
	bpffs__free(&links);
	return err;
}

/* An old generation beside a new one was about to become `previous`; a new one never got that far. */
static int settle_next(const char *home, const struct generation *current, const struct generation *next)
{
	char at[BPFFS_PATH_SIZE], previous[BPFFS_PATH_SIZE];
	int err = paths__part(at, home, "next");

	if (!err)
		err = paths__part(previous, home, "previous");
	if (err)
		return err;
	if (!next->record || record__number(next, "generation") > record__number(current, "generation") ||
	    !strcmp(record__text(next, "digest"), record__text(current, "digest")))
		return bpffs__remove(at);
	err = bpffs__remove(previous);
	return err ? err : rename(at, previous) ? -errno : 0;
}

int recover__update(const char *home, const struct generation *current, struct fault *fault)
{
	char at[BPFFS_PATH_SIZE];
	struct generation next;
	int err = paths__part(at, home, "next");

	if (!err)
		err = generation__open(&next, at, fault);
	if (err == -ENOENT)
		next = (struct generation){ 0 };
	else if (err)
		return err;
	err = restore_links(home, current, &next, fault);
	if (!err) {
		err = settle_next(home, current, &next);
		if (err)
			fault__set(fault, err, "%.300s: cannot clean up: %s", at, strerror(-err));
	}
	generation__close(&next);
	return err;
}

void recover__renames(const char *home)
{
	char current[BPFFS_PATH_SIZE], next[BPFFS_PATH_SIZE], previous[BPFFS_PATH_SIZE];

	if (!paths__part(current, home, "current") && !paths__part(next, home, "next") &&
	    !paths__part(previous, home, "previous") && !bpffs__exists(current) && bpffs__exists(previous))
		rename(next, current);
}

/* What a first start may have left, and nothing else, is ours to remove. */
int recover__check_ours(const char *home, struct fault *fault)
{
	struct file_list names = { 0 };
	int fd = open(home, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), err;

	if (fd < 0 && errno == ENOENT)
		return 0;
	err = fd < 0 ? -errno : file__list(fd, &names);
	if (fd >= 0)
		close(fd);
	for (size_t i = 0; !err && i < names.count; i++) {
		if (strcmp(names.names[i], "links") && strcmp(names.names[i], "next"))
			err = -EEXIST;
	}
	file__list_free(&names);
	return err ? fault__set(fault, -EEXIST, "%.300s: something else is there, not pins of ours", home) :
		     0;
}

int recover__remove_half(const char *home)
{
	struct fault ignored = { 0 };
	struct pin_list links;

	if (!paths__list_links(home, &links, &ignored)) {
		for (size_t i = 0; i < links.count; i++)
			bpf_link_detach(links.items[i].fd);
		bpffs__free(&links);
	}
	return bpffs__remove(home);
}
