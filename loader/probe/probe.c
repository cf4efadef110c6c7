// SPDX-License-Identifier: Apache-2.0
/*
 * bpf-probe [--capabilities MASK] [--declare SECTION NAME]... [--map-entries MAP N]... OBJECT...: let this
 * kernel verify each program of the objects, attach none. --declare and --map-entries are for the next
 * object: its programs of SECTION are loaded as those of section NAME, and its map MAP has N entries.
 *
 * bpf-probe --open OBJECT...: let libbpf open the objects, without a word to the kernel. It needs no
 * privilege.
 *
 * bpf-probe --link OUTPUT OBJECT...: link the objects into one (link.h), also without the kernel.
 *
 * `buildtool check` runs bpf-probe on the host, or as the only program of a virtual machine. `buildtool
 * compile` links with it, so that both engines link with the loader's libbpf. No image holds it. For `check`
 * it writes one JSON object per line: the kernel, then each program with the kernel's answer, then the
 * end, so that a reader can tell truncated output. It loads each program alone, so that a refused program
 * hides no other. Programs of freplace are left out.
 *
 * With a mask, the programs are loaded with these capabilities and no other, as in an image with that label.
 * A program that fails is loaded with more capabilities, to name the missing ones.
 *
 * bpf-probe verifies no signature, because developers check unsigned objects.
 */
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/capability.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "probe/link.h"

/* Before Linux 6.4 the kernel cuts off the end of a log that does not fit, where the objection stands. */
#define LOG_SIZE      (16U << 20)
#define TAIL_SIZE     8192
#define LOG_SHARE     16384 /* of each program that is loaded with others: statistics only */
#define WARNINGS_SIZE 2048
#define LOG_TRACE     1 /* BPF_LOG_LEVEL1: each instruction, with its C source line */
#define LOG_STATS     4 /* BPF_LOG_STATS: statistics, and only the objection */

#define BIT(capability) (UINT64_C(1) << (capability))

/* What loading can need beyond BPF: few before many, and last what stands in for most others. */
static const uint64_t extras[] = {
	BIT(CAP_PERFMON),
	BIT(CAP_NET_ADMIN),
	BIT(CAP_SYSLOG),
	BIT(CAP_PERFMON) | BIT(CAP_NET_ADMIN),
	BIT(CAP_PERFMON) | BIT(CAP_SYSLOG),
	BIT(CAP_SYS_ADMIN),
	BIT(CAP_PERFMON) | BIT(CAP_NET_ADMIN) | BIT(CAP_SYSLOG) | BIT(CAP_SYS_ADMIN),
};

/* --declare of the next object: pairs of a section and the section by which its programs are loaded. */
static char **declared;
static int declared_count;

#define SIZES_MAX 256

/* --map-entries of the next object: pairs of a map and its number of entries. */
static char **sizes;
static int size_count;
static int inner[SIZES_MAX], inner_count; /* descriptors of maps that maps of maps get their sizes from */

static uint64_t given = UINT64_MAX, permitted = UINT64_MAX;
static char kernel_log[LOG_SIZE];
static char warnings[WARNINGS_SIZE];

__attribute__((format(printf, 2, 0))) static int keep_warning(enum libbpf_print_level level,
							      const char *format, va_list args)
{
	size_t used = strlen(warnings);

	if (level == LIBBPF_WARN)
		vsnprintf(warnings + used, sizeof(warnings) - used, format, args);
	return 0;
}

/* Write printable ASCII and escapes only, which are harmless to a terminal and valid JSON. */
static void put_string(const char *name, const char *text)
{
	printf(",\"%s\":\"", name);
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c < 0x20 || c > 0x7e)
			printf("\\u%04x", c);
		else
			printf(c == '"' || c == '\\' ? "\\%c" : "%c", c);
	}
	putchar('"');
}

static void read_permitted(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	if (!syscall(SYS_capget, &header, data))
		permitted = data[0].permitted | (uint64_t)data[1].permitted << 32;
}

/* Of those that this process may have; the permitted ones stay, for a second try. */
static int make_effective(uint64_t wanted)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	uint64_t effective = wanted & permitted;
	struct __user_cap_data_struct data[2] = {
		{ .effective = (uint32_t)effective, .permitted = (uint32_t)permitted },
		{ .effective = (uint32_t)(effective >> 32), .permitted = (uint32_t)(permitted >> 32) },
	};

	return syscall(SYS_capset, &header, data) ? -errno : 0;
}

static int parse_given(const char *text)
{
	char *end;

	given = strtoull(text, &end, 16);
	if (!*text || *end)
		return -EINVAL;
	/* Before Linux 5.8 one capability stood for these. */
	if (prctl(PR_CAPBSET_READ, CAP_BPF, 0, 0, 0) < 0 && given & (BIT(CAP_BPF) | BIT(CAP_PERFMON)))
		given |= BIT(CAP_SYS_ADMIN);
	return make_effective(given);
}

static const char *log_tail(void)
{
	size_t size = strnlen(kernel_log, sizeof(kernel_log) - 1);
	const char *line;

	if (size <= TAIL_SIZE)
		return kernel_log;
	line = strchr(kernel_log + size - TAIL_SIZE, '\n');
	return line ? line + 1 : kernel_log + size - TAIL_SIZE;
}

static int64_t clock_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

/* A program of freplace loads for a program of another object only, which the start of an image names. */
static bool can_try(const struct bpf_program *program)
{
	return bpf_program__type(program) != BPF_PROG_TYPE_EXT ||
	       !strchr(bpf_program__section_name(program), '/');
}

static struct bpf_program *find_program(struct bpf_object *object, size_t index)
{
	struct bpf_program *program;

	bpf_object__for_each_program(program, object) {
		if (!index--)
			return program;
	}
	return NULL;
}

/*
 * Return whether only a prog array failed: libbpf fills it at the end, and its other programs are not loaded
 * here.
 */
static bool only_slots_failed(void)
{
	return kernel_log[0] && strstr(warnings, "failed to initialize slot");
}

/* The map inside a map of maps: libbpf takes its size from a map that is made before. */
static int set_inner(struct bpf_object *object, char *name, uint32_t entries)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts);
	const struct bpf_map *of;
	struct bpf_map *outer;
	char *suffix = strrchr(name, '.');
	int fd;

	if (!suffix || strcmp(suffix, ".inner") || inner_count == SIZES_MAX)
		return -ENOENT;
	*suffix = 0;
	outer = bpf_object__find_map_by_name(object, name);
	*suffix = '.';
	of = outer ? bpf_map__inner_map(outer) : NULL;
	if (!of)
		return -ENOENT;
	opts.map_flags = bpf_map__map_flags(of);
	opts.map_extra = bpf_map__map_extra(of);
	fd = bpf_map_create(bpf_map__type(of), NULL, bpf_map__key_size(of), bpf_map__value_size(of), entries,
			    &opts);
	if (fd < 0)
		return fd;
	inner[inner_count++] = fd;
	return bpf_map__set_inner_map_fd(outer, fd);
}

static int set_sizes(struct bpf_object *object)
{
	int err = 0;

	for (int i = 0; !err && i < size_count; i++) {
		char *name = sizes[3 * i + 1];
		uint32_t entries = (uint32_t)strtoul(sizes[3 * i + 2], NULL, 10);
		struct bpf_map *map = bpf_object__find_map_by_name(object, name);

		err = map ? bpf_map__set_max_entries(map, entries) : set_inner(object, name, entries);
	}
	return err;
}

static void close_inner(void)
{
	while (inner_count)
		close(inner[--inner_count]);
}

/*
 * Return whether a map was not created, for another reason than a missing capability: BPF_MAP_CREATE answers
 * EPERM then. More capabilities change nothing.
 */
static bool is_bad_map(int err)
{
	return !kernel_log[0] && err != -EPERM && err != -EACCES && strstr(warnings, "failed to create");
}

/* As the loader does by the statement (load/unit.c). Returns 0 or a negative errno. */
static int declare_programs(struct bpf_object *object)
{
	struct bpf_program *program;

	bpf_object__for_each_program(program, object) {
		const char *section = bpf_program__section_name(program);
		enum bpf_attach_type attach_type;
		enum bpf_prog_type type;
		int err;

		section += *section == '?';
		for (int i = 0; i < declared_count; i++) {
			const char *name = declared[3 * i + 2];

			if (strcmp(section, declared[3 * i + 1]))
				continue;
			err = libbpf_prog_type_by_name(name, &type, &attach_type);
			if (err)
				return err;
			bpf_program__set_type(program, type);
			bpf_program__set_expected_attach_type(program, attach_type);
			if (!strncmp(name, "xdp.frags", strlen("xdp.frags")))
				bpf_program__set_flags(program,
						       bpf_program__flags(program) | BPF_F_XDP_HAS_FRAGS);
		}
	}
	return 0;
}

/* Load @object as the loader does, without pins. Returns 0 or a negative errno. */
static int load_prepared(struct bpf_object *object)
{
	struct bpf_map *map;
	int err;

	bpf_object__for_each_map(map, object)
		bpf_map__set_pin_path(map, NULL);
	err = declare_programs(object);
	err = err ? err : set_sizes(object);
	err = err ? err : bpf_object__load(object);
	close_inner();
	return err;
}

/* Load only program number @index of the object. Returns 0 or a negative errno. */
static int load_alone(const char *path, size_t index, unsigned int log_level, int64_t *duration_us)
{
	struct bpf_object *object = bpf_object__open_file(path, NULL);
	struct bpf_program *program, *wanted;
	int64_t started;
	int err;

	if (!object)
		return -errno;
	wanted = find_program(object, index);
	bpf_object__for_each_program(program, object)
		bpf_program__set_autoload(program, program == wanted);
	kernel_log[0] = warnings[0] = 0;
	bpf_program__set_log_level(wanted, log_level);
	bpf_program__set_log_buf(wanted, kernel_log, sizeof(kernel_log));
	started = clock_us();
	err = load_prepared(object);
	*duration_us = clock_us() - started;
	if (err && only_slots_failed())
		err = 0;
	bpf_object__close(object);
	return err;
}

/* Which capabilities were missing: with them the program loads. 0: others, or something else. */
static uint64_t find_missing(const char *path, size_t index)
{
	int64_t duration_us;

	for (size_t i = 0; i < sizeof(extras) / sizeof(extras[0]); i++) {
		uint64_t more = extras[i] & permitted & ~given;
		int err;

		if (!more || make_effective(given | more))
			continue;
		err = load_alone(path, index, LOG_STATS, &duration_us);
		make_effective(given);
		if (!err)
			return more;
	}
	return 0;
}

static void put_program(const char *path, const struct bpf_program *program)
{
	printf("{\"event\":\"program\"");
	put_string("object", path);
	put_string("program", bpf_program__name(program));
	put_string("section", bpf_program__section_name(program));
}

/*
 * Load all programs of the object at once and report them, if the kernel accepts them all. Each load reads
 * the kernel's BTF, which takes longer than most verifications. Otherwise report nothing and return false.
 */
static bool probe_together(const char *path, size_t count)
{
	struct bpf_object *object = bpf_object__open_file(path, NULL);
	char *logs = calloc(count, LOG_SHARE);
	struct bpf_program *program;
	bool accepted = false;
	int64_t duration_us;
	size_t index = 0;

	if (!object || !logs)
		goto cleanup;
	bpf_object__for_each_program(program, object) {
		bpf_program__set_autoload(program, can_try(program));
		bpf_program__set_log_level(program, LOG_STATS);
		bpf_program__set_log_buf(program, logs + LOG_SHARE * index++, LOG_SHARE);
	}
	duration_us = clock_us();
	accepted = !load_prepared(object);
	duration_us = (clock_us() - duration_us) / (int64_t)count;
	index = 0;
	bpf_object__for_each_program(program, object) {
		if (!accepted)
			break;
		index++;
		if (!can_try(program))
			continue;
		snprintf(kernel_log, sizeof(kernel_log), "%s", logs + LOG_SHARE * (index - 1));
		put_program(path, program);
		printf(",\"errno\":0,\"durationUs\":%lld", (long long)duration_us);
		put_string("error", "");
		put_string("log", log_tail());
		put_string("warnings", "");
		puts("}");
	}
	fflush(stdout);
cleanup:
	bpf_object__close(object);
	free(logs);
	return accepted;
}

static void probe_program(const char *path, struct bpf_program *program, size_t index)
{
	int64_t duration_us = 0;
	int err, again;

	put_program(path, program);
	err = load_alone(path, index, LOG_STATS, &duration_us);
	if (err && kernel_log[0]) {
		/* The trace has the source line. If the trace does not fit, keep the objection alone. */
		again = load_alone(path, index, LOG_STATS | LOG_TRACE, &duration_us);
		if (again == -ENOSPC)
			load_alone(path, index, LOG_STATS, &duration_us);
	}
	printf(",\"errno\":%d,\"durationUs\":%lld", -err, (long long)duration_us);
	put_string("error", err ? strerror(-err) : "");
	put_string("log", log_tail());
	put_string("warnings", err ? warnings : "");
	if (err && given != UINT64_MAX && !is_bad_map(err))
		printf(",\"missing\":\"%llx\"", (unsigned long long)find_missing(path, index));
	puts("}");
	fflush(stdout);
}

static struct bpf_object *open_object(const char *path)
{
	struct bpf_object *object;
	int err;

	warnings[0] = 0;
	object = bpf_object__open_file(path, NULL);
	err = errno;
	if (object)
		return object;
	printf("{\"event\":\"object\",\"errno\":%d", err);
	put_string("object", path);
	put_string("error", strerror(err));
	put_string("warnings", warnings);
	puts("}");
	return NULL;
}

static void probe_object(const char *path)
{
	struct bpf_object *object = open_object(path);
	struct bpf_program *program;
	size_t index = 0, count = 0;

	if (!object)
		return;
	bpf_object__for_each_program(program, object)
		count++;
	if (count > 1 && probe_together(path, count)) {
		bpf_object__close(object);
		return;
	}
	bpf_object__for_each_program(program, object) {
		if (can_try(program))
			probe_program(path, program, index);
		index++;
	}
	bpf_object__close(object);
}

/* The object's own type of a struct_ops map: the kernel's, with or without a flavour. */
static const char *find_struct(const struct bpf_object *object, const struct bpf_map *map)
{
	const struct btf *btf = bpf_object__btf(object);
	const struct btf_type *type = btf ? btf__type_by_id(btf, bpf_map__btf_value_type_id(map)) : NULL;
	const char *name = type ? btf__name_by_offset(btf, type->name_off) : NULL;

	return name && bpf_map__type(map) == BPF_MAP_TYPE_STRUCT_OPS ? name : "";
}

/* What libbpf makes of the object: its programs and maps. */
static void describe_object(const char *path)
{
	struct bpf_object *object = open_object(path);
	struct bpf_program *program;
	const char *type;
	struct bpf_map *map;

	if (!object)
		return;
	bpf_object__for_each_program(program, object) {
		type = libbpf_bpf_prog_type_str(bpf_program__type(program));
		printf("{\"event\":\"opened\"");
		put_string("object", path);
		put_string("program", bpf_program__name(program));
		put_string("section", bpf_program__section_name(program));
		put_string("type", type ? type : "unspec");
		puts("}");
	}
	bpf_object__for_each_map(map, object) {
		type = libbpf_bpf_map_type_str(bpf_map__type(map));
		printf("{\"event\":\"map\"");
		put_string("object", path);
		put_string("map", bpf_map__name(map));
		put_string("type", type ? type : "unspec");
		put_string("struct", find_struct(object, map));
		put_string("pin", bpf_map__pin_path(map) ? bpf_map__pin_path(map) : "");
		puts("}");
	}
	bpf_object__close(object);
}

int main(int argc, char **argv)
{
	bool only_open = argc > 1 && !strcmp(argv[1], "--open");
	bool links = argc > 1 && !strcmp(argv[1], "--link");
	const struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };
	struct utsname name;
	int first = 1;

	/* Before Linux 5.11 maps counted against it; that is no matter of the programs' capabilities. */
	setrlimit(RLIMIT_MEMLOCK, &unlimited);
	read_permitted();
	if (links) {
		first = 3;
	} else if (only_open) {
		first = 2;
	} else if (argc > 2 && !strcmp(argv[1], "--capabilities")) {
		if (parse_given(argv[2])) {
			fputs("bpf-probe: cannot have these capabilities\n", stderr);
			return 1;
		}
		first = 3;
	}
	if (argc <= first) {
		fputs("usage: bpf-probe [--open | --link OUTPUT | --capabilities MASK] "
		      "[--declare SECTION NAME]... [--map-entries MAP N]... OBJECT...\n",
		      stderr);
		return 2;
	}
	if (links)
		return link__objects(argv[2], argv + 3, argc - 3) ? 1 : 0;
	libbpf_set_print(keep_warning);
	uname(&name);
	printf("{\"event\":\"kernel\"");
	put_string("release", name.release);
	put_string("machine", name.machine);
	put_string("libbpf", libbpf_version_string());
	puts("}");
	for (int i = first; i < argc; i++) {
		declared = argv + i;
		for (declared_count = 0; i + 3 < argc && !strcmp(argv[i], "--declare"); i += 3)
			declared_count++;
		sizes = argv + i;
		for (size_count = 0; i + 3 < argc && !strcmp(argv[i], "--map-entries"); i += 3)
			size_count++;
		(only_open ? describe_object : probe_object)(argv[i]);
	}
	puts("{\"event\":\"end\"}");
	return fflush(stdout) || ferror(stdout) ? 1 : 0;
}
