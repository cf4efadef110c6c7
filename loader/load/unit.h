/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_LOAD_UNIT_H
#define LOADER_LOAD_UNIT_H

#include "base/fault.h"
#include "load/internal.h"

/* Parse the object of a verified file. */
int unit__prepare(const struct load *load, struct unit *unit, const struct verified_object *input,
		  struct fault *fault);

/* Note in @next what its maps look like, and what else than the object decides about its programs. */
int unit__describe(const struct load *load, struct unit *unit, struct fault *fault);

/* Whether descriptors of its programs are all that it takes to attach them. */
bool unit__can_share(const struct load *load, const struct unit *unit);

/* Load it, with the maps of before. */
int unit__load(const struct load *load, struct unit *unit, struct fault *fault);

/* Take over what is pinned: the same code is there already. */
int unit__take_pins(struct unit *unit, const struct generation *g, struct fault *fault);

/* Load it; or take over what is pinned below the pin root, if that is the same code. */
int unit__obtain(const struct load *load, struct unit *unit, struct fault *fault);

/* Fill @next with all that is to be pinned. */
int unit__collect(struct unit *unit, struct fault *fault);
void unit__close(struct unit *unit);

/* The program's descriptor, loaded or from a pin, or -1. */
int unit__program(const struct unit *unit, const char *name);

/* The same of a map. */
int unit__map(const struct unit *unit, const char *name);

#endif
