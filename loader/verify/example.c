// SPDX-License-Identifier: Apache-2.0
/* example TRUST OBJECT: print whether the object may be loaded, by the policy or public key in file TRUST. */
#include <sigverify.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define POLICY_MAX_BYTES (1u << 20)

/* Read at most one byte more than @limit: the library refuses what is too large. */
static size_t read_file(const char *path, size_t limit, char **data)
{
	FILE *file = fopen(path, "rb");
	size_t size = 0;

	*data = malloc(limit + 1);
	if (file && *data)
		size = fread(*data, 1, limit + 1, file);
	if (file)
		fclose(file);
	return size;
}

int main(int argc, char **argv)
{
	const struct sigverify_question question = { .platform = "linux/amd64", .now = time(NULL) };
	char message[SIGVERIFY_MESSAGE_SIZE], *trust, *object;
	size_t trust_size = argc == 3 ? read_file(argv[1], POLICY_MAX_BYTES, &trust) : 0;
	struct sigverify_store *store = trust_size ? sigverify__open(trust, trust_size, message) : NULL;
	struct sigverify_verdict *verdict;
	size_t size;

	if (!store)
		return fprintf(stderr, "no trust store: %s\n", trust_size ? message : "cannot read"), 2;
	size = read_file(argv[2], sigverify__max_object_bytes(store), &object);
	verdict = sigverify__verify(store, &question, object, size);
	if (sigverify__is_accepted(verdict)) /* now load @object from this buffer */
		printf("accepted %s of %s, version %lld\n", sigverify__object_name(verdict),
		       sigverify__project(verdict), (long long)sigverify__version(verdict));
	else
		printf("refused: %s: %s\n", verdict ? sigverify__reason(verdict) : "no memory",
		       verdict ? sigverify__message(verdict) : "");
	return sigverify__is_accepted(verdict) ? 0 : 3;
}
