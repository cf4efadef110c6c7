/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_LOAD_H
#define LOADER_LOAD_H

#include "fault.h"
#include "statement.h"

#define LOAD_MAX_OBJECTS 256
#define LOAD_MAX_LINKS	 1024
#define LOAD_MAX_OPTIONS 128

/* One verified object, loaded from the bytes that were verified. All borrowed. */
struct load_input {
	const char *name;
	const uint8_t *data;
	size_t size;
	const struct statement *statement;
};

/* --attach PROGRAM=TARGET or OBJECT:PROGRAM=TARGET */
struct attach_option {
	char *object; /* NULL for the one object that has the program */
	char *program;
	char *target;
};

struct load;

/*
 * Load all objects and attach their programs, writing a line for each. When it fails nothing
 * stays loaded or attached, and the fault says whether the configuration is to blame.
 */
int load__start(struct load **load, const struct load_input *inputs, size_t count,
		const struct attach_option *options, size_t option_count, struct fault *fault);

/* Let the links survive execve: they live as long as the workload does. */
int load__keep_over_exec(const struct load *load, struct fault *fault);

/* Detach and unload everything, writing a line for each link. */
void load__stop(struct load *load);

const char *load__library_version(void);

#endif
