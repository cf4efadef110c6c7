// SPDX-License-Identifier: Apache-2.0
#include "verify/truststore.h"

#include "base/fault.h"
#include "base/json.h"
#include "base/sha256.h"
#include "verify/sig.h"
#include "verify/trust.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define THRESHOLD_MAX 16
#define POINTS_MAX    256
#define DER_SIZE      44
#define PEM_BEGIN     "-----BEGIN PUBLIC KEY-----"
#define PEM_END	      "-----END PUBLIC KEY-----"
#define COUNT(array)  (sizeof(array) / sizeof((array)[0]))

static const uint8_t der_prefix[] = {
	0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00
};

static const struct json_member policy_members[] = {
	{ "policyVersion", JSON_KIND_INTEGER },
	{ "threshold", JSON_KIND_INTEGER },
	{ "keys", JSON_KIND_ARRAY },
	{ "project", JSON_KIND_PROJECT, true },
	{ "platforms", JSON_KIND_STRINGS, true },
	{ "objects", JSON_KIND_OBJECT, true },
	{ "programTypes", JSON_KIND_STRINGS, true },
	{ "attachPoints", JSON_KIND_STRINGS, true },
	{ "deniedHelpers", JSON_KIND_INTEGER_SET, true },
	{ "deniedKfuncs", JSON_KIND_STRING_SET, true },
	{ "maxObjectBytes", JSON_KIND_INTEGER, true },
	{ "allowRollback", JSON_KIND_BOOLEAN, true },
	{ "clock", JSON_KIND_STRING, true },
	{ "earliest", JSON_KIND_TIME, true },
	{ "imageRules", JSON_KIND_STRING, true },
};

static const struct json_member key_members[] = {
	{ "name", JSON_KIND_STRING },		{ "publicKey", JSON_KIND_STRING },
	{ "notBefore", JSON_KIND_TIME, true },	{ "notAfter", JSON_KIND_TIME, true },
	{ "revoked", JSON_KIND_BOOLEAN, true },
};

static const struct json_member minimum_members[] = {
	{ "minimumVersion", JSON_KIND_INTEGER },
};

static int add_key(struct trust *t, const uint8_t der[DER_SIZE], struct trust_key **key, struct fault *fault)
{
	struct trust_key *k;

	if (t->key_count == TRUST_MAX_KEYS)
		return fault__usage(fault, "more than %d keys", TRUST_MAX_KEYS);
	k = &t->keys[t->key_count];
	*k = (struct trust_key){ .not_before = INT64_MIN, .not_after = INT64_MAX };
	memcpy(k->public, der + sizeof(der_prefix), SIG_PUBLIC_KEY_SIZE);
	sha256__hash(k->id, der, DER_SIZE);
	if (memcmp(der, der_prefix, sizeof(der_prefix)))
		return fault__usage(fault, "not an Ed25519 public key");
	if (!sig__key_is_strict(k->public))
		return fault__usage(fault, "a weak Ed25519 public key");
	if (trust__find(t, k->id))
		return fault__usage(fault, "a key that is there twice");
	t->key_count++;
	*key = k;
	return 0;
}

/* Decode base64 to DER; characters of @ignored may stand anywhere. Returns false for other text. */
static bool read_der(uint8_t der[DER_SIZE], const char *text, size_t size, const char *ignored)
{
	size_t found = 0;

	/* libsodium 1.0.18 reads every byte above 127 as a slash. */
	for (size_t i = 0; i < size; i++) {
		if ((uint8_t)text[i] > 127)
			return false;
	}
	return !sodium_base642bin(der, DER_SIZE, text, size, ignored, &found, NULL,
				  sodium_base64_VARIANT_ORIGINAL) &&
	       found == DER_SIZE;
}

/* Accept one PEM block and nothing else; its lines may end in CR LF. */
int truststore__add_key(struct trust *t, const uint8_t *data, size_t size, struct fault *fault)
{
	char text[TRUSTSTORE_KEY_MAX_BYTES + 1];
	const char *begin, *end;
	struct trust_key *key;
	uint8_t der[DER_SIZE];

	if (size > TRUSTSTORE_KEY_MAX_BYTES)
		return fault__usage(fault, "too large");
	if (memchr(data, 0, size))
		return fault__usage(fault, "not a PEM public key");
	memcpy(text, data, size);
	text[size] = 0;
	begin = text + strspn(text, " \t\r\n");
	end = strstr(begin, PEM_END);
	if (strncmp(begin, PEM_BEGIN, strlen(PEM_BEGIN)) || !end ||
	    end[strlen(PEM_END) + strspn(end + strlen(PEM_END), " \t\r\n")])
		return fault__usage(fault, "not a PEM public key");
	begin += strlen(PEM_BEGIN);
	begin += *begin == '\r';
	if (*begin != '\n')
		return fault__usage(fault, "not a PEM public key");
	if (!read_der(der, begin, (size_t)(end - begin), "\r\n"))
		return fault__usage(fault, "not an Ed25519 public key");
	return add_key(t, der, &key, fault);
}

static int read_policy_key(struct trust *t, const json_t *item, struct fault *fault)
{
	const char *text = json_string_value(json_object_get(item, "publicKey"));
	const json_t *from = json_object_get(item, "notBefore");
	const json_t *until = json_object_get(item, "notAfter");
	struct trust_key *key;
	uint8_t der[DER_SIZE];
	int err;

	if (!read_der(der, text, strlen(text), NULL))
		return fault__usage(fault, "publicKey: not an Ed25519 public key");
	err = add_key(t, der, &key, fault);
	if (err)
		return err;
	key->revoked = json_is_true(json_object_get(item, "revoked"));
	if (from)
		json__time(json_string_value(from), &key->not_before);
	if (until)
		json__time(json_string_value(until), &key->not_after);
	return 0;
}

static int check_minimums(json_t *objects, struct fault *fault)
{
	const char *name;
	json_t *value;

	json_object_foreach(objects, name, value) {
		if (!json__is_object_name(name))
			return fault__set(fault, -EINVAL, "objects: not an object name");
		if (json__check(value, minimum_members, COUNT(minimum_members), "objects", fault))
			return -EINVAL;
	}
	return 0;
}

/* A number from 1 to @most, compared before it is stored: size_t has 32 bits on some machines. */
static bool read_number(const json_t *value, int64_t most, size_t *number)
{
	int64_t given = json_integer_value(value);

	if (given < 1 || given > most)
		return false;
	*number = (size_t)given;
	return true;
}

static int check_limits(struct trust *t, struct fault *fault)
{
	const json_t *largest = json_object_get(t->policy, "maxObjectBytes");

	if (json_integer_value(json_object_get(t->policy, "policyVersion")) != 1)
		return fault__set(fault, -EINVAL, "policyVersion: unknown");
	if (!read_number(json_object_get(t->policy, "threshold"), THRESHOLD_MAX, &t->threshold))
		return fault__set(fault, -EINVAL, "threshold: not 1 to %d", THRESHOLD_MAX);
	if (largest && !read_number(largest, OBJECT_MAX_BYTES, &t->max_object_bytes))
		return fault__set(fault, -EINVAL, "maxObjectBytes: not 1 to %u", OBJECT_MAX_BYTES);
	return 0;
}

static int check_points(const json_t *points, struct fault *fault)
{
	if (json_array_size(points) > POINTS_MAX)
		return fault__set(fault, -EINVAL, "attachPoints: more than %d", POINTS_MAX);
	for (size_t i = 0; i < json_array_size(points); i++) {
		const char *text = json_string_value(json_array_get(points, i));
		const char *star = strchr(text, '*');

		if (!*text || (star && star[1]))
			return fault__set(fault, -EINVAL, "attachPoints: %.64s is not a pattern", text);
	}
	return 0;
}

static int read_clock(struct trust *t, struct fault *fault)
{
	const char *clock = json_string_value(json_object_get(t->policy, "clock"));
	const json_t *earliest = json_object_get(t->policy, "earliest");

	if (earliest)
		json__time(json_string_value(earliest), &t->earliest);
	t->allow_rollback = json_is_true(json_object_get(t->policy, "allowRollback"));
	t->clock_unset_ok = clock && !strcmp(clock, "unset-ok");
	if (clock && !t->clock_unset_ok && strcmp(clock, "required"))
		return fault__set(fault, -EINVAL, "clock: neither required nor unset-ok");
	return 0;
}

static int read_image_rules(struct trust *t, struct fault *fault)
{
	const char *rules = json_string_value(json_object_get(t->policy, "imageRules"));

	t->ignores_image = rules && !strcmp(rules, "ignore");
	if (rules && !t->ignores_image && strcmp(rules, "combine"))
		return fault__set(fault, -EINVAL, "imageRules: neither combine nor ignore");
	return 0;
}

int truststore__add_policy(struct trust *t, const uint8_t *data, size_t size, struct fault *fault)
{
	const json_t *keys;
	int err = size > TRUSTSTORE_POLICY_MAX_BYTES ? fault__set(fault, -EFBIG, "too large") : 0;

	if (!err)
		err = json__parse(&t->policy, data, size, fault);

	if (!err)
		err = json__check(t->policy, policy_members, COUNT(policy_members), "policy", fault);
	if (!err)
		err = check_limits(t, fault);
	if (!err)
		err = check_minimums(json_object_get(t->policy, "objects"), fault);
	if (!err)
		err = check_points(json_object_get(t->policy, "attachPoints"), fault);
	if (!err)
		err = read_clock(t, fault);
	if (!err)
		err = read_image_rules(t, fault);
	keys = json_object_get(t->policy, "keys");
	if (!err)
		err = json__check_items(keys, key_members, COUNT(key_members), "key", fault);
	for (size_t i = 0; !err && i < json_array_size(keys); i++)
		err = read_policy_key(t, json_array_get(keys, i), fault);
	if (!err)
		sha256__hash(t->digest, data, size);
	return err;
}

static int compare_ids(const void *a, const void *b)
{
	return memcmp(((const struct trust_key *)a)->id, ((const struct trust_key *)b)->id, SIG_KEY_ID_SIZE);
}

static void digest_keys(struct trust *t)
{
	SHA256_CTX state;

	qsort(t->keys, t->key_count, sizeof(t->keys[0]), compare_ids);
	SHA256_Init(&state);
	for (size_t i = 0; i < t->key_count; i++)
		SHA256_Update(&state, t->keys[i].id, SIG_KEY_ID_SIZE);
	SHA256_Final(t->digest, &state);
}

void truststore__begin(struct trust *t)
{
	*t = (struct trust){ .threshold = 1, .max_object_bytes = OBJECT_MAX_BYTES };
}

int truststore__finish(struct trust *t, struct fault *fault)
{
	if (!t->key_count)
		return fault__usage(fault, "no public key in it");
	if (!t->policy)
		digest_keys(t);
	return 0;
}

int truststore__parse(struct trust *t, const uint8_t *data, size_t size, bool is_key, struct fault *fault)
{
	int err;

	truststore__begin(t);
	err = (is_key ? truststore__add_key : truststore__add_policy)(t, data, size, fault);
	if (!err)
		err = truststore__finish(t, fault);
	if (!err)
		return 0;
	trust__free(t);
	if (err == -ENOMEM)
		fault__set(fault, err, "out of memory");
	fault->usage = true;
	return err;
}
