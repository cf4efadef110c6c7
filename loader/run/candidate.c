// SPDX-License-Identifier: Apache-2.0
#include "run/candidate.h"

#include "base/arch.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/sha256.h"
#include "pin/pins.h"
#include "run/needs.h"
#include "run/objects.h"
#include "run/trustfiles.h"
#include "run/versions.h"
#include "verify/trust.h"
#include "verify/verify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/*
 * Return whether the directory is a mount point. Without an answer of statx (before Linux 5.8), assume a
 * mount, so that the host's store wins.
 */
static bool is_mounted(int dir)
{
	struct statx st;

	return statx(dir, "", AT_EMPTY_PATH, 0, &st) || !(st.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT) ||
	       st.stx_attributes & STATX_ATTR_MOUNT_ROOT;
}

/*
 * Choose the host's trust store, or the image's if the host has none. An absent directory means none, and so
 * does an empty one that is not mounted: an engine left it as a mount point. An unreadable directory is an
 * error. A mounted empty one is an error too, because an engine mounts that for a missing path of the host.
 */
static const char *default_trust(void)
{
	struct file_list list = { 0 };
	const char *path = DEFAULT_TRUST_HOST;
	struct stat st;
	int dir;

	if (lstat(path, &st) && errno == ENOENT)
		return DEFAULT_TRUST;
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return path;
	if (!file__list(dir, &list) && !list.count && !is_mounted(dir))
		path = DEFAULT_TRUST;
	file__list_free(&list);
	close(dir);
	return path;
}

/*
 * Return the state directory, or NULL for none. The default directory is used if it exists, and then an error
 * in it is fatal. --verify-only replaces no release, so it remembers versions only with --state.
 */
static const char *choose_state(const struct options *o)
{
	struct stat st;

	if (o->state || o->verify_only)
		return o->state;
	return lstat(DEFAULT_STATE, &st) && errno == ENOENT ? NULL : DEFAULT_STATE;
}

static int note_pinned(void *versions, const char *project, const char *object_name, int64_t version)
{
	return versions__raise(versions, project, object_name, version);
}

/* Return the highest version that was accepted before: pinned, or remembered in the state. */
static int64_t version_seen(void *candidate, const char *project, const char *object_name)
{
	const struct candidate *c = candidate;
	int64_t pinned = c->has_pinned ? versions__version(&c->pinned, project, object_name) : 0;
	int64_t state = c->has_state ? versions__version(&c->state, project, object_name) : 0;

	return pinned > state ? pinned : state;
}

/* An operator who names a store means that one; a store that is mounted over the image's adds to it. */
static int open_trust(struct candidate *c, const struct options *o, struct fault *fault)
{
	const char *path = o->trust ? o->trust : default_trust();
	int err = trustfiles__read(&c->trust, path, fault);

	if (err || o->trust || !strcmp(path, DEFAULT_TRUST) || c->trust.ignores_image)
		return err;
	err = trustfiles__read_image(&c->image, &c->trust, DEFAULT_TRUST, fault);
	c->has_image = err > 0;
	return err < 0 ? err : 0;
}

static int open_stores(struct candidate *c, const struct options *o, struct fault *fault)
{
	const char *state = choose_state(o);
	int err = open_trust(c, o, fault);

	if (!err && o->pin_root && !o->verify_only) {
		err = versions__begin(&c->pinned);
		c->has_pinned = true;
		if (!err)
			err = pins__list_versions(o->pin_root, note_pinned, &c->pinned, fault);
	}
	if (err || !state)
		return err;
	err = versions__open(&c->state, state, fault);
	c->has_state = !err;
	return err;
}

static int explain_refusal(const struct object_set *set, const struct options *o, struct fault *fault)
{
	const struct set_item *first;

	for (first = set->items; !first->verdict.reason;)
		first++;
	fault__set(fault, -EKEYREJECTED, "%zu of %zu objects refused%s: %.64s: %s: %.350s", set->refused,
		   set->count, o->verify_only ? "" : ", none loaded", first->name,
		   verdict__word(first->verdict.reason), first->verdict.fault.text);
	return EXIT_REFUSED;
}

int candidate__verify(struct candidate *c, const struct options *o, struct fault *fault)
{
	struct verify_context context = {
		.trust = &c->trust,
		.version_seen = version_seen,
		.versions = c,
		.platform = o->platform ? o->platform : PLATFORM,
		.now = o->now >= 0 ? o->now : (int64_t)time(NULL),
	};

	*c = (struct candidate){ .options = o };
	if (open_stores(c, o, fault))
		return fault__code(fault);
	if (objects__verify(&c->set, o->objects, LOAD_MAX_OBJECTS, &context, candidate__image(c), o, fault))
		return fault__code(fault);
	if (o->btf && kernel_btf__verify(&c->btf, o->btf, &context, candidate__image(c), o, fault))
		return fault__code(fault);
	if (c->set.refused || c->btf.set.refused)
		return explain_refusal(c->set.refused ? &c->set : &c->btf.set, o, fault);
	return c->set.failed || c->btf.set.failed ? EXIT_FAILED : EXIT_DONE;
}

const struct trust *candidate__image(const struct candidate *c)
{
	return c->has_image ? &c->image : NULL;
}

const struct verified_object *candidate__inputs(struct candidate *c)
{
	if (!c->inputs)
		c->inputs = calloc(c->set.count, sizeof(*c->inputs));
	for (size_t i = 0; c->inputs && i < c->set.count; i++) {
		const struct set_item *item = &c->set.items[i];

		c->inputs[i] = (struct verified_object){
			.name = item->name,
			.data = item->data,
			.size = item->size,
			.statement = &item->verdict.statement,
			.digest = item->verdict.digest,
			.policy = c->trust.digest,
			.key_ids = item->verdict.key_ids,
			.key_id_count = item->verdict.key_id_count,
		};
	}
	return c->inputs;
}

uint64_t candidate__needs(const struct candidate *c)
{
	uint64_t needs = 0;

	for (size_t i = 0; i < c->set.count; i++)
		needs |= needs__capabilities(&c->set.items[i].verdict.statement, c->set.items[i].name,
					     c->options);
	return needs;
}

static void hash_set(SHA256_CTX *state, const struct object_set *set)
{
	for (size_t i = 0; i < set->count; i++) {
		const struct set_item *item = &set->items[i];

		SHA256_Update(state, item->name, strlen(item->name) + 1);
		SHA256_Update(state, &item->size, sizeof(item->size));
		SHA256_Update(state, item->data, item->size);
	}
}

void candidate__fingerprint(const struct candidate *c, uint8_t fingerprint[FINGERPRINT_SIZE])
{
	SHA256_CTX state;

	SHA256_Init(&state);
	hash_set(&state, &c->set);
	hash_set(&state, &c->btf.set);
	SHA256_Final(fingerprint, &state);
}

static int raise_versions(struct candidate *c, const struct object_set *set)
{
	int err = 0;

	for (size_t i = 0; !err && i < set->count; i++) {
		const struct statement *st = &set->items[i].verdict.statement;

		err = versions__raise(&c->state, st->project, st->name, st->version);
	}
	return err;
}

int candidate__remember(struct candidate *c, struct fault *fault)
{
	int err;

	if (!c->has_state)
		return 0;
	err = raise_versions(c, &c->set);
	if (!err)
		err = raise_versions(c, &c->btf.set);
	if (err)
		fault__set(fault, err, "state: %s", strerror(-err));
	else
		err = versions__save(&c->state, fault);
	versions__close(&c->state);
	c->has_state = false;
	return err;
}

void candidate__free(struct candidate *c)
{
	if (c->has_state)
		versions__close(&c->state);
	if (c->has_pinned)
		versions__close(&c->pinned);
	free(c->inputs);
	objects__free(&c->set);
	kernel_btf__free(&c->btf);
	trust__free(&c->trust);
	trust__free(&c->image);
	*c = (struct candidate){ 0 };
}
