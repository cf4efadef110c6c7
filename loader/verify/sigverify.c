// SPDX-License-Identifier: Apache-2.0
#include "include/sigverify.h"
#include "base/fault.h"
#include "verify/settable.h"
#include "verify/trust.h"
#include "verify/truststore.h"
#include "verify/verdict.h"
#include "verify/verify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct sigverify_store {
	struct trust trust;
};

struct sigverify_verdict {
	struct verdict verdict;
};

_Static_assert(SIGVERIFY_MESSAGE_SIZE == FAULT_TEXT_SIZE, "messages have one size");
_Static_assert(SIGVERIFY_DIGEST_SIZE == DIGEST_SIZE, "digests have one size");

/* Return whether the bytes are a policy, which is a JSON object, and not a key in PEM. */
static bool is_policy(const char *data, size_t size)
{
	size_t i = 0;

	while (i < size && strchr(" \t\r\n", data[i]) && data[i])
		i++;
	return i < size && data[i] == '{';
}

struct sigverify_store *sigverify__open(const void *data, size_t size, char message[SIGVERIFY_MESSAGE_SIZE])
{
	struct sigverify_store *store = malloc(sizeof(*store));
	struct fault fault = { .text = "out of memory" };

	message[0] = 0;
	if (store && !truststore__parse(&store->trust, data, size, !is_policy(data, size), &fault))
		return store;
	snprintf(message, SIGVERIFY_MESSAGE_SIZE, "%s", fault.text);
	free(store);
	return NULL;
}

void sigverify__close(struct sigverify_store *store)
{
	if (store)
		trust__free(&store->trust);
	free(store);
}

size_t sigverify__max_object_bytes(const struct sigverify_store *store)
{
	return store ? store->trust.max_object_bytes : 0;
}

bool sigverify__allows_point(const struct sigverify_store *store, const char *point)
{
	return store && point && trust__allows_point(&store->trust, point);
}

struct sigverify_verdict *sigverify__verify(const struct sigverify_store *store,
					    const struct sigverify_question *question, const void *data,
					    size_t size)
{
	struct verify_context context;
	struct sigverify_verdict *v;

	/* A store that did not open is NULL: a caller without a check gets no acceptance and no crash. */
	if (!store || !question || (!data && size))
		return NULL;
	context = (struct verify_context){
		.trust = &store->trust,
		.platform = question->platform,
		.now = question->now,
		.version_seen = question->version_seen,
		.versions = question->context,
	};
	v = malloc(sizeof(*v));

	/* A lack of memory gives neither a reason nor an acceptance. */
	if (v && verify__object(&context, data, size, &v->verdict) && !v->verdict.reason) {
		sigverify__free(v);
		return NULL;
	}
	return v;
}

void sigverify__free(struct sigverify_verdict *v)
{
	if (v)
		verdict__free(&v->verdict);
	free(v);
}

bool sigverify__is_accepted(const struct sigverify_verdict *v)
{
	return v && v->verdict.reason == REASON_NONE;
}

const char *sigverify__reason(const struct sigverify_verdict *v)
{
	return v ? verdict__word(v->verdict.reason) : NULL;
}

const char *sigverify__message(const struct sigverify_verdict *v)
{
	return v && v->verdict.reason ? v->verdict.fault.text : NULL;
}

const char *sigverify__object_name(const struct sigverify_verdict *v)
{
	return sigverify__is_accepted(v) ? v->verdict.statement.name : NULL;
}

const char *sigverify__project(const struct sigverify_verdict *v)
{
	return sigverify__is_accepted(v) ? v->verdict.statement.project : NULL;
}

int64_t sigverify__version(const struct sigverify_verdict *v)
{
	return sigverify__is_accepted(v) ? v->verdict.statement.version : 0;
}

const uint8_t *sigverify__digest(const struct sigverify_verdict *v)
{
	return sigverify__is_accepted(v) ? v->verdict.digest : NULL;
}

const uint8_t *sigverify__key_id(const struct sigverify_verdict *v, size_t index)
{
	return sigverify__is_accepted(v) && index < v->verdict.key_id_count ? v->verdict.key_ids[index] :
									      NULL;
}

bool sigverify__allows_value(const struct sigverify_verdict *v, const char *variable, const char *value)
{
	struct setting_value found;
	struct fault fault;

	return sigverify__is_accepted(v) && variable && value &&
	       !settable__read_variable(&v->verdict.statement, variable, value, &found, &fault);
}

bool sigverify__allows_entries(const struct sigverify_verdict *v, const char *map, uint32_t entries)
{
	return sigverify__is_accepted(v) && map &&
	       settable__allows_entries(&v->verdict.statement, map, entries);
}
