// SPDX-License-Identifier: Apache-2.0
#include "pin/record.h"

#include "attach/attach.h"
#include "base/fault.h"
#include "base/json.h"
#include "base/log.h"
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
#define HASH_SIZE	 32

static const struct json_member record_members[] = {
	{ "v", JSON_KIND_INTEGER },	     { "object", JSON_KIND_NAME },
	{ "file", JSON_KIND_STRING },	     { "project", JSON_KIND_PROJECT },
	{ "version", JSON_KIND_INTEGER },    { "digest", JSON_KIND_SHA256 },
	{ "policy", JSON_KIND_SHA256 },	     { "keyIds", JSON_KIND_STRINGS },
	{ "variant", JSON_KIND_STRING },     { "since", JSON_KIND_TIME },
	{ "generation", JSON_KIND_INTEGER }, { "namespace", JSON_KIND_INTEGER },
	{ "links", JSON_KIND_OBJECT },	     { "programs", JSON_KIND_OBJECT },
	{ "maps", JSON_KIND_OBJECT },
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
	char since[LOG_DATE_SIZE];
	int bad = 0;

	log__format_date((int64_t)time(NULL), since);
	strcat(since, "Z");
	for (size_t i = 0; i < object->key_id_count; i++)
		bad |= json_array_append_new(keys, hex_string(object->key_ids[i]));
	bad |= json_object_set_new(record, "v", json_integer(1));
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

int record__note_programs(struct generation *g)
{
	json_t *programs = json_object_get(g->record, "programs");

	for (size_t i = 0; i < g->programs.count; i++) {
		if (json_object_set_new(programs, g->programs.items[i].name,
					json_integer(kernel__program_id(g->programs.items[i].fd))))
			return -ENOMEM;
	}
	return 0;
}

int record__check_programs(const struct generation *g, const char *path, struct fault *fault)
{
	const json_t *programs = json_object_get(g->record, "programs");
	int64_t id;

	for (size_t i = 0; i < g->programs.count; i++) {
		id = json_integer_value(json_object_get(programs, g->programs.items[i].name));
		if (!id || id != kernel__program_id(g->programs.items[i].fd))
			return fault__set(fault, -EEXIST,
					  "%.240s/programs: %.64s is not the one that was pinned", path,
					  g->programs.items[i].name);
	}
	if (json_object_size(programs) != g->programs.count)
		return fault__set(fault, -ENOENT, "%.240s/programs: one is missing", path);
	return 0;
}

int record__set_variant(struct generation *g, const uint8_t hash[32])
{
	return json_object_set_new(g->record, "variant", hex_string(hash));
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

int record__read(int fd, json_t **record, struct fault *fault)
{
	struct bpf_map_info info = { 0 };
	__u32 size = sizeof(info), zero = 0;
	struct fault inner = { 0 };
	uint8_t *data;
	int err;

	if (bpf_map_get_info_by_fd(fd, &info, &size))
		return fault__set(fault, -errno, "%s", strerror(errno));
	if (info.type != BPF_MAP_TYPE_ARRAY || info.max_entries != 1 || info.value_size > RECORD_MAX_BYTES)
		return fault__set(fault, -EEXIST, "not a record");
	data = malloc(info.value_size);
	if (!data)
		return fault__set(fault, -ENOMEM, "out of memory");
	err = bpf_map_lookup_elem(fd, &zero, data) ? -errno : 0;
	if (err) {
		fault__set(fault, err, "%s", strerror(-err));
	} else {
		err = json__parse(record, data, strnlen((char *)data, info.value_size), &inner);
		if (!err)
			err = json__check(*record, record_members,
					  sizeof(record_members) / sizeof(record_members[0]), "record",
					  &inner);
		if (err)
			fault__set(fault, -EEXIST, "not a record: %.200s", inner.text);
	}
	free(data);
	return err;
}

/* Zeroes of the map's end are the end of the text. */
int record__pin(const json_t *record, const char *path)
{
	char at[BPFFS_PATH_SIZE], *text = json_dumps(record, JSON_SORT_KEYS | JSON_COMPACT);
	__u32 zero = 0, size = text ? (__u32)strlen(text) + 1 : 0;
	int fd, err = !text ? -ENOMEM : size > RECORD_MAX_BYTES ? -EFBIG : 0;

	if (!err)
		err = bpffs__path(at, path, RECORD_NAME);
	if (err)
		goto cleanup;
	fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, RECORD_NAME, sizeof(zero), size, 1, NULL);
	if (fd < 0) {
		err = -errno;
		goto cleanup;
	}
	if (bpf_map_update_elem(fd, &zero, text, BPF_ANY) || bpf_map_freeze(fd) || bpf_obj_pin(fd, at))
		err = -errno;
	close(fd);
cleanup:
	free(text);
	return err;
}
