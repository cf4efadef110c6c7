// SPDX-License-Identifier: Apache-2.0
#include "operate/commands.h"

#include "base/file.h"
#include "base/log.h"
#include "load/load.h"
#include "load/share.h"
#include "pin/pins.h"
#include "run/listing.h"
#include "run/privileges.h"

#include <errno.h>
#include <linux/capability.h>
#include <string.h>
#include <unistd.h>

/* Also what a killed loader left. */
static int detach_pins(int root, const char *shown, const char *object, struct fault *fault)
{
	struct pins p;
	int err = pins__open(&p, root, shown, object, fault);

	/* Of an earlier release of the loader: its links are in the same place. */
	if (err == -ESTALE)
		err = pins__open_unread(&p, root, shown, object, fault);
	if (err)
		return err;
	err = pins__remove(&p, fault);
	pins__close(&p);
	return err;
}

/* Take away all pins below a root, or the shared entries that nobody uses. */
static int detach_root(const char *root, bool shared, struct fault *fault)
{
	int lock = bpffs__open_as_operator(root, fault), err;
	struct file_list names;

	if (lock < 0)
		return lock;
	err = file__list(lock, &names);
	if (err)
		fault__set(fault, err, "%.200s: %s", root, bpffs__reason(err));
	for (size_t i = 0; !err && i < names.count; i++) {
		bpffs__unescape(names.names[i]);
		err = shared ? 0 : detach_pins(lock, root, names.names[i], fault);
	}
	if (!err && shared)
		err = share__clean(lock, root, fault);
	if (!err)
		bpffs__remove_root(root, lock);
	file__list_free(&names);
	close(lock);
	return err;
}

static int detach(const struct options *o, struct fault *fault)
{
	int err = o->pin_root ? detach_root(o->pin_root, false, fault) : 0;

	return err || !o->share ? err : detach_root(o->share, true, fault);
}

int commands__run(const struct options *o)
{
	struct fault fault = { 0 };
	int err;

	/* The capabilities of an image's file are only permitted at first. */
	privileges__raise();
	if (!o->pin_root && !o->share)
		err = fault__usage(&fault, LISTING_NEEDS_ROOT);
	else if (o->command == COMMAND_ROLLBACK && (o->share || !o->pin_root))
		err = fault__usage(&fault,
				   "rollback is for --pin-root: what is shared has no link of its own");
	else if (o->command == COMMAND_ROLLBACK)
		err = load__rollback(o->pin_root, &fault);
	else if (o->command == COMMAND_DETACH)
		err = detach(o, &fault);
	else
		err = listing__show(o, &fault);
	if (err == -EPERM && (o->command == COMMAND_ROLLBACK || o->command == COMMAND_DETACH))
		privileges__explain(UINT64_C(1) << CAP_BPF, &fault);
	return err ? log__fail(&fault) : EXIT_DONE;
}
