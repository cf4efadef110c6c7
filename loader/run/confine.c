// SPDX-License-Identifier: Apache-2.0
#include "run/confine.h"

#include "base/fault.h"
#include "run/landlock.h"
#include "run/options.h"
#include "run/privileges.h"
#include "run/seccomp.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define MASK(cap) (UINT64_C(1) << (cap))

int confine__plan(struct confinement *c, const struct options *o, pid_t loader, struct fault *fault)
{
	size_t count = 0;

	*c = (struct confinement){ .seccomp = !o->no_seccomp && !o->hand_over, .loader = loader };
	if (o->has_user && o->uid == geteuid())
		return fault__usage(fault, "--workload-user %u: the loader's own user", o->uid);
	if (o->has_user && !o->uid && (o->pin_root || o->share))
		return fault__usage(
			fault,
			"--workload-user 0 with --pin-root or --share: root owns the directories above");
	if (o->has_user) {
		/* The directory's mode, 0700, keeps another user out. */
		c->has_user = true;
		c->uid = o->uid;
		c->gid = o->gid;
		return 0;
	}
	if (o->pin_root)
		c->hidden[count++] = o->pin_root;
	if (o->share)
		c->hidden[count++] = o->share;
	if (!count)
		return 0;
	if (!c->seccomp)
		return fault__usage(fault,
				    "--no-seccomp with --pin-root or --share requires --workload-user: "
				    "a workload of the loader's user could open what is pinned");
	if (!landlock__hides_directories())
		return fault__set(
			fault, -EPERM,
			"cannot-hide-pins: no Landlock: Linux is older than 5.19, or the kernel or the "
			"container "
			"engine forbids it: a workload of the loader's user could remove the pins: use "
			"--workload-user");
	return 0;
}

uint64_t confine__needs(const struct confinement *c)
{
	if (!c->has_user)
		return 0;
	return MASK(CAP_SETUID) | MASK(CAP_SETGID) | (c->loader ? MASK(CAP_KILL) : 0);
}

static int change_user(const struct confinement *c, struct fault *fault)
{
	/* Without this, a change from root to another user drops all capabilities. execve(2) resets it. */
	if (c->keep && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0))
		return fault__set(fault, -errno, "--workload-user: %s", strerror(errno));
	if (setgroups(0, NULL) || setresgid(c->gid, c->gid, c->gid) || setresuid(c->uid, c->uid, c->uid))
		return fault__set(fault, -errno, "--workload-user %u:%u: %s", c->uid, c->gid,
				  strerror(errno));
	return 0;
}

int confine__enter(const struct confinement *c, struct fault *fault)
{
	const struct landlock landlock = { .hidden = c->hidden[0] ? c->hidden : NULL,
					   .scope_signals = c->loader || c->hidden[0] };
	int err = c->has_user ? change_user(c, fault) : 0;

	if (!err)
		err = c->keep ? privileges__hand_over(c->keep, fault) : privileges__drop(fault);
	/* After the change of the user, which takes the wish away. */
	if (!err && c->loader && (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) || getppid() != c->loader))
		err = fault__set(fault, -ESRCH, "the loader is gone");
	if (!err)
		err = landlock__restrict(&landlock, fault);
	if (!err && c->seccomp)
		err = seccomp__restrict(c->loader, c->hidden[0], fault);
	return err;
}
