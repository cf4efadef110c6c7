// SPDX-License-Identifier: Apache-2.0
#include "run/objects.h"

#include "base/capabilities.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/log.h"
#include "run/needs.h"
#include "verify/object.h"
#include "verify/verdict.h"
#include "verify/verify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TYPES_SUFFIX ".btf.o"

/* Once more, by the image's rules: the stricter of both decides. */
static int verify_by_image(struct set_item *item, const struct verify_context *c, const struct trust *image)
{
	struct verify_context by_image = *c;
	struct verdict v;
	int err;

	by_image.trust = image;
	err = verify__object(&by_image, item->data, item->size, &v);
	if (err == -EKEYREJECTED) {
		item->verdict.reason = v.reason;
		fault__set(&item->verdict.fault, err, "the image's policy: %s", v.fault.text);
	}
	verdict__free(&v);
	return err;
}

/* Whether the object has types and a signature, and nothing else that libbpf reads. */
static bool has_types_alone(const struct set_item *item)
{
	struct fault fault = { 0 };
	struct object object;
	unsigned types = 0;

	if (object__parse(&object, item->data, item->size, &fault))
		return false;
	for (unsigned i = 0; i < object.sections; i++) {
		struct section section = object__section(&object, i);
		const char *name = object__section_name(&object, &section);

		if (!strcmp(name, ".BTF"))
			types++;
		else if (section.type != SHT_NULL && section.type != SHT_STRTAB && strcmp(name, ".sig"))
			return false;
	}
	return types == 1;
}

/*
 * An object of programs must not pass for the types of a kernel, by which other programs are relocated. The
 * signed name has the kernel's release, so that the types of another kernel do not pass for those of this
 * one.
 */
static int check_types(struct set_item *item)
{
	const char *name = item->verdict.statement.name;
	size_t n = strlen(name);

	if (!has_types_alone(item))
		return verdict__refuse(&item->verdict, REASON_DENIED_BY_POLICY,
				       "holds more than types, or none; buildtool btf makes files for --btf");
	if (n < sizeof(TYPES_SUFFIX) || strcmp(name + n - strlen(TYPES_SUFFIX), TYPES_SUFFIX) ||
	    strcmp(name, item->name))
		return verdict__refuse(&item->verdict, REASON_DENIED_BY_POLICY,
				       "signed as %.128s; types are called RELEASE" TYPES_SUFFIX
				       ", and signed as that",
				       name);
	return 0;
}

static int verify_item(struct set_item *item, int dir, const char *path, const struct verify_context *c,
		       const struct trust *image, bool is_types)
{
	struct verdict *v = &item->verdict;
	int err = file__read(dir, path, c->trust->max_object_bytes, &item->data, &item->size);

	if (err == -EFBIG)
		return verdict__refuse(v, REASON_TOO_LARGE, VERIFY_TOO_LARGE, c->trust->max_object_bytes);
	if (err == -ENODEV)
		return verdict__refuse(v, REASON_MALFORMED, "not a regular file; remove it from --objects");
	if (err)
		return fault__set(&v->fault, err, "cannot read: %s",
				  err == -EAGAIN ? "the file changes; write beside it and rename" :
						   strerror(-err));
	err = verify__object(c, item->data, item->size, v);
	if (!err && image)
		err = verify_by_image(item, c, image);
	if (!err && is_types)
		err = check_types(item);
	if (err == -ENOMEM)
		fault__set(&v->fault, err, "out of memory");
	return err;
}

static void write_decision(const struct set_item *item, int err, int64_t started,
			   const struct verify_context *c, const struct trust *image, const struct options *o)
{
	const struct verdict *v = &item->verdict;
	bool decided = !err || err == -EKEYREJECTED;
	char needs[CAPABILITIES_TEXT_SIZE];

	if (!err)
		capabilities__format(needs__capabilities(&v->statement, item->name, o), "", needs);
	log__write(&(struct log_line){
		.event = decided ? "verify" : "error",
		.object = item->name,
		.decision = !decided ? NULL :
			    err	     ? "refused" :
				       "accepted",
		.reason = verdict__word(v->reason),
		.digest = v->has_digest ? v->digest : NULL,
		.key_ids = v->key_ids,
		.key_id_count = v->key_id_count,
		.policy = c->trust->digest,
		.image_policy = image ? image->digest : NULL,
		.platform = c->platform,
		.capabilities = err ? NULL : needs,
		.message = err ? v->fault.text : NULL,
		.started = started,
	});
}

/* Free the bytes of a refused object, so that a directory of such files cannot fill a container's memory. */
static void forget_bytes(struct set_item *item)
{
	verdict__free(&item->verdict);
	free(item->data);
	item->data = NULL;
	item->size = 0;
}

static int add_item(struct object_set *set, int dir, const char *name, const char *path,
		    const struct verify_context *c, const struct trust *image, const struct options *o)
{
	struct set_item *item = &set->items[set->count];
	int64_t started = log__clock();
	int err;

	item->name = strdup(name);
	if (!item->name)
		return -ENOMEM;
	set->count++;
	err = verify_item(item, dir, path, c, image, set->is_types);
	set->refused += err == -EKEYREJECTED;
	set->failed += err && err != -EKEYREJECTED;
	write_decision(item, err, started, c, image, o);
	if (err)
		forget_bytes(item);
	return 0;
}

static int make_room(struct object_set *set, size_t count)
{
	set->items = calloc(count, sizeof(*set->items));
	return set->items ? 0 : -ENOMEM;
}

static int add_directory(struct object_set *set, int dir, size_t limit, const struct verify_context *c,
			 const struct trust *image, const struct options *o, struct fault *fault)
{
	struct file_list list;
	int err = file__list(dir, &list);

	if (err && err != -E2BIG)
		return fault__set(fault, err, "%s", strerror(-err));
	if (err || list.count > limit)
		err = fault__set(fault, -E2BIG, "more than %zu objects", limit);
	else if (!list.count)
		err = fault__set(fault, -ENOENT, "no object in it; check %s and its volume",
				 set->is_types ? "--btf" : "--objects");
	if (!err)
		err = make_room(set, list.count);
	for (size_t i = 0; !err && i < list.count; i++)
		err = add_item(set, dir, list.names[i], list.names[i], c, image, o);
	file__list_free(&list);
	return err;
}

int objects__verify(struct object_set *set, const char *path, size_t limit, const struct verify_context *c,
		    const struct trust *image, const struct options *o, struct fault *fault)
{
	struct fault inner = { 0 };
	const char *slash = strrchr(path, '/');
	int dir, err;

	*set = (struct object_set){ .is_types = set->is_types };
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir >= 0) {
		err = add_directory(set, dir, limit, c, image, o, &inner);
		close(dir);
	} else if (errno == ENOTDIR) {
		err = make_room(set, 1);
		if (!err)
			err = add_item(set, AT_FDCWD, slash ? slash + 1 : path, path, c, image, o);
	} else {
		err = fault__set(&inner, -errno, "%s", strerror(errno));
	}
	if (err) {
		fault__set(fault, err, "%s %.200s: %s", set->is_types ? "--btf" : "objects", path,
			   inner.text[0] ? inner.text : strerror(-err));
		objects__free(set);
	}
	return err;
}

void objects__free(struct object_set *set)
{
	for (size_t i = 0; i < set->count; i++) {
		verdict__free(&set->items[i].verdict);
		free(set->items[i].data);
		free(set->items[i].name);
	}
	free(set->items);
	*set = (struct object_set){ 0 };
}
