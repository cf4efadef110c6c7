// SPDX-License-Identifier: Apache-2.0
/*
 * no_memory TRUST OBJECT: open the store and verify the object again and again. In run N, counted from 0, the
 * allocation with number N fails. Print the results of the runs, without repetitions: "no-store",
 * "no-verdict", the reason of a refusal, or "accepted". The last run has all of its memory. The linker
 * replaces the library's calls.
 */
#include <jansson.h>
#include <sigverify.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t left;
static bool failed;

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);

static bool fails(void)
{
	failed |= !left;
	return !left--;
}

void *__wrap_malloc(size_t size)
{
	return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
	return fails() ? NULL : __real_calloc(count, size);
}

static uint8_t *read_file(const char *path, size_t *size)
{
	uint8_t *data = __real_malloc(1 << 20);
	FILE *file = fopen(path, "rb");

	if (!data || !file)
		exit(1);
	*size = fread(data, 1, 1 << 20, file);
	fclose(file);
	return data;
}

static const char *verify(const uint8_t *trust, size_t trust_size, const uint8_t *object, size_t object_size)
{
	const struct sigverify_question question = { .now = 1780272000 };
	char message[SIGVERIFY_MESSAGE_SIZE];
	struct sigverify_store *store = sigverify__open(trust, trust_size, message);
	struct sigverify_verdict *v = NULL;
	const char *result = "no-store";

	if (store) {
		v = sigverify__verify(store, &question, object, object_size);
		result = !v ? "no-verdict" : sigverify__is_accepted(v) ? "accepted" : sigverify__reason(v);
	} else if (strcmp(message, "out of memory")) {
		printf("message: %s\n", message);
	}
	/* The words of reasons are constants, which stay when the verdict goes. */
	sigverify__free(v);
	sigverify__close(store);
	return result;
}

int main(int argc, char **argv)
{
	const char *result, *last = "";
	uint8_t *trust, *object;
	size_t sizes[2];

	if (argc != 3)
		return 1;
	trust = read_file(argv[1], &sizes[0]);
	object = read_file(argv[2], &sizes[1]);
	json_set_alloc_funcs(__wrap_malloc, free);
	for (size_t number = 0;; number++) {
		left = number;
		failed = false;
		result = verify(trust, sizes[0], object, sizes[1]);
		if (strcmp(result, last) || !failed)
			printf("%s%s\n", result, failed ? "" : " with all memory");
		last = result;
		if (!failed)
			break;
	}
	free(trust);
	free(object);
	return 0;
}
