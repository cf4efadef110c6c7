// SPDX-License-Identifier: Apache-2.0
#include "load/share.h"

#include "base/fault.h"
#include "base/file.h"
#include "load/unit.h"
#include "pin/bpffs.h"
#include "pin/generation.h"
#include "pin/record.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define UNFINISHED     "next"
#define VARIANT_DIGITS 16

static int open_entry(const char *entry)
{
	int fd = open(entry, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

bool share__is_used(const char *entry)
{
	int fd = open_entry(entry);
	bool used = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB);

	if (fd >= 0)
		close(fd);
	return used;
}

/*
 * Held together by all users; whoever takes an entry away holds the directory's lock, as we do. A workload
 * that turned the lock it was given into one of its own would keep a start waiting, and all behind it.
 */
static int hold(struct unit *unit)
{
	unit->share_lock = open_entry(unit->share);
	if (unit->share_lock < 0)
		return unit->share_lock;
	if (!flock(unit->share_lock, LOCK_SH | LOCK_NB))
		return 0;
	return errno == EWOULDBLOCK ? -EBUSY : -errno;
}

static int cannot_hold(const struct unit *unit, int err, struct fault *fault)
{
	return fault__set(fault, err, "%.300s: %s", unit->share,
			  err == -EBUSY ? "a workload has locked it for itself alone; end that one" :
					  strerror(-err));
}

/*
 * The kernel's word on a program that somebody pinned: its type, name and maker. That these are the
 * instructions that were verified is the word of whoever can write to the directory: our user alone.
 */
static int check_program(const struct unit *unit, const struct pin *pin, struct fault *fault)
{
	const struct bpf_program *program = bpf_object__find_program_by_name(unit->bpf, pin->name);
	struct bpf_prog_info info = { 0 };
	__u32 size = sizeof(info);

	if (!program || bpf_prog_get_info_by_fd(pin->fd, &info, &size) ||
	    info.type != bpf_program__type(program) || info.created_by_uid != geteuid() ||
	    strncmp(info.name, pin->name, sizeof(info.name) - 1))
		return fault__set(fault, -EEXIST, "%.200s/programs: %.64s is not what was pinned there",
				  unit->share, pin->name);
	return 0;
}

/* Returns 1 when the entry is there and in use by us now, 0 when there is none, or a negative errno. */
static int find(struct unit *unit, struct fault *fault)
{
	struct generation g;
	int err = generation__open(&g, unit->share, fault);

	if (err == -ENOENT && !access(unit->share, F_OK))
		return fault__set(fault, -EEXIST, "%.300s: something else is there, not pins of ours",
				  unit->share);
	if (err)
		return err == -ENOENT ? 0 : err;
	err = record__check_programs(&g, unit->share, fault);
	for (size_t i = 0; !err && i < g.programs.count; i++)
		err = check_program(unit, &g.programs.items[i], fault);
	if (!err)
		err = unit__take_pins(unit, &g, fault);
	if (!err && (err = hold(unit)))
		cannot_hold(unit, err, fault);
	generation__close(&g);
	return err ? err : 1;
}

/* Made aside, then renamed: an entry is whole or isn't there. */
static int make(const struct load *load, struct unit *unit, struct fault *fault)
{
	char aside[BPFFS_PATH_SIZE];
	int err = bpffs__path(aside, load->options->share, UNFINISHED);

	if (!err)
		err = bpffs__remove(aside);
	if (err)
		return fault__set(fault, err, "%.300s: %s", aside, strerror(-err));
	err = unit__load(load, unit, fault);
	if (!err)
		err = unit__collect(unit, fault);
	if (!err && record__note_programs(&unit->next))
		err = fault__set(fault, -ENOMEM, "out of memory");
	if (!err)
		err = generation__write(&unit->next, aside, fault);
	if (err)
		return err;
	err = rename(aside, unit->share) ? -errno : hold(unit);
	return err ? cannot_hold(unit, err, fault) : 0;
}

static int share_unit(const struct load *load, struct unit *unit, bool *made, struct fault *fault)
{
	int found;

	if (!unit__can_share(load, unit))
		return unit__load(load, unit, fault);
	if (asprintf(&unit->share, "%s/%s-%.*s", load->options->share, record__text(&unit->next, "digest"),
		     VARIANT_DIGITS, record__text(&unit->next, "variant")) < 0) {
		unit->share = NULL;
		return fault__set(fault, -ENOMEM, "out of memory");
	}
	found = find(unit, fault);
	if (found)
		return found < 0 ? found : 0;
	*made = true;
	return make(load, unit, fault);
}

/* Killed halfway, we leave what a starter that was killed leaves. The directory's lock is held. */
static int take_away(const char *directory, const char *entry)
{
	char aside[BPFFS_PATH_SIZE];
	int err = bpffs__path(aside, directory, UNFINISHED);

	if (!err)
		err = bpffs__remove(aside);
	if (!err && rename(entry, aside))
		err = errno == ENOENT ? 0 : -errno;
	return err ? err : bpffs__remove(aside);
}

/* DIGEST-VARIANT, or what a killed loader left. */
static bool is_entry(const char *name)
{
	return !strcmp(name, UNFINISHED) || (strspn(name, "0123456789abcdef") == 64 && name[64] == '-' &&
					     strlen(name) == 65 + VARIANT_DIGITS);
}

int share__clean(const char *directory, struct fault *fault)
{
	char entry[BPFFS_PATH_SIZE];
	struct file_list names;
	int fd = open_entry(directory), err = fd < 0 ? fd : file__list(fd, &names);

	if (fd >= 0)
		close(fd);
	if (err)
		return fault__set(fault, err, "%.200s: %s", directory, strerror(-err));
	for (size_t i = 0; !err && i < names.count; i++) {
		if (!is_entry(names.names[i]) ||
		    snprintf(entry, sizeof(entry), "%s/%s", directory, names.names[i]) >= (int)sizeof(entry))
			continue;
		if (!share__is_used(entry))
			err = take_away(directory, entry);
		if (err)
			fault__set(fault, err, "%.300s: %s", entry, strerror(-err));
	}
	file__list_free(&names);
	return err;
}

int share__obtain(struct load *load, struct fault *fault)
{
	struct fault ignored = { 0 };
	bool made = false;
	int lock = bpffs__open(load->options->share, true, fault), err = lock < 0 ? lock : 0;

	for (size_t i = 0; !err && i < load->count; i++)
		err = share_unit(load, &load->units[i], &made, fault);
	/* A new release: perhaps nobody runs the old one any more. */
	if (made && !err)
		share__clean(load->options->share, &ignored);
	if (lock >= 0)
		close(lock);
	return err;
}

void share__release(struct unit *unit)
{
	char *slash = unit->share && unit->share_lock >= 0 ? strrchr(unit->share, '/') : NULL, *directory;
	int lock;

	if (unit->share_lock >= 0)
		close(unit->share_lock);
	unit->share_lock = -1;
	if (slash) {
		directory = strndup(unit->share, (size_t)(slash - unit->share));
		lock = directory ? open_entry(directory) : -ENOMEM;
		/* Whoever starts at this moment has the lock: it stays for them. */
		if (lock >= 0 && !flock(lock, LOCK_EX | LOCK_NB) && !share__is_used(unit->share))
			take_away(directory, unit->share);
		if (lock >= 0)
			close(lock);
		free(directory);
	}
	free(unit->share);
	unit->share = NULL;
}
