// SPDX-License-Identifier: Apache-2.0
#define OPENSSL_SUPPRESS_DEPRECATED /* SHA256() would link all of libcrypto */

/*
 * verify_cost OBJECT TRUST ROUNDS: measures verifying an object, against one SHA-256 over the file and one
 * libsodium verification of its signature. Prints both medians in nanoseconds.
 */
#include "base/file.h"
#include "run/trustfiles.h"
#include "verify/verify.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/sha.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define ROUNDS_MAX 10001

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int compare_times(const void *a, const void *b)
{
	const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static int64_t median(int64_t *times, int count)
{
	qsort(times, (size_t)count, sizeof(times[0]), compare_times);
	return times[count / 2];
}

static int64_t time_ours(const struct verify_context *context, const uint8_t *data, size_t size)
{
	int64_t start = now_ns();
	struct verdict verdict;

	if (verify__object(context, data, size, &verdict)) {
		fprintf(stderr, "refused: %s\n", verdict.fault.text);
		exit(1);
	}
	verdict__free(&verdict);
	return now_ns() - start;
}

static int64_t time_theirs(const struct trust *trust, const uint8_t *data, size_t size, const uint8_t *input,
			   size_t input_size, const uint8_t *signature)
{
	int64_t start = now_ns();
	uint8_t digest[SHA256_DIGEST_LENGTH];
	SHA256_CTX state;

	SHA256_Init(&state);
	SHA256_Update(&state, data, size);
	SHA256_Final(digest, &state);
	if (crypto_sign_verify_detached(signature, input, input_size, trust->keys[0].public))
		exit(1);
	return now_ns() - start;
}

int main(int argc, char **argv)
{
	static int64_t ours[ROUNDS_MAX], theirs[ROUNDS_MAX];
	struct verify_context context = { .now = time(NULL) };
	struct sig_record record;
	struct object object;
	struct fault fault = { 0 };
	struct trust trust;
	uint8_t *data, *input;
	size_t size, input_size;
	int rounds = argc == 4 ? atoi(argv[3]) : 0;

	if (rounds < 1 || rounds > ROUNDS_MAX || trustfiles__read(&trust, argv[2], &fault) ||
	    file__read(AT_FDCWD, argv[1], OBJECT_MAX_BYTES, &data, &size) ||
	    object__parse(&object, data, size, &fault) || !object.sig_count ||
	    object__check_sig(&object, &fault) ||
	    sig__parse(&record, data + object.sig_offset, object.sig_size, &fault) ||
	    sig__signing_input(&record, &input, &input_size)) {
		fprintf(stderr, "usage: verify_cost OBJECT TRUST ROUNDS %s\n", fault.text);
		return 2;
	}
	context.trust = &trust;
	/* Alternate, so that other load of the machine affects both equally. */
	for (int i = 0; i < rounds; i++) {
		ours[i] = time_ours(&context, data, size);
		theirs[i] = time_theirs(&trust, data, size, input, input_size, record.entries[0].signature);
	}
	printf("%" PRId64 " %" PRId64 "\n", median(ours, rounds), median(theirs, rounds));
	return 0;
}
