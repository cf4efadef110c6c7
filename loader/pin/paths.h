/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_PIN_PATHS_H
#define LOADER_PIN_PATHS_H

#include "base/fault.h"
#include "pin/bpffs.h"

/* The names below the pins of one object, the directory @home: pins.h shows them. */

/* The name of a link while the link before it still has the name; names of links have an @ before this. */
#define PATHS_ASIDE "+new"

/* Write the path of `current`, `next`, `previous` or `links`. Returns 0 or -ENAMETOOLONG. */
int paths__part(char at[BPFFS_PATH_SIZE], const char *home, const char *name);

/* Write the path of a link. Returns 0 or -ENAMETOOLONG. */
int paths__link(char at[BPFFS_PATH_SIZE], const char *home, const char *link, const char *suffix);

/* Open all links. Returns 0 or a negative errno with the text set. */
int paths__list_links(const char *home, struct pin_list *links, struct fault *fault);

/* Give a link that waits aside its name, which detaches the link that had it. Returns 0 or a negative errno.
 */
int paths__settle_link(const char *home, const char *link);

#endif
