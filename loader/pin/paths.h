/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_PIN_PATHS_H
#define LOADER_PIN_PATHS_H

#include "base/fault.h"
#include "pin/bpffs.h"

/* The links below the pins of one object, whose directory is open as @home: pins.h shows them. */

/* The name of a link while the link before it still has the name; names of links have an @ before this. */
#define PATHS_ASIDE "+new"

/* Open all links. Returns 0 or a negative errno with the text set. */
int paths__list_links(int home, struct pin_list *links, const char *shown, struct fault *fault);

/* The link of this name: a descriptor or a negative errno. */
int paths__get_link(int home, const char *link);

/* Pin a link. If the name exists, pin it @aside until paths__settle_link(). Returns 0 or a negative errno. */
int paths__put_link(int home, const char *link, int fd, bool *aside);

/* Take a name away, or the one that waits aside for it. What isn't there is no error. */
int paths__remove_link(int home, const char *link, bool aside);

/* Give a link that waits aside its name, which detaches the link that had it. Returns 0 or a negative errno.
 */
int paths__settle_link(int home, const char *link);

#endif
