/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_ATTACH_ATTACH_H
#define LOADER_ATTACH_ATTACH_H

#include "attach/point.h"
#include "base/fault.h"

/* Return the name of the point in messages. */
const char *attach__shown(const struct attach_point *point);

/* Return whether the kernel can replace the program of a link at this point (BPF_LINK_UPDATE). */
bool attach__can_update(const struct attach_point *point);

/*
 * Return whether a program's descriptor is enough. Otherwise attach__program() needs the loaded program of
 * libbpf.
 */
bool attach__can_share(const struct attach_point *point);

/*
 * Attach the program behind @program_fd. @program may be NULL if attach__can_share().
 * Returns 0, or a negative errno with the text set.
 */
int attach__program(struct bpf_program *program, int program_fd, const struct attach_point *point,
		    const struct attach_options *options, struct attachment_handle *handle,
		    struct fault *fault);

/* Return the capabilities, as a mask, that attach__detach() needs for the present attachments. */
uint64_t attach__detaching_needs(void);

/* Detach the program and clear the handle. A pinned link stays. */
void attach__detach(struct attachment_handle *handle);

#endif
