// SPDX-License-Identifier: Apache-2.0
/*
 * libFuzzer: verify__object() on files that are signed again after each change.
 *
 * Input: a byte that selects a trust store, then the file. Without the mutator below, the broken signature
 * would end the verification of nearly every input. The mutator signs with the TEST KEYS of tests/vectors, so
 * that inputs reach statements and policies. FUZZ_STORES names the directory of the vectors' trust stores.
 */
#include "run/trustfiles.h"
#include "verify/object.h"
#include "verify/verify.h"

#include <dirent.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STORES_MAX	64
#define NOW		1780272000 /* 2026-06-01T00:00:00Z, the time of the vectors */
#define RECORD_HEAD	32
#define ENTRY_SIZE	96
#define ROOM_SIGNATURES 4
#define ANY_PLATFORM	0x80

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t room);

static const char *const signers[] = { "alice", "bob", "carol", "mallory" };

#define SIGNERS (sizeof(signers) / sizeof(signers[0]))

static uint8_t secrets[SIGNERS][crypto_sign_SECRETKEYBYTES];
static uint8_t key_ids[SIGNERS][SIG_KEY_ID_SIZE];
static struct trust stores[STORES_MAX];
static size_t store_count;

static void make_keys(void)
{
	uint8_t der[44] = { 0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00 };

	for (size_t i = 0; i < SIGNERS; i++) {
		uint8_t seed[crypto_hash_sha256_BYTES];
		char text[80];
		int n = snprintf(text, sizeof(text), "buildtool TEST KEY %s, never trust it", signers[i]);

		crypto_hash_sha256(seed, (const uint8_t *)text, (size_t)n);
		crypto_sign_seed_keypair(der + 12, secrets[i], seed);
		crypto_hash_sha256(key_ids[i], der, sizeof(der));
	}
}

/* Read the stores in the order of their names, because the selector of a seed is an index. */
static void read_stores(const char *directory)
{
	struct dirent **entries;
	int count = scandir(directory, &entries, NULL, alphasort);

	for (int i = 0; i < count; i++) {
		struct fault fault = { 0 };
		bool hidden = entries[i]->d_name[0] == '.';
		char path[512];

		snprintf(path, sizeof(path), "%s/%s", directory, entries[i]->d_name);
		free(entries[i]);
		if (hidden)
			continue;
		if (store_count == STORES_MAX || trustfiles__read(&stores[store_count++], path, &fault)) {
			fprintf(stderr, "%s: %s\n", path, fault.text);
			exit(1);
		}
	}
	if (count >= 0)
		free(entries);
	if (!store_count) {
		fputs("FUZZ_STORES: no trust store\n", stderr);
		exit(1);
	}
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const char *directory = getenv("FUZZ_STORES");

	(void)argc;
	(void)argv;
	make_keys();
	read_stores(directory ? directory : ".");
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct verify_context context = { .now = NOW };
	struct verdict verdict;
	int err;

	if (!size)
		return 0;
	context.trust = &stores[(data[0] & ~ANY_PLATFORM) % store_count];
	context.platform = data[0] & ANY_PLATFORM ? NULL : "linux/amd64";
	err = verify__object(&context, data + 1, size - 1, &verdict);
	/* An acceptance has all of its facts, and a refusal has a reason and a text. */
	if (err != 0 && err != -EKEYREJECTED)
		abort();
	if (err ? !verdict__word(verdict.reason) || !verdict.fault.text[0] :
		  verdict.reason || !verdict.has_digest || verdict.key_id_count < context.trust->threshold)
		abort();
	verdict__free(&verdict);
	return 0;
}

/* Find the record of a file that parses up to it. */
static bool find_record(const uint8_t *data, size_t size, struct object *object, struct sig_record *record)
{
	struct fault fault;

	return !object__parse(object, data, size, &fault) && object->sig_count &&
	       !object__check_sig(object, &fault) &&
	       !sig__parse(record, data + object->sig_offset, object->sig_size, &fault);
}

static void put_digest(const struct object *object, const struct sig_record *record)
{
	static const char marker[] = "\"sha256\":\"";
	uint8_t *found = memmem(record->statement, record->statement_size, marker, strlen(marker));
	uint8_t digest[DIGEST_SIZE];
	char hex[2 * DIGEST_SIZE + 1];

	if (!found || found + strlen(marker) + 64 > record->statement + record->statement_size)
		return;
	object__digest(object, digest);
	sodium_bin2hex(hex, sizeof(hex), digest, sizeof(digest));
	memcpy(found + strlen(marker), hex, 64);
}

static void sign_again(uint8_t *data, size_t size, bool with_digest)
{
	struct sig_record record;
	struct object object;
	uint8_t *input;
	size_t length;

	if (!find_record(data, size, &object, &record))
		return;
	if (with_digest)
		put_digest(&object, &record);
	if (sig__signing_input(&record, &input, &length))
		return;
	for (size_t i = 0; i < record.count; i++) {
		for (size_t k = 0; k < SIGNERS; k++) {
			if (!memcmp(record.entries[i].key_id, key_ids[k], SIG_KEY_ID_SIZE))
				crypto_sign_detached((uint8_t *)record.entries[i].signature, NULL, input,
						     length, secrets[k]);
		}
	}
	free(input);
}

/* Change only the statement, and move the signatures behind its new end. */
static void change_statement(uint8_t *data, size_t size)
{
	struct sig_record record;
	struct object object;
	uint8_t *section, *copy;
	size_t entries, slots, room, length;

	if (!find_record(data, size, &object, &record))
		return;
	section = data + object.sig_offset;
	entries = record.count * ENTRY_SIZE;
	slots = record.count > ROOM_SIGNATURES ? record.count : ROOM_SIGNATURES;
	room = object.sig_size - RECORD_HEAD - slots * ENTRY_SIZE;
	copy = malloc(room + entries);
	if (!copy)
		return;
	memcpy(copy, record.statement, record.statement_size);
	length = LLVMFuzzerMutate(copy, record.statement_size, room > 65536 ? 65536 : room);
	memcpy(copy + length, record.statement + record.statement_size, entries);
	memset(section + RECORD_HEAD, 0, object.sig_size - RECORD_HEAD);
	memcpy(section + RECORD_HEAD, copy, length + entries);
	for (unsigned i = 0; i < 4; i++)
		section[16 + i] = (uint8_t)(length >> (8 * i));
	free(copy);
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed)
{
	if (size > 1 && seed % 2)
		change_statement(data + 1, size - 1);
	else
		size = LLVMFuzzerMutate(data, size, room);
	if (size > 1 && seed / 2 % 8)
		sign_again(data + 1, size - 1, seed / 16 % 8);
	return size;
}
