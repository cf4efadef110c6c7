// SPDX-License-Identifier: Apache-2.0
#include "verify/verify.h"

#include "base/fault.h"
#include "base/json.h"
#include "verify/code.h"
#include "verify/maps.h"
#include "verify/object.h"
#include "verify/sig.h"
#include "verify/statement.h"
#include "verify/trust.h"
#include "verify/verdict.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLOCK_TOLERANCE_SECONDS (24 * 60 * 60)
#define KEY_TEXT_SIZE		(2 * SIG_KEY_ID_SIZE + 1)
#define KEYS_SHOWN		3 /* in a message */
#define KEYS_TEXT_SIZE		(KEYS_SHOWN * (KEY_TEXT_SIZE + 2) + 24)
#define GET_AGAIN		"; get the object again from where it was signed"
#define SHOW_KEYS		"; buildtool trust list shows the keys' states"
#define TYPES_RULE		"; programTypes of the policy sets this rule"

static const char *show_key(const uint8_t *key_id, char text[KEY_TEXT_SIZE])
{
	return sodium_bin2hex(text, KEY_TEXT_SIZE, key_id, SIG_KEY_ID_SIZE);
}

/* Give a parser's error its reason and a hint; the parser has set the text. */
static int malformed(struct verdict *v, int err)
{
	char *text = v->fault.text;

	if (err == -ENOMEM)
		return err;
	v->reason = REASON_MALFORMED;
	strncat(text, GET_AGAIN, sizeof(v->fault.text) - strlen(text) - 1);
	return -EKEYREJECTED;
}

/* Step 6: a bad signature under a trusted key refuses the object, even if another signature is valid. */
static int check_signatures(const struct verify_context *c, const struct sig_record *record,
			    struct verdict *v)
{
	char text[KEY_TEXT_SIZE];
	uint8_t *input;
	size_t size;
	int err = sig__signing_input(record, &input, &size);

	for (size_t i = 0; !err && i < record->count; i++) {
		const struct sig_entry *entry = &record->entries[i];
		const struct trust_key *key = trust__find(c->trust, entry->key_id);

		if (key && !sig__verify(entry->signature, input, size, key->public))
			err = verdict__refuse(v, REASON_BAD_SIGNATURE,
					      "the signature of trusted key %s does not verify" GET_AGAIN,
					      show_key(entry->key_id, text));
	}
	free(input);
	return err;
}

/* Write the first key ids of a list, for a message. */
static const char *show_keys(const uint8_t *const *key_ids, size_t count, char text[KEYS_TEXT_SIZE])
{
	char key[KEY_TEXT_SIZE];
	size_t used = 0, i;

	text[0] = 0;
	for (i = 0; i < count && i < KEYS_SHOWN; i++)
		used += (size_t)snprintf(text + used, KEYS_TEXT_SIZE - used, "%s%s", i ? ", " : "",
					 show_key(key_ids[i], key));
	if (i < count)
		snprintf(text + used, KEYS_TEXT_SIZE - used, " and %zu more", count - i);
	return text;
}

/* A trusted key that signed and does not count. */
static int refuse_key(enum reason reason, const struct trust_key *key, struct verdict *v)
{
	char id[KEY_TEXT_SIZE], time[JSON_TIME_SIZE];

	show_key(key->id, id);
	if (reason == REASON_REVOKED)
		return verdict__refuse(v, reason, "signed with key %s, which is revoked" SHOW_KEYS, id);
	if (reason == REASON_EXPIRED)
		return verdict__refuse(v, reason, "signed with key %s, which expired at %s" SHOW_KEYS, id,
				       json__format_time(key->not_after, time));
	return verdict__refuse(v, reason, "signed with key %s, which is not valid before %s" SHOW_KEYS, id,
			       json__format_time(key->not_before, time));
}

/*
 * Step 7: only keys that are valid now count. Of the other keys' problems, the first in this order is the
 * reason.
 */
static int check_threshold(const struct verify_context *c, int64_t now, const struct sig_record *record,
			   struct verdict *v)
{
	const struct trust_key *revoked = NULL, *past = NULL, *before = NULL;
	const uint8_t *counted[SIG_MAX_COUNT];
	char text[KEYS_TEXT_SIZE];
	size_t count = 0;

	for (size_t i = 0; i < record->count; i++) {
		const struct trust_key *key = trust__find(c->trust, record->entries[i].key_id);

		if (!key)
			continue;
		if (key->revoked)
			revoked = key;
		else if (now > key->not_after)
			past = key;
		else if (now < key->not_before)
			before = key;
		else
			counted[count++] = record->entries[i].key_id;
	}
	if (count >= c->trust->threshold) {
		memcpy(v->key_ids, counted, count * sizeof(counted[0]));
		v->key_id_count = count;
		return 0;
	}
	if (count)
		return verdict__refuse(v, REASON_BELOW_THRESHOLD,
				       "%zu of %zu trusted keys signed: %s; buildtool sign --add adds the "
				       "signature of another key",
				       count, c->trust->threshold, show_keys(counted, count, text));
	if (revoked)
		return refuse_key(REASON_REVOKED, revoked, v);
	if (past)
		return refuse_key(REASON_EXPIRED, past, v);
	if (before)
		return refuse_key(REASON_NOT_YET_VALID, before, v);
	return verdict__refuse(v, REASON_UNKNOWN_KEY,
			       "no trusted key signed, only %s; the trust store has other keys",
			       show_keys(v->key_ids, v->key_id_count, text));
}

/* Step 9 */
static int check_digest(const struct object *object, struct verdict *v)
{
	char hex[2 * DIGEST_SIZE + 1];

	object__digest(object, v->digest);
	v->has_digest = true;
	sodium_bin2hex(hex, sizeof(hex), v->digest, sizeof(v->digest));
	if (strcmp(hex, v->statement.digest))
		return verdict__refuse(v, REASON_DIGEST_MISMATCH,
				       "the file is not the one that was signed" GET_AGAIN);
	return 0;
}

/* Step 10 */
static int check_platform(const struct verify_context *c, const struct object *object, struct verdict *v)
{
	const char *platform = v->statement.platform;

	if (c->platform && strcmp(platform, c->platform))
		return verdict__refuse(v, REASON_WRONG_PLATFORM,
				       "signed for '%.64s', not %s; use the image of this platform", platform,
				       c->platform);
	/* linux/s390x is the only big-endian platform of base/arch.h. */
	if (object->big_endian != !strcmp(platform, "linux/s390x"))
		return verdict__refuse(v, REASON_WRONG_PLATFORM, "the byte order is not that of '%.64s'",
				       platform);
	return 0;
}

/* Step 11: a clock that is not set (1970) cannot show that a validity has ended. */
static int check_validity(const struct verify_context *c, int64_t now, struct verdict *v)
{
	const struct statement *st = &v->statement;
	bool limited = st->not_after != INT64_MAX;
	char time[JSON_TIME_SIZE], created[JSON_TIME_SIZE];

	if (now > st->not_after)
		return verdict__refuse(v, REASON_EXPIRED,
				       "notAfter of its statement, %s, has passed; use a newer release",
				       json__format_time(st->not_after, time));
	for (size_t i = 0; i < v->key_id_count; i++)
		limited |= trust__find(c->trust, v->key_ids[i])->not_after != INT64_MAX;
	if (limited && !c->trust->clock_unset_ok && now < st->created - CLOCK_TOLERANCE_SECONDS)
		return verdict__refuse(
			v, REASON_NOT_YET_VALID,
			"the clock is not set, %s is before the object's creation at %s, and the "
			"validity is limited; set this machine's clock",
			json__format_time(now, time), json__format_time(st->created, created));
	return 0;
}

/* Step 12. code.c has its rules about instructions, maps.c its rules about maps. */
static int check_policy(const struct verify_context *c, const struct object *object, struct verdict *v)
{
	const struct statement *st = &v->statement;
	const char *project = trust__project(c->trust), *type;
	char allowed[TRUST_LIST_SIZE];
	int err;

	if (project && strcmp(project, st->project))
		return verdict__refuse(
			v, REASON_DENIED_BY_POLICY,
			"signed for project %.128s, not %.128s; project of the policy sets this rule",
			st->project, project);
	if (!trust__allows_platform(c->trust, st->platform))
		return verdict__refuse(
			v, REASON_DENIED_BY_POLICY,
			"platform '%.64s' is not allowed, only %s; platforms of the policy sets this rule",
			st->platform, trust__list(c->trust, "platforms", allowed));
	for (size_t i = 0; i < statement__program_count(st); i++) {
		type = statement__program_type(st, i);
		if (!trust__allows_type(c->trust, type))
			return verdict__refuse(
				v, REASON_DENIED_BY_POLICY,
				"program '%.64s' of type '%.64s' is not allowed, only %s" TYPES_RULE,
				statement__program_name(st, i), type,
				trust__list(c->trust, "programTypes", allowed));
	}
	for (size_t i = 0; (type = statement__map_type(st, i)); i++) {
		if (!strcmp(type, "struct_ops") && !trust__allows_type(c->trust, type))
			return verdict__refuse(
				v, REASON_DENIED_BY_POLICY,
				"map '%.64s' of type struct_ops is not allowed, only %s" TYPES_RULE,
				statement__map_name(st, i), trust__list(c->trust, "programTypes", allowed));
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
	int64_t minimum = trust__minimum_version(c->trust, st->name), seen = 0;

	if (st->version < minimum)
		return verdict__refuse(
			v, REASON_ROLLED_BACK,
			"version %lld of %.128s is older than %lld; minimumVersion of the policy "
			"sets the bound",
			(long long)st->version, st->name, (long long)minimum);
	if (c->version_seen && !c->trust->allow_rollback)
		seen = c->version_seen(c->versions, st->project, st->name);
	if (st->version < seen)
		return verdict__refuse(
			v, REASON_ROLLED_BACK,
			"version %lld of %.128s is older than %lld, accepted before; allowRollback "
			"of the policy lets older releases start again",
			(long long)st->version, st->name, (long long)seen);
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
		return verdict__refuse(v, REASON_TOO_LARGE, VERIFY_TOO_LARGE, c->trust->max_object_bytes);
	/* (2) */
	err = object__parse(&object, data, size, &v->fault);
	if (err)
		return malformed(v, err);
	/* (3) */
	if (!object.sig_count)
		return verdict__refuse(v, REASON_UNSIGNED, "no section .sig; buildtool sign OBJECT signs it");
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
