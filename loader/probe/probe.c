// SPDX-License-Identifier: Apache-2.0
/*
 * bpf-probe OBJECT...: let this kernel verify each program of the objects, attach none.
 * bpf-probe --open OBJECT...: let libbpf open the objects, without a word to the kernel: no privilege is
 * needed.
 *
 * `buildtool check` runs bpf-probe on the host, or as the only program of a virtual machine. No image holds
 * it. It writes one JSON object per line: the kernel, then each program with the kernel's answer, then the
 * end, so that a reader can tell truncated output. It loads each program alone, so that a refused program
 * hides no other.
 *
 * bpf-probe verifies no signature, because developers check unsigned objects.
 */
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

/* Before Linux 6.4 the kernel cuts off the end of a log that does not fit, where the objection stands. */
#define LOG_SIZE      (16U << 20)
#define TAIL_SIZE     8192
#define WARNINGS_SIZE 2048
#define LOG_TRACE     1 /* BPF_LOG_LEVEL1: each instruction, with its C source line */
#define LOG_STATS     4 /* BPF_LOG_STATS: statistics, and only the objection */

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

/* Load only program number @index of the object. Returns 0 or a negative errno. */
static int load_alone(const char *path, size_t index, unsigned int log_level, int64_t *duration_us)
{
	struct bpf_object *object = bpf_object__open_file(path, NULL);
	struct bpf_program *program, *wanted;
	struct bpf_map *map;
	int64_t started;
	int err;

	if (!object)
		return -errno;
	wanted = find_program(object, index);
	bpf_object__for_each_program(program, object)
		bpf_program__set_autoload(program, program == wanted);
	bpf_object__for_each_map(map, object)
		bpf_map__set_pin_path(map, NULL);
	kernel_log[0] = warnings[0] = 0;
	bpf_program__set_log_level(wanted, log_level);
	bpf_program__set_log_buf(wanted, kernel_log, sizeof(kernel_log));
	started = clock_us();
	err = bpf_object__load(object);
	*duration_us = clock_us() - started;
	if (err && only_slots_failed())
		err = 0;
	bpf_object__close(object);
	return err;
}

static void probe_program(const char *path, struct bpf_program *program, size_t index)
{
	int64_t duration_us = 0;
	int err, again;

	printf("{\"event\":\"program\"");
	put_string("object", path);
	put_string("program", bpf_program__name(program));
	put_string("section", bpf_program__section_name(program));
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
	size_t index = 0;

	if (!object)
		return;
	bpf_object__for_each_program(program, object)
		probe_program(path, program, index++);
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
	struct utsname name;

	if (argc < 2 + only_open) {
		fputs("usage: bpf-probe [--open] OBJECT...\n", stderr);
		return 2;
	}
	libbpf_set_print(keep_warning);
	uname(&name);
	printf("{\"event\":\"kernel\"");
	put_string("release", name.release);
	put_string("machine", name.machine);
	put_string("libbpf", libbpf_version_string());
	puts("}");
	for (int i = 1 + only_open; i < argc; i++)
		(only_open ? describe_object : probe_object)(argv[i]);
	puts("{\"event\":\"end\"}");
	return fflush(stdout) || ferror(stdout) ? 1 : 0;
}
