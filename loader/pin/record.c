// SPDX-License-Identifier: Apache-2.0
#include "pin/record.h"

#include "attach/attach.h"
#include "base/fault.h"
#include "base/json.h"
#include "pin/bpffs.h"
#include "pin/kernel.h"
#include "verify/verify.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define RECORD_MAX_BYTES 262144
#define RECORD_VERSION	 2 /* 1 had no ids of maps and links */
#define HASH_SIZE	 32

static const struct json_member record_members[] = {
	{ "v", JSON_KIND_INTEGER },	     { "object", JSON_KIND_NAME },
	{ "file", JSON_KIND_STRING },	     { "project", JSON_KIND_PROJECT },
	{ "version", JSON_KIND_INTEGER },    { "digest", JSON_KIND_SHA256 },
	{ "policy", JSON_KIND_SHA256 },	     { "keyIds", JSON_KIND_STRINGS },
	{ "variant", JSON_KIND_STRING },     { "since", JSON_KIND_TIME },
	{ "generation", JSON_KIND_INTEGER }, { "namespace", JSON_KIND_INTEGER },
	{ "links", JSON_KIND_OBJECT },	     { "programs", JSON_KIND_OBJECT },
	{ "maps", JSON_KIND_OBJECT },	     { "mapIds", JSON_KIND_OBJECT },
	{ "access", JSON_KIND_OBJECT },	     { "settings", JSON_KIND_OBJECT, true },
};

static json_t *hex_string(const uint8_t *data)
{
	char text[2 * HASH_SIZE + 1];

	return json_string(sodium_bin2hex(text, sizeof(text), data, HASH_SIZE));
}

int record__keep_since(struct generation *g, const struct generation *from)
{
	return json_object_set(g->record, "since", json_object_get(from->record, "since")) ? -ENOMEM : 0;
}

int64_t record__own_namespace(void)
{
	struct stat st;

	return stat("/proc/self/ns/net", &st) ? 0 : (int64_t)st.st_ino;
}

json_t *record__make(const struct verified_object *object)
{
	json_t *record = json_object(), *keys = json_array();
	char since[JSON_TIME_SIZE];
	int bad = 0;

	json__format_time((int64_t)time(NULL), since);
	for (size_t i = 0; i < object->key_id_count; i++)
		bad |= json_array_append_new(keys, hex_string(object->key_ids[i]));
	bad |= json_object_set_new(record, "v", json_integer(RECORD_VERSION));
	bad |= json_object_set_new(record, "object", json_string(object->statement->name));
	/* A name of a file is bytes of anybody; JSON is UTF-8. */
	if (json_object_set_new(record, "file", json_string(object->name)))
		bad |= json_object_set_new(record, "file", json_string("?"));
	bad |= json_object_set_new(record, "project", json_string(object->statement->project));
	bad |= json_object_set_new(record, "version", json_integer(object->statement->version));
	bad |= json_object_set_new(record, "digest", hex_string(object->digest));
	bad |= json_object_set_new(record, "policy", hex_string(object->policy));
	bad |= json_object_set_new(record, "keyIds", keys);
	bad |= json_object_set_new(record, "variant", json_string(""));
	bad |= json_object_set_new(record, "since", json_string(since));
	bad |= json_object_set_new(record, "namespace", json_integer(record__own_namespace()));
	bad |= json_object_set_new(record, "links", json_object());
	bad |= json_object_set_new(record, "programs", json_object());
	bad |= json_object_set_new(record, "maps", json_object());
	bad |= json_object_set_new(record, "mapIds", json_object());
	bad |= json_object_set_new(record, "access", json_object());
	bad |= json_object_set_new(record, "generation", json_integer(1));
	if (!bad)
		return record;
	json_decref(record);
	return NULL;
}

const char *record__text(const struct generation *g, const char *member)
{
	const char *text = json_string_value(json_object_get(g->record, member));

	return text ? text : "";
}

int64_t record__number(const struct generation *g, const char *member)
{
	return json_integer_value(json_object_get(g->record, member));
}

typedef uint32_t kernel_id(int fd);

static int note_ids(struct generation *g, const char *member, const struct pin_list *pins, kernel_id *id)
{
	json_t *ids = json_object_get(g->record, member);

	for (size_t i = 0; i < pins->count; i++) {
		if (json_object_set_new(ids, pins->items[i].name, json_integer(id(pins->items[i].fd))))
			return -ENOMEM;
	}
	return 0;
}

int record__note_ids(struct generation *g)
{
	int err = note_ids(g, "programs", &g->programs, kernel__program_id);

	return err ? err : note_ids(g, "mapIds", &g->maps, kernel__map_id);
}

static int check_ids(const struct generation *g, const char *member, const struct pin_list *pins,
		     kernel_id *id, const char *shown, struct fault *fault)
{
	const json_t *ids = json_object_get(g->record, member);
	int64_t wanted;

	for (size_t i = 0; i < pins->count; i++) {
		wanted = json_integer_value(json_object_get(ids, pins->items[i].name));
		if (!wanted || wanted != id(pins->items[i].fd))
			return fault__set(fault, -EEXIST, "%.200s: %.64s is not the one that was pinned",
					  shown, pins->items[i].name);
	}
	if (json_object_size(ids) != pins->count)
		return fault__set(fault, -EEXIST, "%.200s: one is missing", shown);
	return 0;
}

int record__check_ids(const struct generation *g, const char *shown, struct fault *fault)
{
	char path[BPFFS_PATH_SIZE];
	int err;

	bpffs__show(path, shown, "programs");
	err = check_ids(g, "programs", &g->programs, kernel__program_id, path, fault);
	bpffs__show(path, shown, "maps");
	return err ? err : check_ids(g, "mapIds", &g->maps, kernel__map_id, path, fault);
}

bool record__is_same_code(const struct generation *a, const struct generation *b)
{
	return a->record && b->record && !strcmp(record__text(a, "digest"), record__text(b, "digest")) &&
	       !strcmp(record__text(a, "variant"), record__text(b, "variant"));
}

int record__set_variant(struct generation *g, const uint8_t hash[32])
{
	return json_object_set_new(g->record, "variant", hex_string(hash));
}

int record__note_setting(struct generation *g, const char *name, const char *value)
{
	json_t *settings = json_object_get(g->record, "settings");

	/* Records without settings are those that earlier releases read. */
	if (!settings) {
		settings = json_object();
		if (json_object_set_new(g->record, "settings", settings))
			return -ENOMEM;
	}
	return json_object_set_new(settings, name, json_string(value)) ? -ENOMEM : 0;
}

int record__note_map(struct generation *g, const char *name, const char *layout)
{
	return json_object_set_new(json_object_get(g->record, "maps"), name, json_string(layout));
}

const char *record__layout(const struct generation *g, const char *name)
{
	const char *text = json_string_value(json_object_get(json_object_get(g->record, "maps"), name));

	return text ? text : "";
}

int record__note_access(struct generation *g, const char *name, uint32_t flags)
{
	return flags ? json_object_set_new(json_object_get(g->record, "access"), name, json_integer(flags)) :
		       0;
}

uint32_t record__access(const struct generation *g, const char *name)
{
	return (uint32_t)json_integer_value(json_object_get(json_object_get(g->record, "access"), name));
}

static json_t *pack_point(const struct attach_point *p)
{
	const int64_t fields[] = { p->place, p->type,	  p->attach_type, p->ifindex,
				   p->flags, p->priority, p->family,	  p->hook };
	json_t *packed = json_array();

	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		if (json_array_append_new(packed, json_integer(fields[i])))
			break;
	}
	return packed;
}

int record__note_link(struct generation *g, const char *link, const char *program,
		      const struct attach_point *point)
{
	json_t *item = json_object();
	const char *shown = attach__shown(point);

	/* What a rollback takes to attach without the object: the fields, the target and the section. */
	if (json_object_set_new(item, "program", json_string(program)) ||
	    json_object_set_new(item, "target", json_string(shown)) ||
	    json_object_set_new(item, "section", json_string(point->section)) ||
	    json_object_set_new(item, "given", json_string(point->target ? point->target : "")) ||
	    json_object_set_new(item, "point", pack_point(point)) ||
	    json_object_set_new(json_object_get(g->record, "links"), link, item))
		return -ENOMEM;
	return 0;
}

void record__read_point(const struct json_t *item, struct attach_point *p)
{
	const json_t *packed = json_object_get(item, "point");
	const char *given = json_string_value(json_object_get(item, "given")), *shown;

	*p = (struct attach_point){
		.place = (enum attach_place)json_integer_value(json_array_get(packed, 0)),
		.type = (enum bpf_prog_type)json_integer_value(json_array_get(packed, 1)),
		.attach_type = (enum bpf_attach_type)json_integer_value(json_array_get(packed, 2)),
		.ifindex = (int)json_integer_value(json_array_get(packed, 3)),
		.flags = (uint32_t)json_integer_value(json_array_get(packed, 4)),
		.priority = (int)json_integer_value(json_array_get(packed, 5)),
		.family = (unsigned)json_integer_value(json_array_get(packed, 6)),
		.hook = (unsigned)json_integer_value(json_array_get(packed, 7)),
		.section = json_string_value(json_object_get(item, "section")),
		.target = given && *given ? given : NULL,
	};
	shown = json_string_value(json_object_get(item, "target"));
	if (shown && p->section && strcmp(shown, p->section) && strcmp(shown, given ? given : ""))
		snprintf(p->shown, sizeof(p->shown), "%s", shown);
}

bool record__has_link(const struct generation *g, const char *link)
{
	return json_object_get(json_object_get(g->record, "links"), link);
}

int record__note_link_id(struct generation *g, const char *link, uint32_t id)
{
	if (!g->attached)
		g->attached = json_object();
	return json_object_set_new(g->attached, link, json_integer(id)) ? -ENOMEM : 0;
}

uint32_t record__link_id(const struct generation *g, const char *link)
{
	return (uint32_t)json_integer_value(json_object_get(g->attached, link));
}

bool record__has_link_id(const struct generation *g, uint32_t id)
{
	const char *link;
	json_t *value;

	json_object_foreach(g->attached, link, value) {
		if (id && json_integer_value(value) == id)
			return true;
	}
	return false;
}

/* Somebody else's map with a record's text is none: what a loader makes is of this form, and frozen. */
static int check_map(int fd, const char *name, uint32_t *value_size, struct fault *fault)
{
	struct bpf_map_info info = { 0 };
	__u32 size = sizeof(info);

	if (bpf_map_get_info_by_fd(fd, &info, &size))
		return fault__set(fault, -errno, "%s", strerror(errno));
	if (info.type != BPF_MAP_TYPE_ARRAY || info.key_size != sizeof(__u32) || info.max_entries != 1 ||
	    info.value_size > RECORD_MAX_BYTES || info.map_flags || info.btf_id || strcmp(info.name, name))
		return fault__set(fault, -EEXIST, "not a record");
	if (!kernel__map_is_frozen(fd))
		return fault__set(fault, -EEXIST, "not a record: not frozen");
	*value_size = info.value_size;
	return 0;
}

static int check_members(const json_t *record, const char *name, struct fault *fault)
{
	struct fault inner = { 0 };

	if (strcmp(name, RECORD_NAME))
		return 0;
	if (json_integer_value(json_object_get(record, "v")) < RECORD_VERSION)
		return fault__set(fault, -ESTALE,
				  "of an earlier release of the loader: ebpf-pins detach, then start again");
	if (json__check(record, record_members, sizeof(record_members) / sizeof(record_members[0]), "record",
			&inner))
		return fault__set(fault, -EEXIST, "not a record: %.200s", inner.text);
	return 0;
}

int record__read(int fd, const char *name, json_t **record, struct fault *fault)
{
	struct fault inner = { 0 };
	uint32_t value_size = 0;
	__u32 zero = 0;
	uint8_t *data;
	int err = check_map(fd, name, &value_size, fault);

	if (err)
		return err;
	data = malloc(value_size);
	if (!data)
		return fault__set(fault, -ENOMEM, "out of memory");
	err = bpf_map_lookup_elem(fd, &zero, data) ? -errno : 0;
	if (err)
		fault__set(fault, err, "%s", strerror(-err));
	else if (json__parse(record, data, strnlen((char *)data, value_size), &inner))
		err = fault__set(fault, -EEXIST, "not a record: %.200s", inner.text);
	else
		err = check_members(*record, name, fault);
	free(data);
	return err;
}

/* Zeroes of the map's end are the end of the text. */
int record__pin(const json_t *record, int directory, const char *name)
{
	char *text = json_dumps(record, JSON_SORT_KEYS | JSON_COMPACT);
	__u32 zero = 0, size = text ? (__u32)strlen(text) + 1 : 0;
	int fd, err = !text ? -ENOMEM : size > RECORD_MAX_BYTES ? -EFBIG : 0;

	if (err)
		goto cleanup;
	fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, name, sizeof(zero), size, 1, NULL);
	if (fd < 0) {
		err = -errno;
		goto cleanup;
	}
	if (bpf_map_update_elem(fd, &zero, text, BPF_ANY) || bpf_map_freeze(fd))
		err = -errno;
	else
		err = bpffs__pin(directory, name, fd);
	close(fd);
cleanup:
	free(text);
	return err;
}
