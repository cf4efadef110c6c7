// SPDX-License-Identifier: Apache-2.0
/*
 * What verify-and-load is measured against: the same libbpf, linked with the same flags, that loads one
 * object without looking at its signature and becomes the workload. It reads the file as the loader
 * does, so that only verification, the decision lines and dropping privileges differ.
 * Usage: plain_load OBJECT WORKLOAD [ARGUMENT]...
 */
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static int say_nothing(enum libbpf_print_level level, const char *format, va_list args)
{
	(void)level;
	(void)format;
	(void)args;
	return 0;
}

int main(int argc, char **argv)
{
	LIBBPF_OPTS(bpf_object_open_opts, opts, .object_name = "object");
	struct bpf_object *object;
	struct stat st;
	void *data;
	int fd;

	if (argc < 3)
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
	execv(argv[2], argv + 2);
	return 1;
}
