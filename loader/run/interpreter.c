// SPDX-License-Identifier: Apache-2.0
#include "run/interpreter.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The kernel reads as much of a script (BINPRM_BUF_SIZE). A longer name of a dynamic linker is left to
 * execve(2). */
#define NAME_SIZE 256

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define OWN_ORDER ELFDATA2LSB
#else
#define OWN_ORDER ELFDATA2MSB
#endif

/* Cut @name after the interpreter: its argument and the lines of the script follow. */
static bool read_script(char *name)
{
	size_t start = 2 + strspn(name + 2, " \t");
	size_t size = strcspn(name + start, " \t\r\n");

	memmove(name, name + start, size);
	name[size] = '\0';
	return size > 0;
}

static bool read_elf(int fd, char *name)
{
	ElfW(Ehdr) header;
	ElfW(Phdr) segment;

	if (pread(fd, &header, sizeof(header), 0) != sizeof(header) ||
	    header.e_ident[EI_CLASS] != (sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32) ||
	    header.e_ident[EI_DATA] != OWN_ORDER || header.e_phentsize != sizeof(segment))
		return false;
	for (off_t i = 0; i < header.e_phnum; i++) {
		off_t at = (off_t)header.e_phoff + i * (off_t)sizeof(segment);

		if (pread(fd, &segment, sizeof(segment), at) != sizeof(segment))
			return false;
		if (segment.p_type != PT_INTERP)
			continue;
		if (!segment.p_filesz || segment.p_filesz > NAME_SIZE)
			return false;
		/* The name includes its NUL; execve(2) refuses a file without. */
		return pread(fd, name, segment.p_filesz, (off_t)segment.p_offset) ==
			       (ssize_t)segment.p_filesz &&
		       !name[segment.p_filesz - 1];
	}
	return false;
}

static bool read_name(const char *path, char name[NAME_SIZE + 1])
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	bool found = false;
	ssize_t n;

	if (fd < 0)
		return false;
	n = pread(fd, name, NAME_SIZE, 0);
	name[n > 0 ? n : 0] = '\0';
	if (n > SELFMAG && !memcmp(name, ELFMAG, SELFMAG))
		found = read_elf(fd, name);
	else if (n > 2 && !strncmp(name, "#!", 2))
		found = read_script(name);
	close(fd);
	return found;
}

int interpreter__check(const char *path, struct fault *fault)
{
	char name[NAME_SIZE + 1];
	struct stat st;

	if (!read_name(path, name) || !stat(name, &st) || (errno != ENOENT && errno != ENOTDIR))
		return 0;
	return fault__set(fault, -ENOENT,
			  "workload %.150s: its interpreter %.150s does not exist; link the program "
			  "statically, or let images.base name an image that has the interpreter",
			  path, name);
}
