// SPDX-License-Identifier: Apache-2.0
/*
 * What verify-and-load is measured against: the same libbpf, linked with the same flags, that loads one
 * object without looking at its signature and becomes the workload. It reads the file as the loader
 * does, so that only verification, the decision lines and dropping privileges differ. With "lo" it
 * attaches the first program, which is XDP, to the loopback interface.
 * Usage: plain_load OBJECT lo|none WORKLOAD [ARGUMENT]...
 */
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOOPBACK 1 /* LOOPBACK_IFINDEX: in every network namespace it is the first */

static int say_nothing(enum libbpf_print_level level, const char *format, va_list args)
{
	(void)level;
	(void)format;
	(void)args;
	return 0;
}

static int attach(const struct bpf_object *object)
{
	struct bpf_link *link = bpf_program__attach_xdp(bpf_object__next_program(object, NULL), LOOPBACK);

	/* It lasts as long as somebody has its descriptor: the workload. */
	return link ? fcntl(bpf_link__fd(link), F_SETFD, 0) : -1;
}

int main(int argc, char **argv)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts, .object_name = "object");
	struct bpf_object *object;
	struct stat st;
	void *data;
	int fd;

	if (argc < 4)
		return 2;
	libbpf_set_print(say_nothing);
	fd = open(argv[1], O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st))
		return 1;
	data = malloc((size_t)st.st_size);
	if (!data || read(fd, data, (size_t)st.st_size) != st.st_size)
		return 1;
	object = bpf_object__open_mem(data, (size_t)st.st_size, &opts);
	if (!object || bpf_object__load(object))
		return 1;
	if (!strcmp(argv[2], "lo") && attach(object))
		return 1;
	execv(argv[3], argv + 3);
	return 1;
}
