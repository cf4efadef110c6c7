// SPDX-License-Identifier: Apache-2.0
/* example_load PLATFORM TRUST OBJECT: open OBJECT with libbpf, if the policy or key in TRUST accepts it. */
#include <bpf/libbpf.h>
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

/* Open the object of a buffer that was accepted, without the pins that its policy does not allow. */
static struct bpf_object *open_object(const struct sigverify_store *store, const char *data, size_t size)
{
	struct bpf_object *object = bpf_object__open_mem(data, size, NULL);
	struct bpf_map *map;
	char point[64];

	if (!object)
		return NULL;
	bpf_object__for_each_map(map, object) {
		snprintf(point, sizeof(point), "pin/%s", bpf_map__name(map));
		if (!sigverify__allows_point(store, point))
			bpf_map__set_pin_path(map, NULL);
	}
	return object;
}

int main(int argc, char **argv)
{
	struct sigverify_question question = { .now = time(NULL) };
	char message[SIGVERIFY_MESSAGE_SIZE] = "cannot read", *trust, *data;
	struct sigverify_verdict *verdict;
	struct sigverify_store *store;
	struct bpf_program *program;
	struct bpf_object *object;
	size_t size;

	if (argc != 4)
		return fprintf(stderr, "usage: example_load PLATFORM TRUST OBJECT\n"), 2;
	question.platform = argv[1];
	size = read_file(argv[2], POLICY_MAX_BYTES, &trust);
	store = size ? sigverify__open(trust, size, message) : NULL;
	if (!store)
		return fprintf(stderr, "trust store %s: %s\n", argv[2], message), 2;
	size = read_file(argv[3], sigverify__max_object_bytes(store), &data);
	if (!size)
		return fprintf(stderr, "%s: cannot read\n", argv[3]), 1;
	verdict = sigverify__verify(store, &question, data, size);
	if (!sigverify__is_accepted(verdict))
		return fprintf(stderr, "refused: %s: %s\n",
			       verdict ? sigverify__reason(verdict) : "no memory",
			       verdict ? sigverify__message(verdict) : ""),
		       3;
	printf("accepted %s of %s, version %lld\n", sigverify__object_name(verdict),
	       sigverify__project(verdict), (long long)sigverify__version(verdict));
	/* The verified bytes are still in @data: no path is opened again. */
	object = open_object(store, data, size);
	if (!object)
		return fprintf(stderr, "%s: libbpf cannot open it\n", argv[3]), 1;
	bpf_object__for_each_program(program, object)
		printf("program %s, section %s\n", bpf_program__name(program),
		       bpf_program__section_name(program));
	/* Continue with bpf_object__load(object). */
	bpf_object__close(object);
	sigverify__free(verdict);
	sigverify__close(store);
	return 0;
}
