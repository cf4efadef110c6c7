/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_VERIFY_TRUST_H
#define LOADER_VERIFY_TRUST_H

#include "base/fault.h"
#include "verify/object.h"
#include "verify/sig.h"

struct json_t; /* jansson stays inside */

#define TRUST_MAX_KEYS 64

struct trust_key {
	uint8_t id[SIG_KEY_ID_SIZE];
	uint8_t public[SIG_PUBLIC_KEY_SIZE];
	int64_t not_before, not_after; /* INT64_MIN and INT64_MAX when absent */
	bool revoked;
};

/* A trust store of spec/trust-policy.md. */
struct trust {
	struct trust_key keys[TRUST_MAX_KEYS];
	size_t key_count;
	size_t threshold;
	size_t max_object_bytes;
	int64_t earliest; /* the present time is at least this */
	bool clock_unset_ok;
	bool allow_rollback; /* accept less than the state's version, but not less than minimumVersion */
	bool ignores_image;  /* of a host's store: the rules of an image do not apply beside it */
	uint8_t digest[DIGEST_SIZE];
	struct json_t *policy; /* NULL: the store has only keys */
};

void trust__free(struct trust *trust);

const struct trust_key *trust__find(const struct trust *trust, const uint8_t *key_id);

/* Return the project that statements must name, or NULL for any. */
const char *trust__project(const struct trust *trust);
bool trust__allows_platform(const struct trust *trust, const char *platform);
bool trust__allows_type(const struct trust *trust, const char *type);
bool trust__allows_point(const struct trust *trust, const char *section_name);
/* Return whether the policy has the member, even with an empty list. */
bool trust__has_rule(const struct trust *trust, const char *rule);
#define TRUST_LIST_SIZE 200

/* Write the first names that a rule allows, sorted, for a message. */
const char *trust__list(const struct trust *trust, const char *rule, char text[TRUST_LIST_SIZE]);
bool trust__denies_helper(const struct trust *trust, uint32_t number);
bool trust__denies_kfunc(const struct trust *trust, const char *name);
/* libbpf looks for name___flavour under name, cut at the last place that looks so: this is its length. */
size_t trust__length_without_flavour(const char *name);
int64_t trust__minimum_version(const struct trust *trust, const char *object_name);

#endif
