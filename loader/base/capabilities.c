// SPDX-License-Identifier: Apache-2.0
#include "base/capabilities.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SYS_ADMIN (UINT64_C(1) << CAP_SYS_ADMIN)

uint64_t capabilities__missing(uint64_t needed, uint64_t held)
{
	return held & SYS_ADMIN ? 0 : needed & ~held;
}

uint64_t capabilities__held(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &header, data))
		return 0;
	return data[0].effective | (uint64_t)data[1].effective << 32;
}

/* The nth name belongs to bit n: the order of <linux/capability.h>. */
static const char names[] =
	"CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
	"NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO "
	"SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME "
	"SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG "
	"WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE";

void capabilities__format(uint64_t mask, const char *prefix, char text[CAPABILITIES_TEXT_SIZE])
{
	const char *name = names;
	size_t size = 0;

	text[0] = 0;
	for (; *name; mask >>= 1) {
		int n = (int)strcspn(name, " ");

		if (mask & 1 && size < CAPABILITIES_TEXT_SIZE)
			size += (size_t)snprintf(text + size, CAPABILITIES_TEXT_SIZE - size, "%s%s%.*s",
						 size ? " " : "", prefix, n, name);
		name += n + (name[n] == ' ');
	}
}

/* Return the bit of the name @wanted, which has @size bytes, or 0. */
static uint64_t find(const char *wanted, size_t size)
{
	uint64_t bit = 1;

	for (const char *name = names; *name; bit <<= 1) {
		size_t n = strcspn(name, " ");

		if (n == size && !memcmp(name, wanted, n))
			return bit;
		name += n + (name[n] == ' ');
	}
	return 0;
}

int capabilities__parse(const char *list, uint64_t *mask)
{
	*mask = 0;
	for (;; list++) {
		uint64_t bit;
		size_t n;

		if (!strncmp(list, "CAP_", 4))
			list += 4;
		n = strcspn(list, ",");
		bit = find(list, n);
		if (!bit)
			return -EINVAL;
		*mask |= bit;
		list += n;
		if (!*list)
			return 0;
	}
}
