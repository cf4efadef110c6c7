/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_VERIFY_TYPES_H
#define LOADER_VERIFY_TYPES_H

#include "base/fault.h"
#include "verify/object.h"

#include <stddef.h>
#include <stdint.h>

#define KIND_PTR     2
#define KIND_ARRAY   3
#define KIND_STRUCT  4
#define KIND_VAR     14
#define KIND_DATASEC 15

/* The types of an object, by spec/trust-policy.md, "Reading the maps". Borrows the object's bytes. */
struct types {
	const struct object *object;
	uint64_t types, types_end, names, names_end; /* offsets in the file */
	uint32_t *offsets;			     /* of each type in the types, by its number less 1 */
	uint32_t count;
};

struct type {
	uint64_t at; /* in the file: what follows the three integers */
	uint32_t name, value;
	unsigned kind, count;
};

/* Take in the contents of @section. Returns 0, -EINVAL with the text set, or -ENOMEM; free it in any case. */
int types__open(struct types *types, const struct object *object, const struct section *section,
		struct fault *fault);
void types__free(struct types *types);

/* The type of this number. Returns false if there is none. */
bool types__find(const struct types *types, uint32_t number, struct type *type);

/* The same, behind type definitions and qualifiers. */
bool types__resolve(const struct types *types, uint32_t number, struct type *type);

/* Integer number @index of those that follow a type; within its bounds. */
uint32_t types__word(const struct types *types, const struct type *type, unsigned index);

/* A name of at most OBJECT_TEXT_MAX bytes, or NULL. */
const char *types__name(const struct types *types, uint32_t offset);

#endif
