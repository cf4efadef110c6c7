// SPDX-License-Identifier: Apache-2.0
#include "pin/generation.h"

#include "base/fault.h"
#include "base/json.h"
#include "pin/bpffs.h"
#include "pin/record.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int generation__open_record(struct generation *g, const char *path, struct fault *fault)
{
	char at[BPFFS_PATH_SIZE];
	struct fault inner = { 0 };
	int fd, err = bpffs__path(at, path, RECORD_NAME);

	*g = (struct generation){ 0 };
	fd = err ? err : bpffs__get(at, BPFFS_MAP);
	if (fd == -ENOENT)
		return fd;
	if (fd < 0)
		return fault__set(fault, fd, "%.300s: %s", at, fd == -EBADF ? "not a record" : strerror(-fd));
	err = record__read(fd, &g->record, &inner);
	close(fd);
	if (err)
		fault__set(fault, err, "%.200s/" RECORD_NAME ": %.150s", path, inner.text);
	return err;
}

int generation__open(struct generation *g, const char *path, struct fault *fault)
{
	char at[BPFFS_PATH_SIZE];
	int err = generation__open_record(g, path, fault);

	if (!err)
		err = bpffs__path(at, path, "programs");
	if (!err)
		err = bpffs__list(at, BPFFS_PROGRAM, &g->programs, fault);
	if (!err)
		err = bpffs__path(at, path, "maps");
	if (!err)
		err = bpffs__list(at, BPFFS_MAP, &g->maps, fault);
	if (err)
		generation__close(g);
	return err;
}

void generation__close(struct generation *g)
{
	json_decref(g->record);
	bpffs__free(&g->programs);
	bpffs__free(&g->maps);
	*g = (struct generation){ 0 };
}

static int pin_all(const struct pin_list *list, const char *path, const char *kind)
{
	char directory[BPFFS_PATH_SIZE], at[BPFFS_PATH_SIZE];
	int err = bpffs__path(directory, path, kind);

	if (!err && mkdir(directory, 0700))
		err = -errno;
	for (size_t i = 0; !err && i < list->count; i++) {
		err = bpffs__path(at, directory, list->items[i].name);
		if (!err && bpf_obj_pin(list->items[i].fd, at))
			err = -errno;
	}
	return err;
}

int generation__write(const struct generation *g, const char *path, struct fault *fault)
{
	int err = mkdir(path, 0700) ? -errno : 0;

	if (err)
		return fault__set(fault, err, "%.300s: %s", path, strerror(-err));
	err = pin_all(&g->programs, path, "programs");
	if (!err)
		err = pin_all(&g->maps, path, "maps");
	if (!err)
		err = record__pin(g->record, path);
	if (err) {
		fault__set(fault, err, "%.300s: cannot pin: %s", path, strerror(-err));
		bpffs__remove(path);
	}
	return err;
}
