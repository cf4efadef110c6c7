// SPDX-License-Identifier: Apache-2.0
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define FILES_MAX     16384
#define CLOSE_ON_EXEC 4 /* CLOSE_RANGE_CLOEXEC */
#define SEALS	      (F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL)

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U /* Linux 6.3 */
#endif

/* On arm only by flags of the compiler (flags.txt): times after 2038, and inodes of large file systems. */
_Static_assert(sizeof(time_t) == 8 && sizeof(off_t) == 8, "times and offsets have 64 bits");

static int read_all(int fd, uint8_t *data, size_t room, size_t *size)
{
	size_t done = 0;

	while (done < room) {
		ssize_t n = read(fd, data + done, room - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	*size = done;
	return 0;
}

static int check_regular(const struct stat *st, size_t limit)
{
	if (!S_ISREG(st->st_mode))
		return -ENODEV;
	if (st->st_size < 0 || (uint64_t)st->st_size > limit)
		return -EFBIG;
	return 0;
}

int file__read(int dir, const char *name, size_t limit, uint8_t **data, size_t *size)
{
	uint8_t *buffer = NULL;
	struct stat st;
	int fd = -1, err;

	/* Check the type before opening: opening a device can act, and opening a FIFO can block. */
	if (fstatat(dir, name, &st, 0))
		return -errno;
	err = check_regular(&st, limit);
	if (err)
		return err;
	fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st)) {
		err = -errno;
		goto cleanup;
	}
	err = check_regular(&st, limit);
	if (err)
		goto cleanup;

	/* Read one byte more than the size, to notice a file that grows during the read. */
	buffer = malloc((size_t)st.st_size + 1);
	if (!buffer) {
		err = -ENOMEM;
		goto cleanup;
	}
	err = read_all(fd, buffer, (size_t)st.st_size + 1, size);
	if (!err && *size > (size_t)st.st_size)
		err = -EAGAIN;
cleanup:
	if (err) {
		free(buffer);
		buffer = NULL;
	}
	*data = buffer;
	close(fd);
	return err;
}

int file__create(int dir, const char *name, mode_t mode)
{
	int fd;

	unlinkat(dir, name, 0);
	/* An existing FIFO would block, and a symbolic or hard link would lead to another user's file. */
	fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	return fd < 0 ? -errno : fd;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int list_entries(DIR *stream, struct file_list *list)
{
	struct dirent *entry;

	while (errno = 0, (entry = readdir(stream))) {
		if (entry->d_name[0] == '.')
			continue;
		if (list->count == FILE_LIST_MAX)
			return -E2BIG;
		list->names[list->count] = strdup(entry->d_name);
		if (!list->names[list->count])
			return -ENOMEM;
		list->count++;
	}
	return -errno;
}

int file__list(int dir, struct file_list *list)
{
	DIR *stream;
	int fd, err;

	*list = (struct file_list){ 0 };
	fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	stream = fdopendir(fd);
	if (!stream) {
		err = -errno;
		close(fd);
		return err;
	}
	list->names = calloc(FILE_LIST_MAX, sizeof(*list->names));
	err = list->names ? list_entries(stream, list) : -ENOMEM;
	closedir(stream);
	if (err)
		file__list_free(list);
	else
		qsort(list->names, list->count, sizeof(*list->names), compare_names);
	return err;
}

void file__list_free(struct file_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->names[i]);
	free(list->names);
	*list = (struct file_list){ 0 };
}

/* The first descriptor after those that sd_listen_fds(3) would find. */
static int end_of_passed(void)
{
	const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");

	if (!pid || !count || strtol(pid, NULL, 10) != getpid())
		return STDERR_FILENO + 1;
	return STDERR_FILENO + 1 + (int)(strtoul(count, NULL, 10) % FILES_MAX);
}

/* Before Linux 5.11 one by one. */
void file__keep_inherited(void)
{
	int first = end_of_passed();

	for (int fd = first; syscall(SYS_close_range, first, UINT32_MAX, CLOSE_ON_EXEC) && fd < FILES_MAX;
	     fd++)
		fcntl(fd, F_SETFD, FD_CLOEXEC);
}

void file__open_standard_streams(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
		if (fcntl(fd, F_GETFD) < 0)
			open("/dev/null", O_RDWR); /* gets the lowest free number, which is @fd */
	}
}

static int write_all(int fd, const uint8_t *data, size_t size)
{
	while (size) {
		ssize_t n = write(fd, data, size);

		if (n < 0 && errno != EINTR)
			return -errno;
		data += n > 0 ? n : 0;
		size -= n > 0 ? (size_t)n : 0;
	}
	return 0;
}

int file__make_sealed(const char *name, const uint8_t *data, size_t size)
{
	int fd = memfd_create(name, MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL), err;

	if (fd < 0 && errno == EINVAL)
		fd = memfd_create(name, MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	err = write_all(fd, data, size);
	if (!err && (lseek(fd, 0, SEEK_SET) || fcntl(fd, F_ADD_SEALS, SEALS)))
		err = -errno;
	if (!err)
		return fd;
	close(fd);
	return err;
}
