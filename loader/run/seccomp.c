// SPDX-License-Identifier: Apache-2.0
#include "run/seccomp.h"

#include "base/arch.h"
#include "base/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define X32_CALLS  0x40000000u
#define FILTER_MAX 160
#ifdef __s390x__
#define CLONE_FLAGS 1 /* s390 has the stack first */
#else
#define CLONE_FLAGS 0
#endif

#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define LOW_HALF 4
#else
#define LOW_HALF 0
#endif

struct filter {
	struct sock_filter code[FILTER_MAX];
	unsigned short size;
};

static void add(struct filter *f, struct sock_filter line)
{
	f->code[f->size++] = line;
}

static void load(struct filter *f, size_t offset)
{
	add(f, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset));
}

/* The kernel takes an int from these arguments: the upper half of the register is not looked at. */
static void load_argument(struct filter *f, unsigned number)
{
	load(f, offsetof(struct seccomp_data, args) + number * sizeof(uint64_t) + LOW_HALF);
}

static void end(struct filter *f, uint32_t action)
{
	add(f, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action));
}

static void end_if_equal(struct filter *f, uint32_t value, uint32_t action)
{
	add(f, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1));
	end(f, action);
}

/* The lines up to finish_call() are for one call, and all of them return. */
static unsigned short begin_call(struct filter *f, uint32_t call)
{
	load(f, offsetof(struct seccomp_data, nr));
	add(f, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 0));
	return f->size;
}

static void finish_call(struct filter *f, unsigned short begin)
{
	f->code[begin - 1].jf = (uint8_t)(f->size - begin);
}

/*
 * A process of another architecture would make these calls by other numbers: it is stopped. The x32 numbers
 * don't exist here.
 */
static void check_architecture(struct filter *f)
{
	load(f, offsetof(struct seccomp_data, arch));
	add(f, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SECCOMP_ARCH, 1, 0));
	end(f, SECCOMP_RET_KILL_PROCESS);
#if defined(__x86_64__)
	load(f, offsetof(struct seccomp_data, nr));
	add(f, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_CALLS, 0, 1));
	end(f, SECCOMP_RET_ERRNO | ENOSYS);
#endif
}

/* What is not listed is denied, commands of later kernels too. */
static void deny_bpf_but_elements(struct filter *f)
{
	static const uint8_t commands[] = {
		BPF_MAP_LOOKUP_ELEM,
		BPF_MAP_UPDATE_ELEM,
		BPF_MAP_DELETE_ELEM,
		BPF_MAP_GET_NEXT_KEY,
		BPF_MAP_LOOKUP_AND_DELETE_ELEM,
		BPF_MAP_LOOKUP_BATCH,
		BPF_MAP_LOOKUP_AND_DELETE_BATCH,
		BPF_MAP_UPDATE_BATCH,
		BPF_MAP_DELETE_BATCH,
		/* Libraries ask what a descriptor is before they use it. */
		BPF_OBJ_GET_INFO_BY_FD,
	};
	unsigned short begin = begin_call(f, SYS_bpf);

	load_argument(f, 0);
	for (size_t i = 0; i < sizeof(commands); i++)
		end_if_equal(f, commands[i], SECCOMP_RET_ALLOW);
	end(f, SECCOMP_RET_ERRNO | EPERM);
	finish_call(f, begin);
}

static void deny_call(struct filter *f, uint32_t call, uint32_t error)
{
	unsigned short begin = begin_call(f, call);

	end(f, SECCOMP_RET_ERRNO | error);
	finish_call(f, begin);
}

/* Deny a call whose argument is one of the values, up to a zero. */
static void deny_argument(struct filter *f, uint32_t call, unsigned argument, const uint32_t *values)
{
	unsigned short begin = begin_call(f, call);

	load_argument(f, argument);
	for (; *values; values++)
		end_if_equal(f, *values, SECCOMP_RET_ERRNO | EPERM);
	end(f, SECCOMP_RET_ALLOW);
	finish_call(f, begin);
}

/* Deny a call unless its argument is the value. */
static void allow_argument(struct filter *f, uint32_t call, unsigned argument, uint32_t value)
{
	unsigned short begin = begin_call(f, call);

	load_argument(f, argument);
	end_if_equal(f, value, SECCOMP_RET_ALLOW);
	end(f, SECCOMP_RET_ERRNO | EPERM);
	finish_call(f, begin);
}

/* Deny a call whose argument has the bit. */
static void deny_bit(struct filter *f, uint32_t call, unsigned argument, uint32_t bit)
{
	unsigned short begin = begin_call(f, call);

	load_argument(f, argument);
	add(f, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, bit, 0, 1));
	end(f, SECCOMP_RET_ERRNO | EPERM);
	end(f, SECCOMP_RET_ALLOW);
	finish_call(f, begin);
}

/*
 * In a user namespace of its own, a process may install a netfilter rule that opens a pinned socket filter by
 * its path (xt_bpf). Landlock does not see this look-up.
 */
static void deny_user_namespaces(struct filter *f)
{
	deny_bit(f, SYS_unshare, 0, CLONE_NEWUSER);
	deny_bit(f, SYS_clone, CLONE_FLAGS, CLONE_NEWUSER);
	/* A filter cannot read the flags of clone3; libraries use clone then. */
	deny_call(f, SYS_clone3, ENOSYS);
}

/* Before Linux 6.2, a process can type into its terminal, which a shell of another user may read next. */
static void deny_typing(struct filter *f)
{
	const uint32_t commands[] = { TIOCSTI, TIOCLINUX, 0 };

	deny_argument(f, SYS_ioctl, 1, commands);
}

/*
 * A process can end another of its user by a signal, directly or as the answer to input (F_SETSIG), or by a
 * limit of its time. A signal may be for the loader's process, for its group, or for all (-1). Before
 * Linux 6.12, where Landlock does this, these are the calls that send signals; the loader has one thread.
 */
static void deny_ending(struct filter *f, pid_t loader, pid_t group)
{
	const uint32_t by_kill[] = { (uint32_t)loader, (uint32_t)-1, (uint32_t)-group, 0 };
	const uint32_t by_thread[] = { (uint32_t)loader, 0 };
	const uint32_t its_group[] = { (uint32_t)group, 0 };
	const uint32_t set_signal[] = { F_SETSIG, 0 };

	deny_argument(f, SYS_kill, 0, by_kill);
	deny_argument(f, SYS_tkill, 0, by_thread);
	deny_argument(f, SYS_tgkill, 1, by_thread);
	deny_argument(f, SYS_rt_sigqueueinfo, 0, by_thread);
	deny_argument(f, SYS_rt_tgsigqueueinfo, 1, by_thread);
	/* Which process a descriptor is for, a filter can't see: libraries take the others then. */
	deny_call(f, SYS_pidfd_send_signal, ENOSYS);
	deny_argument(f, SYS_setpgid, 1, its_group);
	deny_argument(f, SYS_fcntl, 1, set_signal);
#ifdef SYS_fcntl64
	deny_argument(f, SYS_fcntl64, 1, set_signal);
#endif
}

int seccomp__restrict(pid_t loader, bool hides_pins, struct fault *fault)
{
	struct filter f = { .size = 0 };
	struct sock_fprog program = { .filter = f.code };

	check_architecture(&f);
	deny_bpf_but_elements(&f);
	deny_typing(&f);
	/* Without descriptors or time, a health command, ebpf-pins or another loader of this user fails
	 * halfway. */
	allow_argument(&f, SYS_prlimit64, 0, 0);
	if (hides_pins)
		deny_user_namespaces(&f);
	if (loader)
		deny_ending(&f, loader, getpgid(loader));
	end(&f, SECCOMP_RET_ALLOW);
	program.len = f.size;
	/* SPEC_ALLOW: older kernels would slow the workload down for the sake of filters of strangers. */
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program))
		return fault__set(fault, -errno, "seccomp: %s: --no-seccomp starts without the filter",
				  strerror(errno));
	return 0;
}
