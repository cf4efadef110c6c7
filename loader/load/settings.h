/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_LOAD_SETTINGS_H
#define LOADER_LOAD_SETTINGS_H

#include "base/fault.h"
#include "load/internal.h"

/*
 * Set the constants and the map sizes that the options name, in the opened objects, within the bounds of the
 * signed statements. Nothing reaches the kernel. Returns 0; -EKEYREJECTED with the text set for what the
 * signers do not allow; or another negative errno.
 */
int settings__apply(struct load *load, struct fault *fault);

/* Write a line for each setting of the load. */
void settings__report(const struct load *load);

/*
 * Make a map for each map of maps with a setting, just before the object is loaded, and close it afterwards:
 * libbpf takes the sizes inside from it. (bpf_map__set_max_entries() crashes on an inner map, libbpf 1.5.)
 */
int settings__make_inner(struct load *load, const struct unit *unit, struct fault *fault);
void settings__close_inner(struct load *load, const struct unit *unit);

/* Return the size that was set inside a map of maps, or NULL: its layout, too, depends on that. */
const char *settings__inner_size(const struct load *load, const struct unit *unit, const struct bpf_map *map);

/* Note the settings of the unit in the record that a later load reads. Returns 0 or -ENOMEM. */
int settings__note(const struct load *load, struct unit *unit);

#endif
