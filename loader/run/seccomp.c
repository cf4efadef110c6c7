// SPDX-License-Identifier: Apache-2.0
#include "run/seccomp.h"

#include "base/arch.h"
#include "base/fault.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define X32_CALLS 0x40000000u

#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define LOW_HALF 4
#else
#define LOW_HALF 0
#endif

#define LOAD_FIELD(field, plus)                                                                              \
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field) + (plus))
#define RETURN(action)		   BPF_STMT(BPF_RET | BPF_K, (action))
#define SKIP_IF_EQUAL(value, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), (skip), 0)
#define ALLOW_COMMAND(command)	   BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (command), 0, 1), RETURN(SECCOMP_RET_ALLOW)

/*
 * What is not listed is denied, commands of later kernels too. A process of another architecture
 * would call bpf(2) by another number: it is stopped. The x32 numbers don't exist here.
 */
static struct sock_filter filter[] = {
	LOAD_FIELD(arch, 0),
	SKIP_IF_EQUAL(SECCOMP_ARCH, 1),
	RETURN(SECCOMP_RET_KILL_PROCESS),
	LOAD_FIELD(nr, 0),
#if defined(__x86_64__)
	BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_CALLS, 0, 1),
	RETURN(SECCOMP_RET_ERRNO | ENOSYS),
#endif
	SKIP_IF_EQUAL(SYS_bpf, 1),
	RETURN(SECCOMP_RET_ALLOW),
	/* The kernel takes an int: the upper half of the register is not looked at. */
	LOAD_FIELD(args[0], LOW_HALF),
	ALLOW_COMMAND(BPF_MAP_LOOKUP_ELEM),
	ALLOW_COMMAND(BPF_MAP_UPDATE_ELEM),
	ALLOW_COMMAND(BPF_MAP_DELETE_ELEM),
	ALLOW_COMMAND(BPF_MAP_GET_NEXT_KEY),
	ALLOW_COMMAND(BPF_MAP_LOOKUP_AND_DELETE_ELEM),
	ALLOW_COMMAND(BPF_MAP_LOOKUP_BATCH),
	ALLOW_COMMAND(BPF_MAP_LOOKUP_AND_DELETE_BATCH),
	ALLOW_COMMAND(BPF_MAP_UPDATE_BATCH),
	ALLOW_COMMAND(BPF_MAP_DELETE_BATCH),
	/* Libraries ask what a descriptor is before they use it. */
	ALLOW_COMMAND(BPF_OBJ_GET_INFO_BY_FD),
	RETURN(SECCOMP_RET_ERRNO | EPERM),
};

int seccomp__deny_bpf(struct fault *fault)
{
	const struct sock_fprog program = { .len = sizeof(filter) / sizeof(filter[0]), .filter = filter };

	/* SPEC_ALLOW: older kernels would slow the workload down for the sake of filters of strangers. */
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program))
		return fault__set(fault, -errno, "seccomp: %s", strerror(errno));
	return 0;
}
