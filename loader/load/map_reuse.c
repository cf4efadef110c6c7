// SPDX-License-Identifier: Apache-2.0
#include "load/map_reuse.h"

#include "base/fault.h"
#include "base/sha256.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DEPTH_MAX 32
/* No real map has as many fields, but a hostile type that is used twice on each of 32 levels has more. */
#define STEPS_MAX 65536

struct walk {
	const struct btf *btf;
	unsigned steps;
	SHA256_CTX hash;
};

static void feed(struct walk *w, const void *data, size_t size)
{
	SHA256_Update(&w->hash, data, size);
}

static void feed_number(struct walk *w, uint32_t number)
{
	feed(w, &number, sizeof(number));
}

static void feed_name(struct walk *w, uint32_t offset)
{
	const char *name = btf__name_by_offset(w->btf, offset);

	feed(w, name ? name : "", name ? strlen(name) + 1 : 1);
}

static void feed_type(struct walk *w, uint32_t id, unsigned depth);

static void feed_members(struct walk *w, const struct btf_type *t, unsigned depth)
{
	const struct btf_member *m = btf_members(t);

	for (unsigned i = 0; i < btf_vlen(t); i++) {
		feed_name(w, m[i].name_off);
		feed_number(w, m[i].offset);
		feed_type(w, m[i].type, depth);
	}
}

/* Hash a section of variables, which is a map that the compiler made. */
static void feed_variables(struct walk *w, const struct btf_type *t, unsigned depth)
{
	const struct btf_var_secinfo *v = btf_var_secinfos(t);

	for (unsigned i = 0; i < btf_vlen(t); i++) {
		feed_number(w, v[i].offset);
		feed_number(w, v[i].size);
		feed_type(w, v[i].type, depth);
	}
}

static void feed_type(struct walk *w, uint32_t id, unsigned depth)
{
	const struct btf_type *t = btf__type_by_id(w->btf, id);

	/* Skip other names of the same bytes. STEPS_MAX ends a circle of such names. */
	while (w->steps++ < STEPS_MAX && t && (btf_is_mod(t) || btf_is_typedef(t) || btf_is_type_tag(t)))
		t = btf__type_by_id(w->btf, t->type);
	if (w->steps > STEPS_MAX)
		return;
	if (!t || depth == DEPTH_MAX) {
		feed_number(w, 0);
		return;
	}
	feed_number(w, btf_kind(t));
	if (btf_is_ptr(t) || btf_is_fwd(t) || btf_is_func_proto(t))
		return;
	if (btf_is_array(t)) {
		feed_number(w, btf_array(t)->nelems);
		feed_type(w, btf_array(t)->type, depth + 1);
		return;
	}
	feed_number(w, btf_is_datasec(t) ? 0 : t->size);
	if (btf_is_int(t))
		feed_number(w, *(const uint32_t *)(t + 1));
	else if (btf_is_composite(t))
		feed_members(w, t, depth + 1);
	else if (btf_is_datasec(t))
		feed_variables(w, t, depth + 1);
	else if (btf_is_var(t)) {
		feed_name(w, t->name_off);
		feed_type(w, t->type, depth + 1);
	}
}

/* libbpf names the map of .bss PREFIX.bss, and the map of .bss.name after its section. */
uint32_t map_reuse__section_type(const struct btf *btf, const struct bpf_map *map)
{
	const char *name = strrchr(bpf_map__name(map), '.');
	int32_t id;

	if (bpf_map__name(map)[0] == '.')
		name = bpf_map__name(map);
	id = name ? btf__find_by_name_kind(btf, name, BTF_KIND_DATASEC) : 0;
	return id > 0 ? (uint32_t)id : 0;
}

/* Hash the initial values: a new release with another initial value must start with that value. */
static void feed_contents(struct walk *w, const struct bpf_map *map)
{
	size_t size = 0;
	const void *data = bpf_map__is_internal(map) ? bpf_map__initial_value(map, &size) : NULL;

	if (data)
		feed(w, data, size);
}

void map_reuse__layout(const struct bpf_object *object, const struct bpf_map *map, const char *inner_size,
		       char layout[MAP_REUSE_LAYOUT_SIZE])
{
	struct walk w = { .btf = bpf_object__btf(object) };
	uint8_t digest[SHA256_SIZE];
	uint32_t key, value, size = 0;
	const void *data;

	layout[0] = 0;
	if (!w.btf)
		return;
	key = bpf_map__is_internal(map) ? 0 : bpf_map__btf_key_type_id(map);
	value = bpf_map__is_internal(map) ? map_reuse__section_type(w.btf, map) :
					    bpf_map__btf_value_type_id(map);
	if (!key && !value)
		return;
	SHA256_Init(&w.hash);
	feed_type(&w, key, 0);
	feed_type(&w, value, 0);
	/* What user space may do: the kernel keeps it with a descriptor, not with the map. */
	feed_number(&w, bpf_map__map_flags(map) & (BPF_F_RDONLY | BPF_F_WRONLY));
	feed_contents(&w, map);
	if (inner_size)
		feed(&w, inner_size, strlen(inner_size));
	if (w.steps > STEPS_MAX) {
		/* The walk stopped early: hash all of the BTF, so that any change is another layout. */
		data = btf__raw_data(w.btf, &size);
		feed(&w, data ? data : "", data ? size : 0);
	}
	SHA256_Final(digest, &w.hash);
	sodium_bin2hex(layout, MAP_REUSE_LAYOUT_SIZE, digest, sizeof(digest));
}

/*
 * Return whether the map belongs to the code and is therefore never reused: constants, tables of tail calls,
 * struct_ops, and arenas, which hold addresses.
 */
static bool belongs_to_code(const struct bpf_map *map)
{
	switch (bpf_map__type(map)) {
	case BPF_MAP_TYPE_PROG_ARRAY:
	case BPF_MAP_TYPE_STRUCT_OPS:
	case BPF_MAP_TYPE_ARENA:
		return true;
	default:
		return bpf_map__map_flags(map) & BPF_F_RDONLY_PROG || !bpf_map__autocreate(map);
	}
}

static int differs(struct fault *fault, const char *what, uint64_t was, uint64_t is)
{
	return fault__set(fault, -EINVAL, "begins empty: its %s was %llu, is %llu", what,
			  (unsigned long long)was, (unsigned long long)is);
}

static struct bpf_map_info describe(const struct bpf_map *map)
{
	return (struct bpf_map_info){
		.type = bpf_map__type(map),
		.key_size = bpf_map__key_size(map),
		.value_size = bpf_map__value_size(map),
		.max_entries = bpf_map__max_entries(map),
		.map_flags = bpf_map__map_flags(map),
		.map_extra = bpf_map__map_extra(map),
	};
}

/*
 * Replace the definition by what the kernel makes of it. The kernel may enlarge a map: htab_map_alloc()
 * rounds the entries of an LRU hash without a common list up to a multiple of the processors. Only this
 * kernel knows its rules, so make such a map. The map is not larger than the old one: otherwise two large
 * maps would need memory in addition to the old one.
 */
static void ask_kernel(const struct bpf_map *map, const struct bpf_map_info *was, struct bpf_map_info *is)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = is->map_flags, .map_extra = is->map_extra,
		    .numa_node = bpf_map__numa_node(map));
	struct bpf_map_info made = { 0 };
	__u32 size = sizeof(made);
	int fd;

	if (is->type != was->type || is->key_size > was->key_size || is->value_size > was->value_size ||
	    is->max_entries > was->max_entries)
		return;
	fd = bpf_map_create((enum bpf_map_type)is->type, NULL, is->key_size, is->value_size, is->max_entries,
			    &opts);
	if (fd < 0)
		return;
	if (!bpf_map_get_info_by_fd(fd, &made, &size))
		*is = made;
	close(fd);
}

static int compare(const struct bpf_map_info *was, const struct bpf_map_info *is, struct fault *fault)
{
	/* libbpf fills in the number of processors when it makes the map. */
	bool per_cpu = is->type == BPF_MAP_TYPE_PERF_EVENT_ARRAY && !is->max_entries;
	/*
	 * libbpf drops BPF_F_MMAPABLE on an old kernel, and the kernel adds BPF_F_RDONLY_PROG. A descriptor
	 * has BPF_F_RDONLY and BPF_F_WRONLY, not the map: the layout compares them.
	 */
	const uint32_t ignored = BPF_F_MMAPABLE | BPF_F_RDONLY_PROG | BPF_F_RDONLY | BPF_F_WRONLY;

	if (was->type != is->type)
		return differs(fault, "type", was->type, is->type);
	if (was->key_size != is->key_size)
		return differs(fault, "key size", was->key_size, is->key_size);
	if (was->value_size != is->value_size)
		return differs(fault, "value size", was->value_size, is->value_size);
	if (!per_cpu && was->max_entries != is->max_entries)
		return differs(fault, "number of entries", was->max_entries, is->max_entries);
	if ((was->map_flags ^ is->map_flags) & ~ignored)
		return differs(fault, "flags", was->map_flags, is->map_flags);
	if (was->map_extra != is->map_extra)
		return differs(fault, "extra", was->map_extra, is->map_extra);
	return 0;
}

/* Compare with the definition first: most maps are equal to it, and need no trial. */
static int compare_with(const struct bpf_map *map, const struct bpf_map_info *was, struct fault *fault)
{
	struct bpf_map_info is = describe(map);

	if (!compare(was, &is, fault))
		return 0;
	ask_kernel(map, was, &is);
	return compare(was, &is, fault);
}

int map_reuse__map(struct bpf_object *object, struct bpf_map *map, const char *inner_size, int fd,
		   const char *layout, struct fault *fault)
{
	char wanted[MAP_REUSE_LAYOUT_SIZE];
	struct bpf_map_info was = { 0 };
	__u32 size = sizeof(was);
	int err;

	if (belongs_to_code(map))
		return 0;
	if (bpf_map_get_info_by_fd(fd, &was, &size))
		return fault__set(fault, -errno, "%s", strerror(errno));
	err = compare_with(map, &was, fault);
	if (err)
		return err;
	map_reuse__layout(object, map, inner_size, wanted);
	if (strcmp(wanted, layout))
		return fault__set(
			fault, -EINVAL,
			"begins empty: the fields of its keys or values, or initial values, changed");
	err = bpf_map__reuse_fd(map, fd);
	return err ? fault__set(fault, err, "%s", strerror(-err)) : 1;
}
