// SPDX-License-Identifier: Apache-2.0
/* Replacements of loading, for a build with sanitizers and without libbpf that only verifies. */
#include "attach/attach.h"
#include "attach/changes.h"
#include "load/load.h"
#include "pin/pins.h"
#include "run/listing.h"

#include <errno.h>

int load__start(struct load **load, const struct verified_object *inputs, size_t count,
		const struct load_options *options, struct fault *fault)
{
	(void)inputs;
	(void)count;
	(void)options;
	*load = NULL;
	return fault__set(fault, -EOPNOTSUPP, "this build only verifies");
}

int load__update(struct load **load, const struct verified_object *inputs, size_t count,
		 const struct load_options *options, struct fault *fault)
{
	return load__start(load, inputs, count, options, fault);
}

int load__refresh(struct load **load, const struct load_options *options, bool attach, bool thorough,
		  bool *changed, struct fault *fault)
{
	(void)attach;
	(void)thorough;
	*changed = false;
	return load__start(load, NULL, 0, options, fault);
}

void load__visit_paths(const struct load *load, void (*visit)(void *context, const char *path), void *context)
{
	(void)load;
	(void)visit;
	(void)context;
}

int changes__open(struct changes *changes, struct fault *fault)
{
	(void)changes;
	return fault__set(fault, -EOPNOTSUPP, "this build only verifies");
}

void changes__watch(void *changes, const char *path)
{
	(void)changes;
	(void)path;
}

void changes__take(struct changes *changes)
{
	(void)changes;
}

bool load__next_map(const struct load *load, size_t *iterator, struct load_map *map)
{
	(void)load;
	(void)iterator;
	(void)map;
	return false;
}

struct load_counts load__count(const struct load *load)
{
	(void)load;
	return (struct load_counts){ 0 };
}

int pins__list_versions(const char *root, pins_version *note, void *context, struct fault *fault)
{
	(void)root;
	(void)note;
	(void)context;
	(void)fault;
	return 0;
}

int listing__show(const struct options *options, struct fault *fault)
{
	(void)options;
	return fault__set(fault, -EOPNOTSUPP, "this build only verifies");
}

int load__keep_over_exec(const struct load *load, struct fault *fault)
{
	(void)load;
	return fault__set(fault, -EOPNOTSUPP, "this build only verifies");
}

void load__stop(struct load *load)
{
	(void)load;
}

const char *load__library_version(void)
{
	return "none";
}

uint64_t attach__detaching_needs(void)
{
	return 0;
}
