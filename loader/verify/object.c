// SPDX-License-Identifier: Apache-2.0
#include "verify/object.h"

#include "base/fault.h"
#include "base/sha256.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>

#define ELF_HEADER_SIZE	 64
#define ELF_SECTION_SIZE 64
#define ELF_MAX_SECTIONS 65279
#define EM_BPF		 247

static const char sig_name[] = ".sig";

uint64_t object__get(const struct object *o, uint64_t offset, unsigned width)
{
	const uint8_t *p = o->data + offset;
	uint64_t value = 0;

	for (unsigned i = 0; i < width; i++)
		value |= (uint64_t)p[o->big_endian ? width - 1 - i : i] << (8 * i);
	return value;
}

struct section object__section(const struct object *o, unsigned index)
{
	uint64_t at = o->table + (uint64_t)index * ELF_SECTION_SIZE;

	return (struct section){
		.name = (uint32_t)object__get(o, at, 4),
		.type = (uint32_t)object__get(o, at + 4, 4),
		.flags = object__get(o, at + 8, 8),
		.addr = object__get(o, at + 16, 8),
		.offset = object__get(o, at + 24, 8),
		.size = object__get(o, at + 32, 8),
		.link = (uint32_t)object__get(o, at + 40, 4),
		.info = (uint32_t)object__get(o, at + 44, 4),
		.entsize = object__get(o, at + 56, 8),
	};
}

const char *object__section_name(const struct object *o, const struct section *s)
{
	return (const char *)o->data + o->names + s->name;
}

static bool occupies(const struct section *s)
{
	return s->type != SHT_NULL && s->type != SHT_NOBITS;
}

/* Compare without a sum, which could wrap. */
static bool inside(uint64_t offset, uint64_t size, uint64_t total)
{
	return offset <= total && size <= total - offset;
}

/* The caller checked that both ranges lie inside the file, so no sum wraps. */
static bool overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
	return a_size && b_size && a < b + b_size && b < a + a_size;
}

static int parse_header(struct object *o, struct fault *fault)
{
	if (o->size < ELF_HEADER_SIZE || memcmp(o->data, "\177ELF", 4))
		return fault__set(fault, -EINVAL, "not an ELF file");
	if (o->data[4] != 2 || (o->data[5] != 1 && o->data[5] != 2) || o->data[6] != 1)
		return fault__set(fault, -EINVAL, "not a 64-bit ELF file of version 1");
	o->big_endian = o->data[5] == 2;
	if (object__get(o, 16, 2) != 1 || object__get(o, 18, 2) != EM_BPF || object__get(o, 20, 4) != 1)
		return fault__set(fault, -EINVAL, "not a relocatable eBPF object");
	if (object__get(o, 52, 2) != ELF_HEADER_SIZE || object__get(o, 56, 2) != 0 ||
	    object__get(o, 58, 2) != ELF_SECTION_SIZE)
		return fault__set(fault, -EINVAL, "wrong ELF header or entry sizes");
	o->table = object__get(o, 40, 8);
	o->sections = (unsigned)object__get(o, 60, 2);
	if (o->sections < 2 || o->sections > ELF_MAX_SECTIONS)
		return fault__set(fault, -EINVAL, "%u sections", o->sections);
	if (o->table < ELF_HEADER_SIZE ||
	    !inside(o->table, (uint64_t)o->sections * ELF_SECTION_SIZE, o->size))
		return fault__set(fault, -EINVAL, "section header table outside the file");
	return 0;
}

static int parse_names(const struct object *o, struct section *names, struct fault *fault)
{
	unsigned index = (unsigned)object__get(o, 62, 2);

	if (index < 1 || index >= o->sections)
		return fault__set(fault, -EINVAL, "no section name table");
	*names = object__section(o, index);
	if (names->type != SHT_STRTAB || !names->size || !inside(names->offset, names->size, o->size) ||
	    o->data[names->offset + names->size - 1])
		return fault__set(fault, -EINVAL, "bad section name table");
	return 0;
}

static void note_sig(struct object *o, unsigned index, const struct section *s)
{
	if (o->sig_count++)
		return;
	o->sig_index = index;
	o->sig_offset = s->offset;
	o->sig_size = s->size;
}

int object__parse(struct object *o, const uint8_t *data, size_t size, struct fault *fault)
{
	uint64_t end;
	struct section names;
	int err;

	*o = (struct object){ .data = data, .size = size };
	err = parse_header(o, fault);
	if (!err)
		err = parse_names(o, &names, fault);
	if (err)
		return err;
	o->names = names.offset;
	if (object__section(o, 0).type != SHT_NULL)
		return fault__set(fault, -EINVAL, "section 0 is not empty");

	end = o->table + (uint64_t)o->sections * ELF_SECTION_SIZE;
	for (unsigned i = 0; i < o->sections; i++) {
		struct section s = object__section(o, i);

		if (s.name >= names.size)
			return fault__set(fault, -EINVAL, "section %u: name outside the table", i);
		if (occupies(&s) && !inside(s.offset, s.size, size))
			return fault__set(fault, -EINVAL, "section %u: outside the file", i);
		if (occupies(&s) && s.offset + s.size > end)
			end = s.offset + s.size;
		/* The table ends in a zero byte, so every name in it has an end. */
		if (!strcmp(object__section_name(o, &s), sig_name))
			note_sig(o, i, &s);
	}
	if (end != size)
		return fault__set(fault, -EINVAL, "data after the end that the headers describe");
	return 0;
}

int object__check_sig(struct object *o, struct fault *fault)
{
	struct section sig = object__section(o, o->sig_index);

	if (o->sig_count != 1)
		return fault__set(fault, -EINVAL, "%u sections named .sig", o->sig_count);
	if (sig.type != SHT_PROGBITS || sig.flags || sig.addr || sig.link || sig.info || sig.entsize)
		return fault__set(fault, -EINVAL, "section .sig: wrong type or attributes");
	if (overlap(sig.offset, sig.size, 0, ELF_HEADER_SIZE) ||
	    overlap(sig.offset, sig.size, o->table, (uint64_t)o->sections * ELF_SECTION_SIZE))
		return fault__set(fault, -EINVAL, "section .sig overlaps the headers");
	for (unsigned i = 1; i < o->sections; i++) {
		struct section s = object__section(o, i);

		if (i != o->sig_index && occupies(&s) && overlap(sig.offset, sig.size, s.offset, s.size))
			return fault__set(fault, -EINVAL, "section .sig overlaps section %u", i);
	}
	return 0;
}

void object__digest(const struct object *o, uint8_t digest[DIGEST_SIZE])
{
	static const uint8_t zeros[4096];
	/* Inside the file, whose size is one. */
	size_t before = (size_t)o->sig_offset, size = (size_t)o->sig_size, after = before + size;
	SHA256_CTX state;

	SHA256_Init(&state);
	SHA256_Update(&state, o->data, before);
	for (size_t left = size; left;) {
		size_t n = left < sizeof(zeros) ? left : sizeof(zeros);

		SHA256_Update(&state, zeros, n);
		left -= n;
	}
	SHA256_Update(&state, o->data + after, o->size - after);
	SHA256_Final(digest, &state);
}
