// SPDX-License-Identifier: Apache-2.0
#include "run/trustfiles.h"

#include "base/fault.h"
#include "base/file.h"
#include "verify/trust.h"
#include "verify/truststore.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* An engine makes an empty directory for a mounted one that the host does not have. */
#define NO_KEY_HINT "; put NAME.pub files there, or run buildtool trust add; check the path on the host"
#define POLICY_NAME "policy.json"

static int read_file(int dir, const char *name, size_t limit, uint8_t **data, size_t *size,
		     struct fault *fault)
{
	int err = file__read(dir, name, limit, data, size);

	if (!err)
		return 0;
	fault__usage(fault, "%s",
		     err == -ENODEV ? "not a regular file" :
		     err == -EFBIG  ? "too large" :
				      strerror(-err));
	return err;
}

static int read_pem(struct trust *t, int dir, const char *name, struct fault *fault)
{
	uint8_t *data = NULL;
	size_t size;
	int err = read_file(dir, name, TRUSTSTORE_KEY_MAX_BYTES, &data, &size, fault);

	if (err)
		return err;
	err = truststore__add_key(t, data, size, fault);
	free(data);
	return err;
}

static int read_policy(struct trust *t, int dir, const char *name, struct fault *fault)
{
	uint8_t *data;
	size_t size;
	int err = read_file(dir, name, TRUSTSTORE_POLICY_MAX_BYTES, &data, &size, fault);

	if (err)
		return err;
	err = truststore__add_policy(t, data, size, fault);
	free(data);
	return err;
}

static bool ends_in_pub(const char *name)
{
	size_t n = strlen(name);

	return n >= 4 && !strcmp(name + n - 4, ".pub");
}

static int read_directory(struct trust *t, int dir, struct fault *fault)
{
	struct file_list list;
	struct stat st;
	int err;

	if (!fstatat(dir, POLICY_NAME, &st, AT_SYMLINK_NOFOLLOW))
		return read_policy(t, dir, POLICY_NAME, fault);
	/* Use the keys only if no policy exists: an unreadable policy must not be skipped. */
	if (errno != ENOENT)
		return fault__usage(fault, POLICY_NAME ": %s", strerror(errno));
	err = file__list(dir, &list);
	if (err == -E2BIG)
		return fault__usage(fault, "more than %d files in it", FILE_LIST_MAX);
	if (err)
		return fault__usage(fault, "%s", strerror(-err));
	for (size_t i = 0; !err && i < list.count; i++) {
		struct fault inner = { 0 };

		if (!ends_in_pub(list.names[i]))
			continue;
		err = read_pem(t, dir, list.names[i], &inner);
		if (err)
			fault__usage(fault, "%s: %s", list.names[i], inner.text);
	}
	file__list_free(&list);
	return err;
}

static int read_store(struct trust *t, const char *path, struct fault *fault)
{
	int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), err;

	if (dir >= 0) {
		err = read_directory(t, dir, fault);
		close(dir);
		return err;
	}
	if (errno != ENOTDIR)
		return fault__usage(fault, "%s", strerror(errno));
	return ends_in_pub(path) ? read_pem(t, AT_FDCWD, path, fault) : read_policy(t, AT_FDCWD, path, fault);
}

int trustfiles__read(struct trust *t, const char *path, struct fault *fault)
{
	struct fault inner = { 0 };
	bool is_empty = false;
	int err;

	truststore__begin(t);
	err = read_store(t, path, &inner);
	if (!err) {
		is_empty = !t->key_count;
		err = truststore__finish(t, &inner);
	}
	if (err) {
		trust__free(t);
		fault__usage(fault, "trust store %s: %s%s", path,
			     err == -ENOMEM ? strerror(ENOMEM) : inner.text, is_empty ? NO_KEY_HINT : "");
	}
	return err;
}

int trustfiles__read_image(struct trust *rules, const struct trust *host, const char *path,
			   struct fault *fault)
{
	struct trust image;
	struct stat st;
	int err;

	/* The loader of a host, outside any image. */
	if (lstat(path, &st) && errno == ENOENT)
		return 0;
	err = trustfiles__read(&image, path, fault);
	if (err)
		return err;
	*rules = *host;
	rules->policy = image.policy;
	rules->max_object_bytes = image.max_object_bytes;
	memcpy(rules->digest, image.digest, sizeof(rules->digest));
	for (size_t i = 0; i < rules->key_count; i++) {
		const struct trust_key *key = trust__find(&image, rules->keys[i].id);

		rules->keys[i].revoked |= key && key->revoked;
	}
	return image.policy ? 1 : 0;
}
