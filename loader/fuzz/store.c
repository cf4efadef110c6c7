// SPDX-License-Identifier: Apache-2.0
/* A file in memory under a name of its own: the reader sees what it sees in an image. */
#include "store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define KEY_LINK "key.pub"

static char directory[] = "/tmp/buildtool-store-XXXXXX";
static char link_path[sizeof(directory) + sizeof(KEY_LINK)];
static char file_path[32];
static int file = -1;

static void remove_link(void)
{
	unlink(link_path);
	rmdir(directory);
}

/* The suffix of the name is what makes a file a key: the link has it, the file in memory has none. */
static void make_file(void)
{
	file = memfd_create("store", MFD_CLOEXEC);
	snprintf(file_path, sizeof(file_path), "/proc/self/fd/%d", file);
	if (file < 0 || !mkdtemp(directory))
		abort();
	snprintf(link_path, sizeof(link_path), "%s/%s", directory, KEY_LINK);
	if (symlink(file_path, link_path))
		abort();
	atexit(remove_link);
}

int store__read(struct trust *t, const uint8_t *data, size_t size, bool is_key, struct fault *fault)
{
	if (file < 0)
		make_file();
	if (ftruncate(file, 0) || pwrite(file, data, size, 0) != (ssize_t)size)
		abort();
	return truststore__read(t, is_key ? link_path : file_path, fault);
}
