// SPDX-License-Identifier: Apache-2.0
#include "run/environment.h"

#include "base/fault.h"
#include "load/load.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FD_PREFIX	 "BUILDTOOL_FD_"
#define OBJECT_FD_PREFIX "BUILDTOOL_OBJECT_FD_"
#define TYPES_FD	 "BUILDTOOL_BTF_FD"
#define NAME_SIZE	 160
#define NAMEABLE	 "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

/*
 * Add a part of a variable's name: a shell accepts letters, digits and underscores. The object's suffix is
 * cut off.
 */
static void add_name(char *name, const char *text)
{
	size_t n = strlen(name), end = strcspn(text, ".");

	for (size_t i = 0; i < end && n < NAME_SIZE - 1; i++)
		name[n++] = strchr(NAMEABLE, text[i]) ? text[i] : '_';
	name[n] = 0;
}

/*
 * Skip the maps that are no data of the program. libbpf makes .rodata, .bss and others: their names have a
 * dot, which no C name has. An update of a struct_ops map registers it with the kernel, and an update of a
 * program array changes the program.
 */
static bool next_map(const struct load *load, size_t *iterator, struct load_map *map)
{
	while (load__next_map(load, iterator, map)) {
		if (!strchr(map->name, '.') && map->type != BPF_MAP_TYPE_STRUCT_OPS &&
		    map->type != BPF_MAP_TYPE_PROG_ARRAY)
			return true;
	}
	return false;
}

static bool is_alone(const struct load *load, const char *name)
{
	struct load_map map;
	size_t iterator = 0, found = 0;

	while (next_map(load, &iterator, &map))
		found += !strcmp(map.name, name);
	return found == 1;
}

static int export_descriptor(const char *name, int fd, struct fault *fault)
{
	char number[16];

	snprintf(number, sizeof(number), "%d", fd);
	if (setenv(name, number, 1) || fcntl(fd, F_SETFD, 0))
		return fault__set(fault, -errno, "%s: %s", name, strerror(errno));
	return 0;
}

static int export_map(const struct load *load, const struct load_map *map, struct fault *fault)
{
	char name[NAME_SIZE] = FD_PREFIX;

	if (!is_alone(load, map->name)) {
		add_name(name, map->object);
		add_name(name, "_");
	}
	add_name(name, map->name);
	if (getenv(name))
		return fault__usage(fault, "%s: two maps have this variable; rename one, or use --no-map-fds",
				    name);
	return export_descriptor(name, map->fd, fault);
}

int environment__export_object(const char *object_name, int fd, struct fault *fault)
{
	char name[NAME_SIZE] = OBJECT_FD_PREFIX;

	add_name(name, object_name);
	if (getenv(name))
		return fault__usage(fault, "%s: two objects have this variable; rename one", name);
	return export_descriptor(name, fd, fault);
}

int environment__export_types(int fd, struct fault *fault)
{
	return export_descriptor(TYPES_FD, fd, fault);
}

void environment__forget_descriptors(void)
{
	char **kept = environ;

	for (char **p = environ; *p; p++) {
		if (strncmp(*p, FD_PREFIX, strlen(FD_PREFIX)) &&
		    strncmp(*p, OBJECT_FD_PREFIX, strlen(OBJECT_FD_PREFIX)) &&
		    strncmp(*p, TYPES_FD "=", strlen(TYPES_FD "=")) &&
		    strncmp(*p, ENVIRONMENT_OBJECTS "=", strlen(ENVIRONMENT_OBJECTS "=")))
			*kept++ = *p;
	}
	*kept = NULL;
}

int environment__export_maps(const struct load *load, struct fault *fault)
{
	struct load_map map;
	size_t iterator = 0;
	int err = 0;

	environment__forget_descriptors();
	while (!err && load && next_map(load, &iterator, &map))
		err = export_map(load, &map, fault);
	return err;
}
