// SPDX-License-Identifier: Apache-2.0
#include "run/handover.h"

#include "base/fault.h"
#include "base/file.h"
#include "base/log.h"
#include "run/environment.h"
#include "run/privileges.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Linux 6.9 and newer let a BPF file system delegate rights to a user namespace: no refusal. */
#define IN_USER_NAMESPACE                                                                                    \
	"capabilities of a user namespace (a rootless container) do not count for bpf(2) without a BPF "     \
	"token; run "                                                                                        \
	"it as root of the host"

static int export_object(const struct set_item *item, char **list, struct fault *fault)
{
	const char *name = item->verdict.statement.name;
	char *longer = NULL;
	int fd = file__make_sealed(name, item->data, item->size), err;

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
