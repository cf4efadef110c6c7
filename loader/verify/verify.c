// SPDX-License-Identifier: Apache-2.0
#include "verify/verify.h"

#include "base/fault.h"
#include "verify/code.h"
#include "verify/maps.h"
#include "verify/object.h"
#include "verify/sig.h"
#include "verify/statement.h"
#include "verify/trust.h"
#include "verify/verdict.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define CLOCK_TOLERANCE_SECONDS (24 * 60 * 60)

/* Give a parser's error its reason; the parser has set the text. */
static int malformed(struct verdict *v, int err)
{
	if (err == -ENOMEM)
		return err;
	v->reason = REASON_MALFORMED;
	return -EKEYREJECTED;
}

/* Step 6: a bad signature under a trusted key refuses the object, even if another signature is valid. */
static int check_signatures(const struct verify_context *c, const struct sig_record *record,
			    struct verdict *v)
{
	uint8_t *input;
	size_t size;
	int err = sig__signing_input(record, &input, &size);

	for (size_t i = 0; !err && i < record->count; i++) {
		const struct sig_entry *entry = &record->entries[i];
		const struct trust_key *key = trust__find(c->trust, entry->key_id);

		if (key && !sig__verify(entry->signature, input, size, key->public))
			err = verdict__refuse(v, REASON_BAD_SIGNATURE,
					      "a signature of a trusted key does not verify");
	}
	free(input);
	return err;
}

/*
 * Step 7: only keys that are valid now count. Of the other keys' problems, the first in this order is the
 * reason.
 */
static int check_threshold(const struct verify_context *c, int64_t now, const struct sig_record *record,
			   struct verdict *v)
{
	bool revoked = false, past = false, before = false;
	const uint8_t *counted[SIG_MAX_COUNT];
	size_t count = 0;

	for (size_t i = 0; i < record->count; i++) {
		const struct trust_key *key = trust__find(c->trust, record->entries[i].key_id);

		if (!key)
			continue;
		if (key->revoked)
			revoked = true;
		else if (now > key->not_after)
			past = true;
		else if (now < key->not_before)
			before = true;
		else
			counted[count++] = record->entries[i].key_id;
	}
	if (count >= c->trust->threshold) {
		memcpy(v->key_ids, counted, count * sizeof(counted[0]));
		v->key_id_count = count;
		return 0;
	}
	if (count)
		return verdict__refuse(v, REASON_BELOW_THRESHOLD, "too few trusted keys signed");
	if (revoked)
		return verdict__refuse(v, REASON_REVOKED, "signed with a revoked key");
	if (past)
		return verdict__refuse(v, REASON_EXPIRED, "signed with a key past its validity");
	if (before)
		return verdict__refuse(v, REASON_NOT_YET_VALID, "signed with a key not valid yet");
	return verdict__refuse(v, REASON_UNKNOWN_KEY, "no trusted key signed");
}

/* Step 9 */
static int check_digest(const struct object *object, struct verdict *v)
{
	char hex[2 * DIGEST_SIZE + 1];

	object__digest(object, v->digest);
	v->has_digest = true;
	sodium_bin2hex(hex, sizeof(hex), v->digest, sizeof(v->digest));
	if (strcmp(hex, v->statement.digest))
		return verdict__refuse(v, REASON_DIGEST_MISMATCH, "the file is not the one that was signed");
	return 0;
}

/* Step 10 */
static int check_platform(const struct verify_context *c, const struct object *object, struct verdict *v)
{
	const char *platform = v->statement.platform;

	if (c->platform && strcmp(platform, c->platform)) {
		v->reason = REASON_WRONG_PLATFORM;
		return fault__set(&v->fault, -EKEYREJECTED, "signed for %.64s, this is %s", platform,
				  c->platform);
	}
	/* linux/s390x is the only big-endian platform of base/arch.h. */
	if (object->big_endian != !strcmp(platform, "linux/s390x"))
		return verdict__refuse(v, REASON_WRONG_PLATFORM,
				       "the byte order is not that of the platform");
	return 0;
}

/* Step 11: a clock that is not set (1970) cannot show that a validity has ended. */
static int check_validity(const struct verify_context *c, int64_t now, struct verdict *v)
{
	const struct statement *st = &v->statement;
	bool limited = st->not_after != INT64_MAX;

	if (now > st->not_after)
		return verdict__refuse(v, REASON_EXPIRED, "past the notAfter of its statement");
	for (size_t i = 0; i < v->key_id_count; i++)
		limited |= trust__find(c->trust, v->key_ids[i])->not_after != INT64_MAX;
	if (limited && !c->trust->clock_unset_ok && now < st->created - CLOCK_TOLERANCE_SECONDS)
		return verdict__refuse(v, REASON_NOT_YET_VALID,
				       "the clock is not set, and the validity is limited");
	return 0;
}

/* Step 12. code.c has its rules about instructions, maps.c its rules about maps. */
static int check_policy(const struct verify_context *c, const struct object *object, struct verdict *v)
{
	const struct statement *st = &v->statement;
	const char *project = trust__project(c->trust), *type;
	int err;

	if (project && strcmp(project, st->project))
		return verdict__refuse(v, REASON_DENIED_BY_POLICY, "signed for another project");
	if (!trust__allows_platform(c->trust, st->platform))
		return verdict__refuse(v, REASON_DENIED_BY_POLICY, "a platform that is not allowed");
	for (size_t i = 0; i < statement__program_count(st); i++) {
		if (!trust__allows_type(c->trust, statement__program_type(st, i)))
			return verdict__refuse(v, REASON_DENIED_BY_POLICY,
					       "a program of a type that is not allowed");
	}
	for (size_t i = 0; (type = statement__map_type(st, i)); i++) {
		if (!strcmp(type, "struct_ops") && !trust__allows_type(c->trust, type))
			return verdict__refuse(v, REASON_DENIED_BY_POLICY,
					       "a map of type struct_ops is not allowed");
	}
	err = code__check(object, c->trust, st, &v->fault);
	if (!err)
		err = maps__check(object, c->trust, &v->fault);
	if (err == -EKEYREJECTED)
		v->reason = REASON_DENIED_BY_POLICY;
	return err;
}

/* Step 13 */
static int check_version(const struct verify_context *c, struct verdict *v)
{
	const struct statement *st = &v->statement;

	if (st->version < trust__minimum_version(c->trust, st->name))
		return verdict__refuse(v, REASON_ROLLED_BACK, "older than the minimum version");
	if (c->version_seen && !c->trust->allow_rollback &&
	    st->version < c->version_seen(c->versions, st->project, st->name))
		return verdict__refuse(v, REASON_ROLLED_BACK, "older than what was accepted before");
	return 0;
}

static int check_statement(const struct verify_context *c, int64_t now, const struct object *object,
			   const struct sig_record *record, struct verdict *v)
{
	/* (8) */
	int err = statement__parse(&v->statement, record->statement, record->statement_size, &v->fault);

	if (err)
		return malformed(v, err);
	/* (9) (10) (11) (12) (13) */
	err = check_digest(object, v);
	if (!err)
		err = check_platform(c, object, v);
	if (!err)
		err = check_validity(c, now, v);
	if (!err)
		err = check_policy(c, object, v);
	if (!err)
		err = check_version(c, v);
	return err;
}

int verify__object(const struct verify_context *c, const uint8_t *data, size_t size, struct verdict *v)
{
	int64_t now = c->now > c->trust->earliest ? c->now : c->trust->earliest;
	struct sig_record record;
	struct object object;
	int err;

	*v = (struct verdict){ 0 };
	/* (1) */
	if (size > c->trust->max_object_bytes)
		return verdict__refuse(v, REASON_TOO_LARGE, "larger than the limit");
	/* (2) */
	err = object__parse(&object, data, size, &v->fault);
	if (err)
		return malformed(v, err);
	/* (3) */
	if (!object.sig_count)
		return verdict__refuse(v, REASON_UNSIGNED, "no section .sig");
	/* (4) */
	err = object__check_sig(&object, &v->fault);
	if (err)
		return malformed(v, err);
	/* (5) */
	err = sig__parse(&record, data + object.sig_offset, (size_t)object.sig_size, &v->fault);
	if (err)
		return malformed(v, err);
	for (size_t i = 0; i < record.count; i++)
		v->key_ids[i] = record.entries[i].key_id;
	v->key_id_count = record.count;
	/* (6) */
	err = check_signatures(c, &record, v);
	/* (7) */
	if (!err)
		err = check_threshold(c, now, &record, v);
	if (!err)
		err = check_statement(c, now, &object, &record, v);
	return err;
}
