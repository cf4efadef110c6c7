/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_OBJECT_H
#define LOADER_OBJECT_H

#include "fault.h"

#include <stddef.h>
#include <stdint.h>

#define OBJECT_MAX_BYTES (16u << 20)
#define DIGEST_SIZE	 32

/* An ELF object of the profile in spec/sig-section.md, section 1. Borrows @data. */
struct object {
	const uint8_t *data;
	size_t size;
	bool big_endian;
	uint64_t table;	   /* offset of the section header table */
	unsigned sections; /* entries in it */
	unsigned sig_count;
	unsigned sig_index; /* of the first section named .sig */
	uint64_t sig_offset, sig_size;
};

/* Section 1 without the rules for .sig. Returns 0 or -EINVAL with the text set. */
int object__parse(struct object *object, const uint8_t *data, size_t size, struct fault *fault);

/* The rules for .sig; there is at least one. Returns 0 or -EINVAL with the text set. */
int object__check_sig(struct object *object, struct fault *fault);

/* SHA-256 over the file with the contents of .sig read as zero bytes (section 3). */
void object__digest(const struct object *object, uint8_t digest[DIGEST_SIZE]);

#endif
