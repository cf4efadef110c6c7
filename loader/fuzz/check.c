// SPDX-License-Identifier: Apache-2.0
/*
 * Answer many questions of a test to the verifier, in one process.
 *
 * A question on stdin is one byte of kind, four of length (little-endian) and that many bytes:
 *   T path      use this trust store          answers "trust", or "bad-trust"
 *   P platform  verify for it; empty: any     no answer
 *   N decimal   the time                      no answer
 *   O object    verify it                     answers the reason's word, or "accepted DIGEST KEYID..."
 *   Y policy    read it                       answers "bad-trust", or what was read
 *   K public    read it as a .pub file        the same
 *   D decimal   write this time               answers the date
 *   V NAME=VALUE, a line feed, object: verify it, and ask whether the variable may have the value: answers
 *               "allowed", "denied" or the reason's word
 *   M NAME=N, a line feed, object: the same about so many entries of a map
 *   S           32 bytes of key, 64 of signature, message: answers "weak-key", "bad-signature" or "good"
 * Each answer is one line.
 */
#include "base/json.h"
#include "run/trustfiles.h"
#include "store.h"
#include "verify/settable.h"
#include "verify/verify.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUESTION_MAX (128u << 20)

struct session {
	struct trust trust;
	char platform[128];
	int64_t now;
};

static void print_hex(const uint8_t *data, size_t size)
{
	for (size_t i = 0; i < size; i++)
		printf("%02x", data[i]);
}

static void answer_trust(struct session *s, const char *path)
{
	struct fault fault = { 0 };

	trust__free(&s->trust);
	puts(trustfiles__read(&s->trust, path, &fault) ? "bad-trust" : "trust");
}

static void answer_object(const struct session *s, const uint8_t *data, size_t size)
{
	struct verify_context context = {
		.trust = &s->trust,
		.platform = s->platform[0] ? s->platform : NULL,
		.now = s->now,
	};
	struct verdict verdict;
	int err = verify__object(&context, data, size, &verdict);

	/* Each refusal, too, names the keys of the record. */
	for (size_t i = 0; i < verdict.key_id_count; i++) {
		if (!verdict.key_ids[i])
			abort();
	}
	if (err == -EKEYREJECTED && verdict.reason) {
		puts(verdict__word(verdict.reason));
	} else if (err || verdict.reason || !verdict.has_digest) {
		printf("error %d\n", err);
	} else {
		fputs("accepted ", stdout);
		print_hex(verdict.digest, sizeof(verdict.digest));
		for (size_t i = 0; i < verdict.key_id_count; i++) {
			putchar(' ');
			print_hex(verdict.key_ids[i], SIG_KEY_ID_SIZE);
		}
		putchar('\n');
	}
	verdict__free(&verdict);
}

/* Check that the text of a value, which lines and records have, is that value's only one. */
static void check_shown(const struct statement *st, const char *name, const struct setting_value *value)
{
	char text[SETTING_TEXT_SIZE];
	const char *shown = settable__show(value, text), *digits = shown + (*shown == '-');
	struct setting_value again;
	struct fault fault = { 0 };

	if (value->kind == SETTING_INTEGER) {
		if (strspn(digits, "0123456789") != strlen(digits) || (*digits == '0' && shown[1]))
			abort();
	} else if (strcmp(shown, value->text) != 0) {
		abort();
	}
	if (settable__read_variable(st, name, shown, &again, &fault) || again.kind != value->kind ||
	    again.integer.negative != value->integer.negative ||
	    again.integer.magnitude != value->integer.magnitude)
		abort();
}

static void answer_setting(const struct session *s, uint8_t *data, size_t size, bool is_size)
{
	uint8_t *end = memchr(data, '\n', size),
		*equals = end ? memchr(data, '=', (size_t)(end - data)) : NULL;
	const char *name = (const char *)data, *text = (const char *)equals + 1;
	struct verify_context context = { .trust = &s->trust, .now = s->now };
	struct setting_value value;
	struct fault fault = { 0 };
	struct verdict verdict;
	int err;

	if (!equals)
		abort();
	*equals = *end = 0;
	err = verify__object(&context, end + 1, size - (size_t)(end + 1 - data), &verdict);
	if (err) {
		puts(verdict__word(verdict.reason));
		verdict__free(&verdict);
		return;
	}
	err = is_size ? settable__read_entries(&verdict.statement, name, text, &value, &fault) :
			settable__read_variable(&verdict.statement, name, text, &value, &fault);
	if (err && !fault.text[0])
		abort();
	if (!err && is_size &&
	    !settable__allows_entries(&verdict.statement, name, (uint32_t)value.integer.magnitude))
		abort();
	if (!err && !is_size)
		check_shown(&verdict.statement, name, &value);
	puts(err ? "denied" : "allowed");
	verdict__free(&verdict);
}

static void answer_store(const uint8_t *data, size_t size, bool is_key)
{
	struct fault fault = { 0 };
	struct trust t;

	if (store__read(&t, data, size, is_key, &fault)) {
		puts("bad-trust");
		return;
	}
	print_hex(t.digest, sizeof(t.digest));
	printf(" %zu %zu %s %" PRId64 " %s%s%s", t.threshold, t.max_object_bytes,
	       trust__project(&t) ? trust__project(&t) : "*", t.earliest,
	       t.clock_unset_ok ? "unset-ok" : "required", t.allow_rollback ? " rollback" : "",
	       t.ignores_image ? " ignores-image" : "");
	for (size_t i = 0; i < t.key_count; i++) {
		const struct trust_key *key = &t.keys[i];

		putchar(' ');
		print_hex(key->id, sizeof(key->id));
		if (key->not_before != INT64_MIN)
			printf(",from=%" PRId64, key->not_before);
		if (key->not_after != INT64_MAX)
			printf(",until=%" PRId64, key->not_after);
		if (key->revoked)
			printf(",revoked");
	}
	putchar('\n');
	trust__free(&t);
}

static void answer_signature(const uint8_t *data, size_t size)
{
	const size_t head = SIG_PUBLIC_KEY_SIZE + 64;

	if (size < head)
		abort();
	if (!sig__key_is_strict(data))
		puts("weak-key");
	else
		puts(sig__verify(data + SIG_PUBLIC_KEY_SIZE, data + head, size - head, data) ?
			     "good" :
			     "bad-signature");
}

static void answer_date(const char *seconds)
{
	char text[JSON_TIME_SIZE];

	puts(json__format_time(strtoll(seconds, NULL, 10), text));
}

static bool answer(struct session *s, int kind, uint8_t *data, size_t size)
{
	switch (kind) {
	case 'T':
		answer_trust(s, (const char *)data);
		return true;
	case 'P':
		snprintf(s->platform, sizeof(s->platform), "%s", (const char *)data);
		return true;
	case 'N':
		s->now = strtoll((const char *)data, NULL, 10);
		return true;
	case 'O':
		answer_object(s, data, size);
		return true;
	case 'Y':
	case 'K':
		answer_store(data, size, kind == 'K');
		return true;
	case 'D':
		answer_date((const char *)data);
		return true;
	case 'V':
	case 'M':
		answer_setting(s, data, size, kind == 'M');
		return true;
	case 'S':
		answer_signature(data, size);
		return true;
	}
	return false;
}

/*
 * Use a buffer of exactly the question's size, so that a sanitizer finds a read past the end. Text gets a
 * zero byte.
 */
static uint8_t *read_question(int kind, size_t *size)
{
	bool is_text = kind == 'T' || kind == 'P' || kind == 'N' || kind == 'D';
	uint8_t head[4], *data;

	if (fread(head, 1, sizeof(head), stdin) != sizeof(head))
		return NULL;
	*size = head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16 | (size_t)head[3] << 24;
	if (*size > QUESTION_MAX)
		return NULL;
	data = malloc(*size + is_text);
	if (!data || fread(data, 1, *size, stdin) != *size) {
		free(data);
		return NULL;
	}
	if (is_text)
		data[*size] = 0;
	return data;
}

int main(void)
{
	struct session session = { 0 };
	bool ok = true;
	int kind;

	setvbuf(stdout, NULL, _IOLBF, 1 << 16);
	while (ok && (kind = getchar()) != EOF) {
		size_t size = 0;
		uint8_t *data = read_question(kind, &size);

		ok = data && answer(&session, kind, data, size);
		free(data);
	}
	trust__free(&session.trust);
	if (!ok)
		fputs("check: not a question\n", stderr);
	return !ok;
}
