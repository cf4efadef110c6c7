/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_LOAD_INTERNAL_H
#define LOADER_LOAD_INTERNAL_H

#include "attach/point.h"
#include "load/load.h"
#include "pin/pins.h"

/* The loaded objects and their attachments behind load.h, for the files of this folder. */

struct bpf_object;
struct bpf_program;

/* An entry of a shared directory. */
struct share {
	char *name;    /* NULL: none */
	int directory; /* of all entries, not locked; or -1 */
	int lock;      /* held by all who use the entry, or -1 */
};

#define SHARE_NONE ((struct share){ .directory = -1, .lock = -1 })

/* One object. */
struct unit {
	char *file, *object;		     /* the names of the file and in the statement */
	const struct verified_object *input; /* while loading; NULL for a rollback, which has pins alone */
	struct bpf_object *bpf;		     /* NULL for a rollback */
	struct generation next; /* what this load makes or takes; its record if anybody reads it */
	struct pins pins;	/* with a pin root */
	bool loaded;		/* the kernel has our programs; else @next.programs are it */
	bool rotate;		/* the pinned generation becomes the previous one */
	bool staged, committed;
	struct share share; /* the entry of a shared directory that it uses */
};

enum attachment_state {
	ATTACHMENT_PLANNED,
	ATTACHMENT_NEW,	     /* nothing was there */
	ATTACHMENT_KEPT,     /* the same program is there already */
	ATTACHMENT_UPDATED,  /* the link got another program */
	ATTACHMENT_REPLACED, /* a new link; the old one goes at the end */
};

/* One program, or one map of struct_ops, at one place. */
struct attachment {
	struct unit *unit;
	struct bpf_program *program; /* NULL for a map, and for a rollback */
	const char *name;	     /* of the program or map */
	char *target;		     /* the point's own copy */
	char *link;		     /* NAME@TARGET, one of its kind in the object */
	struct attach_point point;
	struct attachment_handle handle;
	enum attachment_state state;
	struct attachment *old; /* of the load that is updated */
	int old_link;		/* of a pin, ours to close; or of @old; -1: none */
	int old_program;	/* what it runs */
};

struct load {
	const struct load_options *options; /* while loading */
	struct load *old;		    /* the load that is updated, while loading */
	int lock;			    /* of the pin root or the shared directory, or -1 */
	size_t count, attachment_count;
	/* Room for the largest set; of its pages only those in use are ever touched. */
	struct unit units[LOAD_MAX_OBJECTS];
	struct attachment attachments[LOAD_MAX_LINKS];
};

#endif
