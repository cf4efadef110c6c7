/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_VERIFY_OBJECT_H
#define LOADER_VERIFY_OBJECT_H

#include "base/fault.h"

#include <stddef.h>
#include <stdint.h>

#define OBJECT_MAX_BYTES (64u << 20)
#define DIGEST_SIZE	 32
#define OBJECT_TEXT_MAX	 512 /* bytes of a name; the kernel's own are no longer */

/* An ELF object of the profile in spec/sig-section.md, section 1. It borrows @data. */
struct object {
	const uint8_t *data;
	size_t size;
	bool big_endian;
	uint64_t table;	   /* offset of the section header table */
	unsigned sections; /* entries in it */
	uint64_t names;	   /* offset of the section names, which end in a zero byte */
	unsigned sig_count;
	unsigned sig_index; /* of the first section named .sig */
	uint64_t sig_offset, sig_size;
};

#define SHT_NULL     0
#define SHT_PROGBITS 1
#define SHT_SYMTAB   2
#define SHT_STRTAB   3
#define SHT_NOBITS   8
#define SHT_REL	     9

struct section {
	uint32_t name, type, link, info;
	uint64_t flags, addr, offset, size, entsize;
};

/* Parse an object by section 1, without the rules for .sig. Returns 0, or -EINVAL with the text set. */
int object__parse(struct object *object, const uint8_t *data, size_t size, struct fault *fault);

/* Check the rules for .sig of an object that has one. Returns 0, or -EINVAL with the text set. */
int object__check_sig(struct object *object, struct fault *fault);

/* Read a parsed object. Everything is within bounds if @index is less than @sections. */
struct section object__section(const struct object *object, unsigned index);
const char *object__section_name(const struct object *object, const struct section *section);

/* Read an integer of @width bytes in the byte order of the file. The caller checks the bounds. */
uint64_t object__get(const struct object *object, uint64_t offset, unsigned width);

/* Compute the SHA-256 of the file, with the contents of .sig as zero bytes (section 3). */
void object__digest(const struct object *object, uint8_t digest[DIGEST_SIZE]);

#endif
