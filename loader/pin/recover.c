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
#include <stdio.h>
#include <string.h>

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

/*
 * Without its name a link goes, too, but some time later: until then its hook would be taken. A link that was
 * about to get another name has two.
 */
static int remove_link(int home, const struct generation *current, const struct pin *pin)
{
	if (!record__has_link_id(current, kernel__link_id(pin->fd)))
		bpf_link_detach(pin->fd);
	return paths__remove_link(home, pin->name, false);
}

/* One link after a loader was killed: what `next` put there goes back to what `current` had. */
static int restore_link(int home, const struct generation *current, const struct pin *pin,
			const struct generation *next)
{
	char link[BPFFS_NAME_SIZE];
	uint32_t id = kernel__link_id(pin->fd);
	const char *program;
	int fd, new_fd;

	snprintf(link, sizeof(link), "%s", pin->name);
	if (cut_aside(link)) {
		/* After the commit it only waited for its name. */
		if (id && id == record__link_id(current, link))
			return paths__settle_link(home, link);
		return remove_link(home, current, pin);
	}
	program = link_program_name(current, link);
	if (!program)
		return remove_link(home, current, pin);
	/* After the commit what can be updated was, and what was replaced waits aside for this name. */
	if (record__number(next, "generation") <= record__number(current, "generation"))
		return 0;
	fd = bpffs__find(&current->programs, program);
	new_fd = bpffs__find(&next->programs, program);
	/* Somebody else's link is left for the start to find. */
	if (fd < 0 || new_fd < 0 || id != record__link_id(current, link) ||
	    kernel__link_program(pin->fd) == kernel__program_id(fd) ||
	    kernel__link_program(pin->fd) != kernel__program_id(new_fd))
		return 0;
	LIBBPF_OPTS(bpf_link_update_opts, opts, .flags = BPF_F_REPLACE, .old_prog_fd = new_fd);
	if (!bpf_link_update(pin->fd, fd, &opts))
		return 0;
	/* Whatever it was attached to is gone since: the start that comes attaches anew. */
	return errno == ENOLINK || errno == ENODEV ? 0 : -errno;
}

static int restore_links(int home, const char *shown, const struct generation *current,
			 const struct generation *next, struct fault *fault)
{
	struct pin_list links;
	int err = paths__list_links(home, &links, shown, fault);

	if (err)
		return err;
	for (size_t i = 0; !err && i < links.count; i++) {
		err = restore_link(home, current, &links.items[i], next);
		if (err)
			fault__set(fault, err, "%.200s/links: cannot restore %.100s: %s", shown,
				   links.items[i].name, bpffs__reason(err));
	}
	bpffs__free(&links);
	return err;
}

/* An old generation beside a new one was about to become `previous`; a new one never got that far. */
static int settle_next(int home, const struct generation *current, const struct generation *next)
{
	int err;

	if (!next->record || record__number(next, "generation") > record__number(current, "generation") ||
	    !strcmp(record__text(next, "digest"), record__text(current, "digest")))
		return generation__remove(home, "next");
	err = generation__remove(home, "previous");
	return err ? err : bpffs__rename(home, "next", "previous");
}

int recover__update(int home, const char *shown, const struct generation *current, struct fault *fault)
{
	struct generation next;
	int err = generation__open(&next, home, "next", shown, fault);

	if (err == -ENOENT)
		next = (struct generation){ 0 };
	else if (err)
		return err;
	err = restore_links(home, shown, current, &next, fault);
	if (!err) {
		err = settle_next(home, current, &next);
		if (err)
			fault__set(fault, err, "%.300s/next: cannot clean up: %s", shown, bpffs__reason(err));
	}
	generation__close(&next);
	return err;
}

void recover__renames(int home)
{
	if (!bpffs__exists(home, "current") && bpffs__exists(home, "previous"))
		bpffs__rename(home, "next", "current");
}

/* What a first start may have left, and nothing else, is ours to remove. */
int recover__check_ours(int home, const char *shown, struct fault *fault)
{
	struct file_list names = { 0 };
	int err = file__list(home, &names);

	for (size_t i = 0; !err && i < names.count; i++) {
		if (strcmp(names.names[i], "links") && strcmp(names.names[i], "next"))
			err = -EEXIST;
	}
	file__list_free(&names);
	return err ? fault__set(fault, -EEXIST, "%.300s: something else is there, not pins of ours", shown) :
		     0;
}

int recover__remove_half(int home, int root, const char *object)
{
	struct fault ignored = { 0 };
	struct pin_list links;

	if (!paths__list_links(home, &links, "", &ignored)) {
		for (size_t i = 0; i < links.count; i++)
			bpf_link_detach(links.items[i].fd);
		bpffs__free(&links);
	}
	return bpffs__remove(root, object);
}
