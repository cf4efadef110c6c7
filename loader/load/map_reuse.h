/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_LOAD_MAP_REUSE_H
#define LOADER_LOAD_MAP_REUSE_H

#include "base/fault.h"

struct bpf_map;
struct bpf_object;

#define MAP_REUSE_LAYOUT_SIZE 65

/*
 * The layout of a map's keys and values, as a hash of their BTF: names, offsets, sizes and
 * encodings of all fields, through everything but pointers; and what variables begin with. ""
 * without BTF. Of an object that is not loaded yet.
 */
void map_reuse__layout(const struct bpf_object *object, const struct bpf_map *map,
		       char layout[MAP_REUSE_LAYOUT_SIZE]);

/*
 * Let a map of an object that is not loaded yet go on with the map behind @fd, which had @layout.
 * Returns 1 when it does, 0 when this map is never carried over, -EINVAL with the text saying
 * which part of the definition differs, or another negative errno.
 */
int map_reuse__map(struct bpf_object *object, struct bpf_map *map, int fd, const char *layout,
		   struct fault *fault);

#endif
