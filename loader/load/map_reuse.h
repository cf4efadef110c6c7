/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_LOAD_MAP_REUSE_H
#define LOADER_LOAD_MAP_REUSE_H

#include "base/fault.h"

#include <stdint.h>

struct bpf_map;
struct btf;
struct bpf_object;

#define MAP_REUSE_LAYOUT_SIZE 65

/* Return the number of the BTF type of the section that an internal map is made of, or 0. */
uint32_t map_reuse__section_type(const struct btf *btf, const struct bpf_map *map);

/*
 * Write the layout of a map's keys and values, as a hash of their BTF: names, offsets, sizes and encodings of
 * all fields, without the targets of pointers; and the initial values of variables. The layout is "" without
 * BTF. @inner_size is the size that was set inside a map of maps, or NULL. The object must not be loaded yet.
 */
void map_reuse__layout(const struct bpf_object *object, const struct bpf_map *map, const char *inner_size,
		       char layout[MAP_REUSE_LAYOUT_SIZE]);

/*
 * Let a map of an object that is not loaded yet reuse the map behind @fd, which had @layout. Returns 1 after
 * that, 0 for a map that is never reused, -EINVAL with the difference as the text, or another negative errno.
 */
int map_reuse__map(struct bpf_object *object, struct bpf_map *map, const char *inner_size, int fd,
		   const char *layout, struct fault *fault);

#endif
