// SPDX-License-Identifier: Apache-2.0
/*
 * library TRUST OBJECT PLATFORM NOW SEEN: print libsigverify's verdict about an object on one line, for
 * tests. An empty PLATFORM is any; SEEN is the version that was accepted before, or "-".
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sigverify.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Use a buffer of exactly the file's size, so that a sanitizer finds a read past the end. */
static uint8_t *read_file(const char *path, size_t *size)
{
	int fd = open(path, O_RDONLY);
	uint8_t *data = NULL;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) || !(data = malloc((size_t)st.st_size + !st.st_size)) ||
	    read(fd, data, (size_t)st.st_size) != st.st_size) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		exit(1);
	}
	close(fd);
	*size = (size_t)st.st_size;
	return data;
}

static void print_hex(const uint8_t *data)
{
	putchar(' ');
	for (size_t i = 0; i < SIGVERIFY_DIGEST_SIZE; i++)
		printf("%02x", data[i]);
}

static int64_t version_seen(void *context, const char *project, const char *object_name)
{
	fprintf(stderr, "asked %s %s\n", project, object_name);
	return strtoll(context, NULL, 10);
}

/* Check that an acceptance has no facts of a refusal, and a refusal none of an acceptance. */
static void check_absent(const struct sigverify_verdict *v)
{
	bool accepted = sigverify__is_accepted(v);

	if (accepted != !sigverify__reason(v) || accepted != !sigverify__message(v) ||
	    accepted != !!sigverify__object_name(v) || accepted != !!sigverify__project(v) ||
	    accepted != !!sigverify__digest(v) || accepted != !!sigverify__key_id(v, 0) ||
	    (!accepted && sigverify__version(v)))
		abort();
}

int main(int argc, char **argv)
{
	struct sigverify_question question = { 0 };
	char message[SIGVERIFY_MESSAGE_SIZE] = "not written";
	struct sigverify_verdict *v;
	struct sigverify_store *store;
	uint8_t *trust, *object;
	const uint8_t *key_id;
	size_t size;

	if (argc != 6)
		return 1;
	trust = read_file(argv[1], &size);
	store = sigverify__open(trust, size, message);
	free(trust);
	if (!store)
		return printf("bad-trust: %s\n", message) < 0;
	if (*message)
		abort();
	question.platform = *argv[3] ? argv[3] : NULL;
	question.now = strtoll(argv[4], NULL, 10);
	question.version_seen = strcmp(argv[5], "-") ? version_seen : NULL;
	question.context = argv[5];
	object = read_file(argv[2], &size);
	if (sigverify__verify(NULL, &question, object, size) ||
	    sigverify__verify(store, NULL, object, size) || sigverify__verify(store, &question, NULL, 1))
		abort();
	v = sigverify__verify(store, &question, object, size);
	check_absent(v);
	/* No statement declares a variable or a map without a name. */
	if (sigverify__allows_value(v, "", "1") || sigverify__allows_entries(v, "", 1))
		abort();
	if (sigverify__is_accepted(v)) {
		printf("accepted %s %s %" PRId64, sigverify__object_name(v), sigverify__project(v),
		       sigverify__version(v));
		print_hex(sigverify__digest(v));
		for (size_t i = 0; (key_id = sigverify__key_id(v, i)); i++)
			print_hex(key_id);
		putchar('\n');
	} else {
		printf("%s %s\n", sigverify__reason(v), sigverify__message(v));
	}
	sigverify__free(v);
	sigverify__close(store);
	free(object);
	/* NULL for a verdict or a store does no harm, and is no acceptance. */
	sigverify__free(NULL);
	sigverify__close(NULL);
	return sigverify__is_accepted(NULL) || sigverify__reason(NULL) || sigverify__message(NULL);
}
