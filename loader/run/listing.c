// SPDX-License-Identifier: Apache-2.0
#include "run/listing.h"

#include "base/file.h"
#include "base/json.h"
#include "load/share.h"
#include "pin/bpffs.h"
#include "pin/kernel.h"
#include "pin/pins.h"
#include "pin/record.h"
#include "run/privileges.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SHORT_DIGEST 12

/* The pinned objects, for list and status. */
struct listing {
	json_t *objects;
	bool bad; /* an attachment of a record is missing */
};

static void check_link(struct listing *l, const struct pins *p, const char *link, json_t *item)
{
	int fd = pins__get_link(p, link);
	bool attached = fd >= 0 && !kernel__link_is_severed(fd);

	if (fd >= 0)
		close(fd);
	l->bad |= !attached;
	json_object_set_new(item, "attached", json_boolean(attached));
	/* Only a rollback needs these. */
	json_object_del(item, "point");
	json_object_del(item, "given");
}

static void note_previous(const struct pins *p)
{
	struct generation previous;
	struct fault fault = { 0 };

	if (pins__open_previous(p, &previous, &fault))
		return;
	json_object_set_new(p->current.record, "previousVersion",
			    json_integer(record__number(&previous, "version")));
	generation__close(&previous);
}

static int list_pins(struct listing *l, int root, const char *shown, const char *object, struct fault *fault)
{
	struct pins p;
	const char *link;
	json_t *item;
	int err = pins__open_existing(&p, root, shown, object, fault);

	/* The pins of a killed start, or foreign pins; the next start reports which. */
	if (err == -ENOENT) {
		l->bad = true;
		return 0;
	}
	if (err)
		return err;
	json_object_foreach(json_object_get(p.current.record, "links"), link, item)
		check_link(l, &p, link, item);
	note_previous(&p);
	json_object_del(p.current.record, "maps");
	json_object_del(p.current.record, "access");
	if (json_array_append(l->objects, p.current.record))
		err = fault__set(fault, -ENOMEM, "out of memory");
	pins__close(&p);
	return err;
}

/* Note a shared object. It has no links here, because each container attaches for itself. */
static int list_shared(struct listing *l, int directory, const char *shown, const char *name,
		       struct fault *fault)
{
	struct generation g;
	char path[BPFFS_PATH_SIZE];
	int err = generation__open(&g, directory, name, shown, fault);

	bpffs__show(path, shown, name);
	if (!err)
		err = record__check_ids(&g, path, fault);
	/* Those of an earlier release of the loader go with the last who uses them. */
	if (err == -ENOENT || err == -ESTALE) {
		generation__close(&g);
		return 0;
	}
	if (!err && (json_object_set_new(g.record, "used", json_boolean(share__is_used(directory, name))) ||
		     json_array_append(l->objects, g.record)))
		err = fault__set(fault, -ENOMEM, "out of memory");
	json_object_del(g.record, "maps");
	json_object_del(g.record, "access");
	json_object_del(g.record, "links");
	generation__close(&g);
	return err;
}

/* Note the objects below a root. */
static int list_root(struct listing *l, const char *root, bool shared, struct fault *fault)
{
	int lock = bpffs__open_as_operator(root, fault), err;
	struct file_list names;

	if (lock < 0)
		return lock;
	err = file__list(lock, &names);
	if (err)
		fault__set(fault, err, "%.200s: %s", root, bpffs__reason(err));
	for (size_t i = 0; !err && i < names.count; i++) {
		bpffs__unescape(names.names[i]);
		err = (shared ? list_shared : list_pins)(l, lock, root, names.names[i], fault);
	}
	file__list_free(&names);
	close(lock);
	return err;
}

/* A signer can choose names: bytes outside printable ASCII must not reach a terminal. */
static void print_cell(const char *text, int width)
{
	int n = 0;

	for (; text && *text; text++, n++)
		putchar(*text >= 0x20 && *text < 0x7f ? *text : '?');
	printf("%*s", n < width ? width - n : 2, "");
}

static void print_short(const char *digest)
{
	char text[SHORT_DIGEST + 1];

	snprintf(text, sizeof(text), "%s", digest ? digest : "");
	print_cell(text, SHORT_DIGEST + 2);
}

static void print_row(const json_t *object, const char *program, const char *target, const char *state)
{
	const char *key = json_string_value(json_array_get(json_object_get(object, "keyIds"), 0));
	const char *digest = json_string_value(json_object_get(object, "digest"));
	char version[24];

	snprintf(version, sizeof(version), "%lld",
		 (long long)json_integer_value(json_object_get(object, "version")));
	print_cell(json_string_value(json_object_get(object, "object")), 24);
	print_cell(version, 9);
	print_short(digest);
	print_short(key);
	print_cell(json_string_value(json_object_get(object, "since")), 22);
	print_cell(program, 20);
	print_cell(target, 20);
	puts(state);
}

static bool has_link(const json_t *object, const char *program)
{
	const char *name, *linked;
	json_t *item;

	json_object_foreach(json_object_get(object, "links"), name, item) {
		linked = json_string_value(json_object_get(item, "program"));
		if (linked && !strcmp(linked, program))
			return true;
	}
	return false;
}

static void print_object(const json_t *object)
{
	const json_t *used = json_object_get(object, "used"), *programs = json_object_get(object, "programs");
	const char *name;
	json_t *item;

	json_object_foreach(json_object_get(object, "links"), name, item)
		print_row(object, json_string_value(json_object_get(item, "program")),
			  json_string_value(json_object_get(item, "target")),
			  json_is_true(json_object_get(item, "attached")) ? "attached" : "MISSING");
	json_object_foreach(json_object_get(object, "settings"), name, item)
		print_row(object, name, json_string_value(item), "set");
	json_object_foreach((json_t *)programs, name, item) {
		if (used)
			print_row(object, name, "-", json_is_true(used) ? "used" : "unused");
		else if (!has_link(object, name))
			print_row(object, name, "-", "loaded");
	}
}

static int print(const json_t *objects, bool as_json)
{
	char *text = as_json ? json_dumps(objects, JSON_SORT_KEYS | JSON_COMPACT | JSON_ENSURE_ASCII) : NULL;
	size_t i;
	json_t *object;

	if (as_json && !text)
		return -ENOMEM;
	if (text)
		puts(text);
	else
		printf("%-24s%-9s%-14s%-14s%-22s%-20s%-20s%s\n", "OBJECT", "VERSION", "DIGEST", "KEY",
		       "SINCE", "PROGRAM", "TARGET", "STATE");
	free(text);
	json_array_foreach((json_t *)objects, i, object) {
		if (!as_json)
			print_object(object);
	}
	return fflush(stdout) || ferror(stdout) ? -EIO : 0;
}

int listing__show(const struct options *o, struct fault *fault)
{
	struct listing l = { 0 };
	int err;

	if (!o->pin_root && !o->share)
		return fault__usage(fault, LISTING_NEEDS_ROOT);
	/* The capabilities of an image's file are only permitted at first. */
	privileges__raise();
	l.objects = json_array();
	err = o->pin_root ? list_root(&l, o->pin_root, false, fault) : 0;

	if (!err && o->share)
		err = list_root(&l, o->share, true, fault);
	if (!err) {
		err = print(l.objects, o->json);
		if (err)
			fault__set(fault, err, "standard output: %s", strerror(-err));
	}
	json_decref(l.objects);
	/* Docker's seccomp profile denies bpf(2) without the capability; the kernel does before Linux 5.19.
	 */
	if (err == -EPERM)
		privileges__explain(UINT64_C(1) << CAP_BPF, fault);
	if (!err && l.bad && o->command == COMMAND_STATUS)
		err = fault__set(fault, -ENOLINK,
				 "%.200s: not everything is attached; list shows what is MISSING",
				 o->pin_root);
	return err;
}
