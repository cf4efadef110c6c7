/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_VERIFY_VERIFY_H
#define LOADER_VERIFY_VERIFY_H

#include "verify/trust.h"
#include "verify/verdict.h"

/* For the limit in bytes, a size_t. */
#define VERIFY_TOO_LARGE "larger than %zu bytes; maxObjectBytes of the policy sets the bound"

struct verify_context {
	const struct trust *trust;
	/*
	 * Returns the highest version of an object that was accepted before, or 0. NULL: no versions are
	 * known.
	 */
	int64_t (*version_seen)(void *versions, const char *project, const char *object_name);
	void *versions;
	const char *platform; /* NULL for any */
	int64_t now;	      /* seconds since the epoch */
};

/* An accepted object, for loading the verified bytes; it borrows from the set and the verdict. */
struct verified_object {
	const char *name; /* of the file */
	const uint8_t *data;
	size_t size;
	const struct statement *statement;
	const uint8_t *digest, *policy; /* 32 bytes each */
	const uint8_t *const *key_ids;	/* that counted */
	size_t key_id_count;
};

/*
 * Section 7: verify one object. Key ids in the verdict borrow from @data.
 * Returns 0 (accepted), -EKEYREJECTED (refused, with reason and text) or -ENOMEM.
 */
int verify__object(const struct verify_context *context, const uint8_t *data, size_t size,
		   struct verdict *verdict);

#endif
