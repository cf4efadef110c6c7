/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_LOAD_UNIT_H
#define LOADER_LOAD_UNIT_H

#include "base/fault.h"
#include "load/internal.h"

/* Parse the object of a verified file. */
int unit__prepare(const struct load *load, struct unit *unit, const struct verified_object *input,
		  struct fault *fault);

/* Note in @next the layouts of the maps, and the options that change the programs of the object. */
int unit__describe(const struct load *load, struct unit *unit, struct fault *fault);

/* Return whether the descriptors of the programs are enough to attach them. */
bool unit__can_share(const struct load *load, const struct unit *unit);

/* Load the object, with the maps of the old set. */
int unit__load(struct load *load, struct unit *unit, struct fault *fault);

/* Use the pinned programs and maps, which are of the same code, instead of loading. */
int unit__take_pins(struct unit *unit, const struct generation *g, struct fault *fault);

/* Load the object with the maps that it has: after unit__take_pins(), a copy of the programs on the same
 * maps. */
int unit__load_copy(struct unit *unit, struct fault *fault);

/* Load the object, or use the pins below the pin root if they are of the same code. */
int unit__obtain(struct load *load, struct unit *unit, struct fault *fault);

/* Fill @next with everything that will be pinned. */
int unit__collect(struct unit *unit, struct fault *fault);
void unit__close(struct unit *unit);

/* Return whether the pins are those that this load made or took over: not those of another start. */
bool unit__has_pins(const struct unit *unit, const struct pins *pins);

/* Return the descriptor of a program, loaded or from a pin, or -1. */
int unit__program(const struct unit *unit, const char *name);

/* Return the descriptor of a map, loaded or from a pin, or -1. */
int unit__map(const struct unit *unit, const char *name);

#endif
