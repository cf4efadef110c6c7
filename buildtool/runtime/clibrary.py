# SPDX-License-Identifier: Apache-2.0
"""
Small headers with the names of the C library's, for sources that include those.

The C library's own headers do not compile for eBPF on every architecture. These have the parts that programs
use: functions that clang replaces by instructions, constants, and types with the kernel's definitions. They
include the kernel's headers only where the C library's have the same types, because `vmlinux.h` has them too.
"""

from __future__ import annotations

_HEAD = """\
/* SPDX-License-Identifier: Apache-2.0 */
/* The part of the C library's <{name}> that eBPF programs use; made by buildtool. */
#ifndef {guard}
#define {guard}
{body}#endif
"""
_BODIES = {
    # <linux/if.h>, and <linux/icmp.h> with it, need the C library's socket address.
    "sys/socket.h": """\
#include <linux/socket.h>
typedef __kernel_sa_family_t sa_family_t;
struct sockaddr {
	sa_family_t sa_family;
	char sa_data[14];
};
#ifndef AF_INET
#define AF_UNSPEC 0
#define AF_UNIX 1
#define AF_LOCAL 1
#define AF_INET 2
#define AF_INET6 10
#define AF_NETLINK 16
#define AF_PACKET 17
#define AF_VSOCK 40
#define AF_XDP 44
#endif
#ifndef SOCK_STREAM
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define SOCK_RAW 3
#endif
#ifndef SOL_IP
#define SOL_IP 0
#define SOL_TCP 6
#define SOL_UDP 17
#define SOL_IPV6 41
#endif
""",
    "string.h": """\
#include <stddef.h>
extern void *memcpy(void *to, const void *from, size_t size);
extern void *memmove(void *to, const void *from, size_t size);
extern void *memset(void *to, int value, size_t size);
extern int memcmp(const void *one, const void *other, size_t size);
""",
    "stdlib.h": """\
#include <stddef.h>
""",
    "errno.h": """\
#include <asm/errno.h>
#ifndef ENOTSUP
#define ENOTSUP EOPNOTSUPP
#endif
""",
    "inttypes.h": """\
#include <stdint.h>
""",
    "sys/types.h": """\
#include <stddef.h>
typedef int pid_t;
typedef unsigned int uid_t;
typedef unsigned int gid_t;
typedef long ssize_t;
typedef unsigned char u_int8_t;
typedef unsigned short u_int16_t;
typedef unsigned int u_int32_t;
""",
    "netinet/in.h": """\
#include <sys/socket.h>
#include <linux/in.h>
#include <linux/in6.h>
#ifndef htons
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define htons(value) __builtin_bswap16(value)
#define htonl(value) __builtin_bswap32(value)
#else
#define htons(value) (value)
#define htonl(value) (value)
#endif
#define ntohs(value) htons(value)
#define ntohl(value) htonl(value)
#endif
""",
    "arpa/inet.h": """\
#include <netinet/in.h>
""",
    # No assert(): a program has nothing to end, and a check that vanishes would mislead.
    "assert.h": """\
#ifndef static_assert
#define static_assert _Static_assert
#endif
""",
    "signal.h": """\
#include <linux/signal.h>
""",
}
# Sources written for the headers of a kernel's build call its user interface uapi/.
_UAPI = (
    "bpf", "bpf_common", "bpf_perf_event", "errno", "if_ether", "if_packet", "icmp", "icmpv6", "in", "in6",
    "ip", "ipv6", "limits", "pkt_cls", "ptrace", "stddef", "tcp", "types", "udp", "un",
)  # fmt: skip


def own_headers() -> dict[str, str]:
    """Return the texts of our own headers, by the names that programs include."""
    bodies = _BODIES | {f"uapi/linux/{name}.h": f"#include <linux/{name}.h>\n" for name in _UAPI}
    return {name: _HEAD.format(name=name, guard=_guard(name), body=body) for name, body in bodies.items()}


def _guard(name: str) -> str:
    return "BUILDTOOL_" + name.upper().replace("/", "_").replace(".", "_")
