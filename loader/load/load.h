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
	char *object; /* NULL: the only object that has the program */
	char *program;
	char *target;
	unsigned char source; /* enum attach_source of run/options.h */
	bool adds;	      /* PROGRAM+=TARGET: replaces nothing */
};

/* --load, --no-load or --image-load [OBJECT:]PROGRAM */
struct select_option {
	char *object; /* NULL: the only object that has the program */
	char *program;
	unsigned char source; /* as of an attach_option */
	bool loads;
};

/* --set or --map-entries [OBJECT:]NAME=VALUE. Of two for one name, the later one is used. */
struct setting_option {
	char *object; /* NULL: the only object whose statement lets it be set */
	char *name;
	char *value;
	bool is_size; /* the entries of a map, not a constant */
};

/* The options that select programs and their targets. */
struct selection_options {
	const struct attach_option *attach;
	size_t attach_count;
	const struct select_option *select;
	size_t select_count;
};

/* The options for loading and attaching a set. */
struct load_options {
	struct selection_options selection;
	const struct setting_option *settings;
	size_t setting_count;
	const char *btf_path; /* verified types of the kernel, in place of its own; or NULL */
	const uint8_t *btf_digest;
	const char *pin_root; /* NULL: nothing outlives the loader */
	const char *share;    /* NULL: share nothing */
	bool may_update;      /* load__update() may follow */
	bool allow_rollback;  /* accept lower versions than the pinned ones */
	/* Called after everything is attached; an error restores the old set. Or NULL. */
	int (*accept)(void *context, struct fault *fault);
	void *context;
	struct attach_options rules;
};

struct load;
struct verified_object;

/*
 * Load all objects and attach their programs, with a line for each. After a failure nothing stays loaded or
 * attached.
 */
int load__start(struct load **load, const struct verified_object *inputs, size_t count,
		const struct load_options *options, struct fault *fault);

/*
 * Replace *@load by a newly verified set. Maps with equal definitions keep their contents, and links get
 * their new program atomically if the kernel supports that. After a failure, *@load is unchanged and still
 * attached.
 */
int load__update(struct load **load, const struct verified_object *inputs, size_t count,
		 const struct load_options *options, struct fault *fault);

/*
 * Compare the attachments of *@load with the kernel: an interface, a cgroup or a network namespace can be
 * deleted and made anew, and new interfaces can match a pattern. Write a line for each attachment that is
 * lost. With @attach, attach the loaded programs again where their targets are now, and detach them where
 * these no longer are; with @thorough, look at the pins, too. Sets @changed if something was lost,
 * attached or detached. Returns 0; or a negative errno with the text set, if a target is missing or refused.
 * The others are attached then.
 */
int load__refresh(struct load **load, const struct load_options *options, bool attach, bool thorough,
		  bool *changed, struct fault *fault);

/* Call @visit for the path of each attached cgroup and network namespace. */
void load__visit_paths(const struct load *load, void (*visit)(void *context, const char *path),
		       void *context);

/*
 * Restore the previous generation of all objects below a pin root, or of none. The present generation becomes
 * the previous one, so that a second rollback returns to it.
 */
int load__rollback(const char *pin_root, struct fault *fault);

/* A map of a loaded object; strings and descriptor belong to the load. */
struct load_map {
	const char *object; /* the signed name */
	const char *name;
	enum bpf_map_type type;
	int fd;
};

/* Get the next map; @iterator begins with 0. Returns false after the last map. */
bool load__next_map(const struct load *load, size_t *iterator, struct load_map *map);

struct load_counts {
	size_t objects, programs, maps, attachments;
	size_t lost; /* targets where a program is to be attached, and is not */
};

struct load_counts load__count(const struct load *load);

/* Let the links survive execve(2), so that they live as long as the workload. */
int load__keep_over_exec(const struct load *load, struct fault *fault);

/* Detach and unload everything, with a line for each link. */
void load__stop(struct load *load);

const char *load__library_version(void);

#endif
