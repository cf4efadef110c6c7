// SPDX-License-Identifier: Apache-2.0
#include "verify/types.h"

#include "base/fault.h"
#include "verify/object.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_SIZE 24
#define HEAD_SIZE   12 /* of a type */
#define MAGIC	    0xeb9f
#define INFO_MASK   0x9f00ffffu /* libbpf 1.8 gives others of the bits a meaning, unseen by older ones */
#define KINDS	    19
#define CHAIN_MAX   32
/* The kernel's own limits, BTF_MAX_TYPE and BTF_MAX_NAME_OFFSET: it loads no BTF with more. */
#define TYPES_MAX 0xfffffu
#define NAMES_MAX (16u << 20)

/* What follows the three integers of a type: bytes, and bytes for each that it counts. */
static const struct {
	uint8_t fixed, each;
} sizes[KINDS + 1] = {
	[1] = { 4, 0 },	  /* integer */
	[3] = { 12, 0 },  /* array */
	[4] = { 0, 12 },  /* struct */
	[5] = { 0, 12 },  /* union */
	[6] = { 0, 8 },	  /* enumeration */
	[13] = { 0, 8 },  /* prototype of a function */
	[14] = { 4, 0 },  /* variable */
	[15] = { 0, 12 }, /* group of variables */
	[17] = { 4, 0 },  /* tag of a declaration */
	[19] = { 0, 12 }, /* enumeration of 64 bits */
};

static bool is_transparent(unsigned kind)
{
	/* typedef, volatile, const, restrict, tag of a type */
	return (kind >= 8 && kind <= 11) || kind == 18;
}

static uint32_t get(const struct types *t, uint64_t at)
{
	return (uint32_t)object__get(t->object, at, 4);
}

static int damaged(struct fault *fault)
{
	return fault__set(fault, -EINVAL, "damaged BTF");
}

/* The header, and the two ranges that it names; no sum of three 32-bit numbers can wrap. */
static int read_header(struct types *t, const struct section *s, struct fault *fault)
{
	uint64_t at = s->offset, end = at + s->size, length;

	if (s->size < HEADER_SIZE || object__get(t->object, at, 2) != MAGIC || t->object->data[at + 2] != 1)
		return damaged(fault);
	length = get(t, at + 4);
	t->types = at + length + get(t, at + 8);
	t->types_end = t->types + get(t, at + 12);
	t->names = at + length + get(t, at + 16);
	t->names_end = t->names + get(t, at + 20);
	if (length < HEADER_SIZE || t->types_end > end || t->names_end > end || t->names == t->names_end ||
	    t->object->data[t->names_end - 1])
		return damaged(fault);
	if (t->names_end - t->names > NAMES_MAX)
		return damaged(fault);
	return 0;
}

/* The type at @at; returns where the next one begins, or 0. */
static uint64_t read_type(const struct types *t, uint64_t at, struct type *type)
{
	uint32_t info;

	if (t->types_end - at < HEAD_SIZE)
		return 0;
	info = get(t, at + 4);
	*type = (struct type){
		.at = at + HEAD_SIZE,
		.name = get(t, at),
		.value = get(t, at + 8),
		.kind = info >> 24 & 0x1f,
		.count = info & 0xffff,
	};
	if (info & ~INFO_MASK || type->kind < 1 || type->kind > KINDS)
		return 0;
	at = type->at + sizes[type->kind].fixed + (uint64_t)sizes[type->kind].each * type->count;
	return at <= t->types_end ? at : 0;
}

/* Count the types, or note where each one is once there is room. */
static int walk(struct types *t, struct fault *fault)
{
	struct type type;
	uint64_t next;

	t->count = 0;
	for (uint64_t at = t->types; at < t->types_end; at = next) {
		next = read_type(t, at, &type);
		if (!next || t->count == TYPES_MAX)
			return damaged(fault);
		if (t->offsets)
			t->offsets[t->count] = (uint32_t)(at - t->types);
		t->count++;
	}
	return 0;
}

int types__open(struct types *t, const struct object *object, const struct section *section,
		struct fault *fault)
{
	int err;

	*t = (struct types){ .object = object };
	err = read_header(t, section, fault);
	if (!err)
		err = walk(t, fault);
	if (err)
		return err;
	t->offsets = calloc(t->count ? t->count : 1, sizeof(*t->offsets));
	return t->offsets ? walk(t, fault) : -ENOMEM;
}

void types__free(struct types *t)
{
	free(t->offsets);
	*t = (struct types){ 0 };
}

bool types__find(const struct types *t, uint32_t number, struct type *type)
{
	return number && number <= t->count && read_type(t, t->types + t->offsets[number - 1], type);
}

bool types__resolve(const struct types *t, uint32_t number, struct type *type)
{
	for (unsigned i = 0; i < CHAIN_MAX; i++) {
		if (!types__find(t, number, type))
			return false;
		if (!is_transparent(type->kind))
			return true;
		number = type->value;
	}
	return false;
}

uint32_t types__word(const struct types *t, const struct type *type, unsigned index)
{
	return get(t, type->at + 4 * (uint64_t)index);
}

const char *types__name(const struct types *t, uint32_t offset)
{
	const char *text;

	if (offset >= t->names_end - t->names)
		return NULL;
	/* The names end in a zero byte, so every one of them ends. */
	text = (const char *)t->object->data + t->names + offset;
	return strnlen(text, OBJECT_TEXT_MAX + 1) <= OBJECT_TEXT_MAX ? text : NULL;
}
