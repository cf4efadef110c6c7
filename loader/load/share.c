// SPDX-License-Identifier: Apache-2.0
#include "load/share.h"

#include "base/fault.h"
#include "base/file.h"
#include "load/unit.h"
#include "pin/bpffs.h"
#include "pin/generation.h"
#include "pin/record.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define UNFINISHED "next"
/*
 * An entry's users hold the lock of this directory, which is empty. A workload inherits its descriptor, and
 * must not get one of what is pinned.
 */
#define USERS	       "users"
#define VARIANT_DIGITS 16

static int open_users(int directory, const char *entry)
{
	int home = bpffs__enter(directory, entry), fd;

	if (home < 0)
		return home;
	fd = bpffs__enter(home, USERS);
	close(home);
	return fd;
}

bool share__is_used(int directory, const char *entry)
{
	int fd = open_users(directory, entry);
	bool used = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB);

	if (fd >= 0)
		close(fd);
	return used;
}

/*
 * Held together by all users; whoever takes an entry away holds the directory's lock, as we do. A workload
 * that turned the lock it was given into one of its own would keep a start waiting, and all behind it.
 */
static int hold(struct share *share)
{
	share->lock = open_users(share->directory, share->name);
	if (share->lock < 0)
		return share->lock;
	if (!flock(share->lock, LOCK_SH | LOCK_NB))
		return 0;
	return errno == EWOULDBLOCK ? -EBUSY : -errno;
}

static int cannot_hold(const struct load *load, const struct unit *unit, int err, struct fault *fault)
{
	return fault__set(fault, err, "%.200s/%.100s: %s", load->options->share, unit->share.name,
			  err == -EBUSY ? "a workload has locked it for itself alone; end that one" :
					  bpffs__reason(err));
}

static int check(const struct load *load, const struct unit *unit, const struct generation *g,
		 struct fault *fault)
{
	char shown[BPFFS_PATH_SIZE];

	bpffs__show(shown, load->options->share, unit->share.name);
	/* Its name is not enough: entries can be renamed. */
	if (!record__is_same_code(g, &unit->next))
		return fault__set(fault, -EEXIST, "%.300s: its record is of another object", shown);
	return record__check_ids(g, shown, fault);
}

/* Returns 1 when the entry is there and in use by us now, 0 when there is none, or a negative errno. */
static int find(const struct load *load, struct unit *unit, struct fault *fault)
{
	const char *shown = load->options->share;
	struct generation g;
	int err = generation__open(&g, unit->share.directory, unit->share.name, shown, fault);

	if (err == -ENOENT && bpffs__exists(unit->share.directory, unit->share.name))
		return fault__set(fault, -EEXIST, "%.200s/%.100s: something else is there, not pins of ours",
				  shown, unit->share.name);
	if (err)
		return err == -ENOENT ? 0 : err;
	err = check(load, unit, &g, fault);
	if (!err)
		err = unit__take_pins(unit, &g, fault);
	if (!err && (err = hold(&unit->share)))
		cannot_hold(load, unit, err, fault);
	generation__close(&g);
	return err ? err : 1;
}

static int make_users(int directory)
{
	int home = bpffs__enter(directory, UNFINISHED), fd;

	if (home < 0)
		return home;
	fd = bpffs__make(home, USERS);
	close(home);
	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

/* Made aside, then renamed: an entry is whole or isn't there. */
static int make(struct load *load, struct unit *unit, struct fault *fault)
{
	int directory = unit->share.directory, err = generation__remove(directory, UNFINISHED);

	if (err)
		return fault__set(fault, err, "%.300s/" UNFINISHED ": %s", load->options->share,
				  bpffs__reason(err));
	err = unit__load(load, unit, fault);
	if (!err)
		err = unit__collect(unit, fault);
	if (!err && record__note_ids(&unit->next))
		err = fault__set(fault, -ENOMEM, "out of memory");
	if (!err)
		err = generation__write(&unit->next, directory, UNFINISHED, load->options->share, fault);
	if (err)
		return err;
	err = make_users(directory);
	if (!err)
		err = bpffs__rename(directory, UNFINISHED, unit->share.name);
	if (!err)
		err = hold(&unit->share);
	return err ? cannot_hold(load, unit, err, fault) : 0;
}

static int share_unit(struct load *load, struct unit *unit, int root, bool *made, struct fault *fault)
{
	int found;

	if (!unit__can_share(load, unit))
		return unit__load(load, unit, fault);
	/* Not the descriptor with the lock, which is let go of at the end of the start. */
	unit->share.directory = bpffs__reopen(root);
	if (unit->share.directory < 0)
		return fault__set(fault, unit->share.directory, "%.300s: %s", load->options->share,
				  bpffs__reason(unit->share.directory));
	if (asprintf(&unit->share.name, "%s-%.*s", record__text(&unit->next, "digest"), VARIANT_DIGITS,
		     record__text(&unit->next, "variant")) < 0) {
		unit->share.name = NULL;
		return fault__set(fault, -ENOMEM, "out of memory");
	}
	found = find(load, unit, fault);
	if (found)
		return found < 0 ? found : 0;
	*made = true;
	return make(load, unit, fault);
}

/* Killed halfway, we leave what a starter that was killed leaves. The directory's lock is held. */
static int take_away(int directory, const char *entry)
{
	int err = generation__remove(directory, UNFINISHED);

	if (!err)
		err = bpffs__rename(directory, entry, UNFINISHED);
	if (err)
		return err == -ENOENT ? 0 : err;
	return generation__remove(directory, UNFINISHED);
}

/* DIGEST-VARIANT, or what a killed loader left. */
static bool is_entry(const char *name)
{
	return !strcmp(name, UNFINISHED) || (strspn(name, "0123456789abcdef") == 64 && name[64] == '-' &&
					     strlen(name) == 65 + VARIANT_DIGITS);
}

int share__clean(int directory, const char *shown, struct fault *fault)
{
	struct file_list names;
	int err = file__list(directory, &names);

	if (err)
		return fault__set(fault, err, "%.200s: %s", shown, bpffs__reason(err));
	for (size_t i = 0; !err && i < names.count; i++) {
		if (is_entry(names.names[i]) && !share__is_used(directory, names.names[i]))
			err = take_away(directory, names.names[i]);
		if (err)
			fault__set(fault, err, "%.200s/%.100s: %s", shown, names.names[i],
				   bpffs__reason(err));
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
		err = share_unit(load, &load->units[i], lock, &made, fault);
	/* A new release: perhaps nobody runs the old one any more. */
	if (made && !err)
		share__clean(lock, load->options->share, &ignored);
	if (lock >= 0)
		close(lock);
	return err;
}

void share__release(struct unit *unit)
{
	struct share *share = &unit->share;
	bool used = share->lock >= 0;

	if (used)
		close(share->lock);
	/* Whoever starts at this moment has the lock: it stays for them. */
	if (used && !flock(share->directory, LOCK_EX | LOCK_NB) &&
	    !share__is_used(share->directory, share->name))
		take_away(share->directory, share->name);
	if (share->directory >= 0)
		close(share->directory);
	free(share->name);
	*share = SHARE_NONE;
}
