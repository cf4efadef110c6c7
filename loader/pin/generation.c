// SPDX-License-Identifier: Apache-2.0
#include "pin/generation.h"

#include "base/fault.h"
#include "base/json.h"
#include "pin/bpffs.h"
#include "pin/record.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

/* Read one of the two JSON objects. -ENOENT (no text): there is none. */
static int open_json(int home, const char *name, struct json_t **json, const char *shown, struct fault *fault)
{
	int fd = bpffs__get(home, name, BPFFS_MAP), err;
	struct fault inner = { 0 };

	if (fd == -ENOENT)
		return fd;
	if (fd < 0)
		return fault__set(fault, fd, "%.250s/%s: %s", shown, name,
				  fd == -EBADF ? "not a record" : bpffs__reason(fd));
	err = record__read(fd, name, json, &inner);
	close(fd);
	if (err)
		fault__set(fault, err, "%.180s/%s: %.150s", shown, name, inner.text);
	return err;
}

static int open_home(int directory, const char *name, char shown[BPFFS_PATH_SIZE], const char *above,
		     struct fault *fault)
{
	int home = bpffs__enter(directory, name);

	bpffs__show(shown, above, name);
	if (home < 0 && home != -ENOENT)
		fault__set(fault, home, "%.300s: %s", shown, bpffs__reason(home));
	return home;
}

int generation__open_record(struct generation *g, int directory, const char *name, const char *above,
			    struct fault *fault)
{
	char shown[BPFFS_PATH_SIZE];
	int home = open_home(directory, name, shown, above, fault), err;

	*g = (struct generation){ 0 };
	if (home < 0)
		return home;
	err = open_json(home, RECORD_NAME, &g->record, shown, fault);
	close(home);
	return err;
}

/* What user space may not do with a map holds for those who find it, too. */
static int limit_maps(const struct generation *g, int home, const char *shown, struct fault *fault)
{
	int maps, err = 0;

	if (!g->maps.count)
		return 0;
	maps = bpffs__enter(home, "maps");
	if (maps < 0)
		return fault__set(fault, maps, "%.200s/maps: %s", shown, bpffs__reason(maps));
	for (size_t i = 0; !err && i < g->maps.count; i++) {
		struct pin *pin = &g->maps.items[i];
		uint32_t flags = record__access(g, pin->name);

		err = flags ? bpffs__limit(maps, pin, flags) : 0;
		if (err)
			fault__set(fault, err, "%.200s/maps/%.100s: %s", shown, pin->name,
				   bpffs__reason(err));
	}
	close(maps);
	return err;
}

int generation__open(struct generation *g, int directory, const char *name, const char *above,
		     struct fault *fault)
{
	char shown[BPFFS_PATH_SIZE];
	int home = open_home(directory, name, shown, above, fault), err;

	*g = (struct generation){ 0 };
	if (home < 0)
		return home;
	err = open_json(home, RECORD_NAME, &g->record, shown, fault);
	if (!err)
		err = open_json(home, RECORD_ATTACHED, &g->attached, shown, fault);
	if (err == -ENOENT && g->record && !g->attached)
		err = 0;
	if (!err)
		err = bpffs__list(home, "programs", BPFFS_PROGRAM, &g->programs, shown, fault);
	if (!err)
		err = bpffs__list(home, "maps", BPFFS_MAP, &g->maps, shown, fault);
	if (!err)
		err = limit_maps(g, home, shown, fault);
	close(home);
	if (err)
		generation__close(g);
	return err;
}

void generation__close(struct generation *g)
{
	json_decref(g->record);
	json_decref(g->attached);
	bpffs__free(&g->programs);
	bpffs__free(&g->maps);
	*g = (struct generation){ 0 };
}

static int pin_all(const struct pin_list *list, int home, const char *kind)
{
	int directory = bpffs__make(home, kind), err = directory < 0 ? directory : 0;

	for (size_t i = 0; !err && i < list->count; i++)
		err = bpffs__pin(directory, list->items[i].name, list->items[i].fd);
	if (directory >= 0)
		close(directory);
	return err;
}

int generation__write(const struct generation *g, int directory, const char *name, const char *above,
		      struct fault *fault)
{
	int home = bpffs__make(directory, name), err = home < 0 ? home : 0;
	char shown[BPFFS_PATH_SIZE];

	bpffs__show(shown, above, name);
	if (err)
		return fault__set(fault, err, "%.300s: %s", shown, bpffs__reason(err));
	err = pin_all(&g->programs, home, "programs");
	if (!err)
		err = pin_all(&g->maps, home, "maps");
	if (!err)
		err = record__pin(g->record, home, RECORD_NAME);
	close(home);
	if (err) {
		fault__set(fault, err, "%.300s: cannot pin: %s", shown, bpffs__reason(err));
		generation__remove(directory, name);
	}
	return err;
}

int generation__write_attached(const struct generation *g, int directory, const char *name)
{
	int home = bpffs__enter(directory, name), err;

	if (home < 0)
		return home;
	err = record__pin(g->attached, home, RECORD_ATTACHED);
	close(home);
	return err;
}

int generation__remove(int directory, const char *name)
{
	int home = bpffs__enter(directory, name);

	if (home >= 0) {
		bpffs__remove(home, RECORD_NAME);
		close(home);
	}
	return bpffs__remove(directory, name);
}
