// SPDX-License-Identifier: Apache-2.0
/*
 * Loads one object without verification and executes the workload, for comparison with verify-and-load. It is
 * linked with the same libbpf and flags, and reads the file like the loader. Only verification, the decision
 * lines and dropping privileges differ. With "lo", it attaches the first program, which is XDP, to the
 * loopback interface.
 * Usage: plain_load OBJECT lo|none WORKLOAD [ARGUMENT]...
 */
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOOPBACK 1 /* LOOPBACK_IFINDEX of Linux, in each network namespace */

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

	/* The workload inherits the descriptor, which keeps the link. */
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
