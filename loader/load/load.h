/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_LOAD_LOAD_H
#define LOADER_LOAD_LOAD_H

#include "attach/point.h"
#include "base/fault.h"

#define LOAD_MAX_OBJECTS 256
#define LOAD_MAX_LINKS	 1024
#define LOAD_MAX_OPTIONS 128

/* --attach PROGRAM=TARGET or OBJECT:PROGRAM=TARGET */
struct attach_option {
	char *object; /* NULL for the one object that has the program */
	char *program;
	char *target;
	unsigned char source; /* enum attach_source of run/options.h */
	bool adds;	      /* PROGRAM+=TARGET: replaces nothing */
};

/* How to load and attach a set. */
struct load_options {
	const struct attach_option *attach;
	size_t attach_count;
	const char *pin_root; /* NULL: everything goes with us */
	const char *share;    /* NULL: load for ourselves */
	bool may_update;      /* load__update() may follow */
	bool allow_rollback;  /* lower versions than what is pinned may follow it */
	/* Called once everything is attached, before it counts: an error takes it back. Or NULL. */
	int (*accept)(void *context, struct fault *fault);
	void *context;
	struct attach_options rules;
};

struct load;
struct verified_object;

/*
 * Load all objects and attach their programs, writing a line for each. When it fails nothing
 * stays loaded or attached, and the fault says whether the configuration is to blame.
 */
int load__start(struct load **load, const struct verified_object *inputs, size_t count,
		const struct load_options *options, struct fault *fault);

/*
 * Put a newly verified set in the place of *@load: maps are carried over where their definitions
 * match, links get their new program atomically where the kernel can do that. When it fails *@load
 * is as it was, attached as before; else it is another one.
 */
int load__update(struct load **load, const struct verified_object *inputs, size_t count,
		 const struct load_options *options, struct fault *fault);

/*
 * Put all objects below a pin root back to the generation before, which then is the one before: a
 * second rollback takes it back. Either all or none.
 */
int load__rollback(const char *pin_root, struct fault *fault);

/* A map of a loaded object; strings and descriptor belong to the load. */
struct load_map {
	const char *object; /* the signed name */
	const char *name;
	int fd;
};

/* Step through all maps: @iterator begins as 0. False after the last one. */
bool load__next_map(const struct load *load, size_t *iterator, struct load_map *map);

struct load_counts {
	size_t objects, programs, maps, attachments;
};

struct load_counts load__count(const struct load *load);

/* Let the links survive execve: they live as long as the workload does. */
int load__keep_over_exec(const struct load *load, struct fault *fault);

/* Detach and unload everything, writing a line for each link. */
void load__stop(struct load *load);

const char *load__library_version(void);

#endif
