/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_LOAD_INTERNAL_H
#define LOADER_LOAD_INTERNAL_H

#include "attach/point.h"
#include "load/load.h"
#include "pin/pins.h"

/* The types behind load.h, for the files of this folder: the loaded objects and their attachments. */

struct bpf_map;
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
	struct generation next;		     /* the generation that this load makes or reuses */
	struct pins pins;		     /* with a pin root */
	bool loaded; /* this load loaded the programs; otherwise @next.programs has them */
	bool rotate; /* the pinned generation becomes the previous one */
	bool staged, committed;
	int64_t pinned;	    /* the number of the generation that this load pinned, or 0 */
	struct share share; /* the entry of a shared directory that it uses */
};

enum attachment_state {
	ATTACHMENT_PLANNED,
	ATTACHMENT_NEW,	     /* the hook had no program of this object */
	ATTACHMENT_KEPT,     /* the link already had the program */
	ATTACHMENT_UPDATED,  /* the link got another program */
	ATTACHMENT_REPLACED, /* a new link; the old one is detached at the end */
	ATTACHMENT_LOST,     /* nothing is attached: the target is missing, or the kernel refused */
};

/* One program, or one map of struct_ops, at one place. */
struct attachment {
	struct unit *unit;
	struct bpf_program *program; /* NULL for a map, and for a rollback */
	const char *name;	     /* of the program or map */
	char *target;		     /* the point's own copy */
	char *link;		     /* NAME@TARGET, unique in the object */
	struct attach_point point;
	struct attachment_handle handle;
	enum attachment_state state;
	struct attachment *old; /* of the load that is updated */
	int old_link;		/* of a pin, to be closed here; or of @old; -1: none */
	int old_program;	/* the program of the old link */
	bool renamed;		/* the old link is pinned under another name */
	bool is_named;		/* the old link has the new name, too */
	bool aside;		/* this load pinned the link beside the one of its name */
	int refused;		/* the errno of the last attempt to attach it again, or 0 */
};

/* A constant or a map size that this load has set. */
struct setting {
	const struct unit *unit;
	const char *name;
	char *value;
	bool is_size;
	struct bpf_map *outer; /* the map of maps, for the size of the maps inside it; else NULL */
	int fd;		       /* of a map of that size, while the object is loaded, or -1 */
};

struct load {
	const struct load_options *options; /* while loading */
	struct load *old;		    /* the load that is updated, while loading */
	int lock;			    /* of the pin root or the shared directory, or -1 */
	bool refreshes;			    /* a refused attachment is lost, and the others stay */
	uint32_t reported;		    /* a hash of the last problem that a refresh reported */
	size_t count, attachment_count, setting_count;
	struct setting settings[LOAD_MAX_OPTIONS]; /* while loading */
	/* Room for the largest set; the kernel provides only the pages in use. */
	struct unit units[LOAD_MAX_OBJECTS];
	struct attachment attachments[LOAD_MAX_LINKS];
};

#endif
