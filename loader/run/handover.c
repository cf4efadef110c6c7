// SPDX-License-Identifier: Apache-2.0
#include "run/handover.h"

#include "base/fault.h"
#include "base/log.h"
#include "run/environment.h"
#include "run/privileges.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SEALS (F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL)

/* Linux 6.9 and newer let a BPF file system delegate rights to a user namespace: no refusal. */
#define IN_USER_NAMESPACE                                                                                    \
	"capabilities of a user namespace (a rootless container) do not count for bpf(2) without a BPF "     \
	"token; run "                                                                                        \
	"it as root of the host"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U /* Linux 6.3 */
#endif

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

/* Returns the descriptor, at its first byte, or a negative errno. */
static int make_sealed(const char *name, const uint8_t *data, size_t size)
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

static int export_object(const struct set_item *item, char **list, struct fault *fault)
{
	const char *name = item->verdict.statement.name;
	char *longer = NULL;
	int fd = make_sealed(name, item->data, item->size), err;

	if (fd < 0)
		return fault__set(fault, fd, "%s: cannot hand over: %s", name, strerror(-fd));
	err = environment__export_object(name, fd, fault);
	if (err)
		return err;
	if (asprintf(&longer, "%s%s%s=%d", *list ? *list : "", *list ? " " : "", name, fd) < 0)
		return fault__set(fault, -ENOMEM, "out of memory");
	free(*list);
	*list = longer;
	log__write(&(struct log_line){
		.event = "handover",
		.object = item->name,
		.message = privileges__are_of_user_namespace() ? IN_USER_NAMESPACE : NULL,
	});
	return 0;
}

int handover__export(const struct object_set *set, struct fault *fault)
{
	char *list = NULL;
	int err = 0;

	environment__forget_descriptors();
	for (size_t i = 0; !err && i < set->count; i++)
		err = export_object(&set->items[i], &list, fault);
	if (!err && setenv(ENVIRONMENT_OBJECTS, list, 1))
		err = fault__set(fault, -ENOMEM, "out of memory");
	free(list);
	return err;
}
