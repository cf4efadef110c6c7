/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_LOAD_MAP_REUSE_H
#define LOADER_LOAD_MAP_REUSE_H

#include "base/fault.h"

struct bpf_map;
struct bpf_object;

#define MAP_REUSE_LAYOUT_SIZE 65

/*
 * Write the layout of a map's keys and values, as a hash of their BTF: names, offsets, sizes and encodings of
 * all fields, without the targets of pointers; and the initial values of variables. The layout is "" without
 * BTF. The object must not be loaded yet.
 */
void map_reuse__layout(const struct bpf_object *object, const struct bpf_map *map,
		       char layout[MAP_REUSE_LAYOUT_SIZE]);

/*
 * Let a map of an object that is not loaded yet reuse the map behind @fd, which had @layout. Returns 1 after
 * that, 0 for a map that is never reused, -EINVAL with the difference as the text, or another negative errno.
 */
int map_reuse__map(struct bpf_object *object, struct bpf_map *map, int fd, const char *layout,
		   struct fault *fault);

#endif
