// SPDX-License-Identifier: Apache-2.0
#include "run/kernel_btf.h"

#include "base/fault.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#define OF_THIS_KERNEL "/sys/kernel/btf/vmlinux"
#define LIMIT	       1024 /* files of a directory, with --verify-only */

/* Returns 1 if @found is the file of a directory for this kernel, 0 if the kernel needs none. */
static int find_release(const char *directory, char found[static PATH_MAX], struct fault *fault)
{
	struct utsname kernel;
	struct stat st;

	if (!access(OF_THIS_KERNEL, F_OK))
		return 0;
	uname(&kernel);
	if (strchr(kernel.release, '/') ||
	    snprintf(found, PATH_MAX, "%s/%s.btf.o", directory, kernel.release) >= PATH_MAX)
		return fault__set(fault, -ENAMETOOLONG, "--btf %.200s: %s", directory,
				  strerror(ENAMETOOLONG));
	/* A directory would be read as a set, whose object may be of another kernel. */
	if (stat(found, &st) || !S_ISREG(st.st_mode))
		return fault__set(
			fault, -ENOENT,
			"--btf %.200s: no file %.64s.btf.o in it, and this kernel has no types of its own",
			directory, kernel.release);
	return 1;
}

/* libbpf opens a path. That of the descriptor leads to the verified bytes, which nobody can change. */
static int seal(struct kernel_btf *btf, const char *path, struct fault *fault)
{
	const struct set_item *item = &btf->set.items[0];
	int fd = file__make_sealed(item->name, item->data, item->size);

	if (fd < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC))
		return fault__set(fault, fd < 0 ? fd : -errno, "--btf %.200s: %s", path,
				  strerror(fd < 0 ? -fd : errno));
	btf->fd = fd;
	snprintf(btf->path, sizeof(btf->path), "/proc/self/fd/%d", fd);
	return 0;
}

int kernel_btf__verify(struct kernel_btf *btf, const char *path, const struct verify_context *context,
		       const struct trust *image, const struct options *o, struct fault *fault)
{
	char found[PATH_MAX];
	struct stat st;
	int err;

	btf->set.is_types = true;
	if (!o->verify_only && !stat(path, &st) && S_ISDIR(st.st_mode)) {
		err = find_release(path, found, fault);
		if (err <= 0)
			return err;
		path = found;
	}
	err = objects__verify(&btf->set, path, LIMIT, context, image, o, fault);
	if (err || o->verify_only || btf->set.refused || btf->set.failed)
		return err;
	/* The path could have become a directory, whose files are signed under other names. */
	if (btf->set.count != 1 || (path == found && strcmp(btf->set.items[0].name, strrchr(found, '/') + 1)))
		return fault__set(fault, -EINVAL, "--btf %.200s: not the one file that was asked for", path);
	return seal(btf, path, fault);
}

void kernel_btf__free(struct kernel_btf *btf)
{
	if (btf->fd)
		close(btf->fd);
	objects__free(&btf->set);
	*btf = (struct kernel_btf){ 0 };
}
