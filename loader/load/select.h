/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_LOAD_SELECT_H
#define LOADER_LOAD_SELECT_H

#include "load/load.h"

/* Which programs and struct_ops maps of the verified objects are loaded. */
enum selection {
	SELECT_DEFAULT,	 /* no option names it: it is loaded unless it is optional (SEC("?...")) */
	SELECT_ON,	 /* --load, or a target */
	SELECT_OFF,	 /* --no-load */
	SELECT_CONFLICT, /* --no-load and a target of the same source, or of a stronger one */
};

/* Find what the options say about @name in the object of @file. The command line is stronger than the image.
 */
enum selection select__find(const struct selection_options *options, const char *file, const char *name);

#endif
