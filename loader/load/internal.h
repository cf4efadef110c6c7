/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_PARTS_H
#define LOADER_PARTS_H

#include "attach/attach.h"
#include "load/load.h"
#include "pin/pins.h"

/* What load.h hides, for the files that share the work: objects, and what is attached. */

struct bpf_object;
struct bpf_program;

/* One object. */
struct unit {
	char *file, *object;		/* the names of the file and in the statement */
	const struct load_input *input; /* while loading; NULL for a rollback, which has pins alone */
	struct bpf_object *bpf;		/* NULL for a rollback */
	struct generation next;		/* what this load makes or takes; its record if anybody reads it */
	struct pins pins;		/* with a pin root */
	bool loaded;			/* the kernel has our programs; else @next.programs are it */
	bool rotate;			/* the pinned generation becomes the previous one */
	bool staged, committed;
	char *share;	/* the entry of a shared directory that it uses, or NULL */
	int share_lock; /* held by all who use that entry, or -1 */
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

/* Parse the object of a verified file. */
int unit__prepare(const struct load *load, struct unit *unit, const struct load_input *input,
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

/* Add one that goes back to what is pinned as the previous one; -ENOENT without text when nothing is. */
int unit__prepare_rollback(struct load *load, const char *object, struct fault *fault);

/* Fill @next with all that is to be pinned. */
int unit__collect(struct unit *unit, struct fault *fault);
void unit__close(struct unit *unit);

/* Find out, before anything is loaded, where the programs of all objects are to be attached. */
int setplan__all(struct load *load, struct fault *fault);

/* The program's descriptor, loaded or from a pin, or -1. */
int unit__program(const struct unit *unit, const char *name);

/* The same of a map. */
int unit__map(const struct unit *unit, const char *name);

/* Get the program of each attachment to its place, in place of what is there. */
int switch__all(struct load *load, struct fault *fault);

/* Put back what was there before, except of objects that are committed. */
void switch__undo(struct load *load);

/* Take away what the new set has no place for. Failures leave something attached too much, and are said. */
void switch__settle(struct load *load);

#endif
