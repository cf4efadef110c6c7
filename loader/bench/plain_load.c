// SPDX-License-Identifier: Apache-2.0
/*
 * What `make bench` compares the loader with: read one object, load it with the same libbpf, exit.
 * No verification. Not part of any image.
 */
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static int quiet(enum libbpf_print_level level, const char *format, va_list args)
{
	(void)level;
	(void)format;
	(void)args;
	return 0;
}

int main(int argc, char **argv)
{
	struct bpf_object *object;
	struct stat st;
	void *data;
	int fd;

	if (argc != 2) {
		fprintf(stderr, "usage: plain_load OBJECT\n");
		return 2;
	}
	fd = open(argv[1], O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st))
		return 1;
	data = malloc((size_t)st.st_size);
	if (!data || read(fd, data, (size_t)st.st_size) != st.st_size)
		return 1;
	libbpf_set_print(quiet);
	object = bpf_object__open_mem(data, (size_t)st.st_size, NULL);
	if (!object || bpf_object__load(object))
		return 1;
	bpf_object__close(object);
	return 0;
}
