/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_ATTACH_ATTACH_H
#define LOADER_ATTACH_ATTACH_H

#include "attach/point.h"
#include "base/fault.h"

/* What to call the point in messages. */
const char *attach__shown(const struct attach_point *point);

/* Whether the kernel can put another program in place of a link's at this point (BPF_LINK_UPDATE). */
bool attach__can_update(const struct attach_point *point);

/* Whether a program's descriptor is enough; else attach__program() needs the program itself, loaded. */
bool attach__can_share(const struct attach_point *point);

/*
 * Attach the program that @program_fd stands for; @program may be NULL where attach__can_share().
 * Returns 0 or a negative errno with the text set.
 */
int attach__program(struct bpf_program *program, int program_fd, const struct attach_point *point,
		    const struct attach_options *options, struct attachment_handle *handle,
		    struct fault *fault);

/* The capabilities, as a mask, that attach__detach() still needs for what is attached now. */
uint64_t attach__detaching_needs(void);

/* Take it away and forget it. A pinned link stays. */
void attach__detach(struct attachment_handle *handle);

#endif
