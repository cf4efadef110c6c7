/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Packet headers as bytes on the wire. The bit fields of <linux/ip.h> and <linux/tcp.h> depend on the build
 * machine's <asm/byteorder.h>, so they are wrong if the target has the other byte order.
 */
#ifndef BUILDTOOL_PACKET_H
#define BUILDTOOL_PACKET_H

#include <linux/types.h>

enum packet_ethertype {
	PACKET_ETH_IPV4 = 0x0800,
	PACKET_ETH_8021Q = 0x8100,
	PACKET_ETH_IPV6 = 0x86dd,
	PACKET_ETH_8021AD = 0x88a8,
};

enum packet_protocol {
	PACKET_IP_HOPOPTS = 0,
	PACKET_IP_TCP = 6,
	PACKET_IP_UDP = 17,
	PACKET_IP_ROUTING = 43,
	PACKET_IP_FRAGMENT = 44,
	PACKET_IP_AH = 51,
	PACKET_IP_DSTOPTS = 60,
	PACKET_IP_MOBILITY = 135,
	PACKET_IP_HIP = 139,
	PACKET_IP_SHIM6 = 140,
};

/* The fragment field: RFC 791, "more" is bit 13 and the offset the low 13; RFC 8200, bit 0 and the high 13.
 */
#define PACKET_IPV4_MORE	0x2000
#define PACKET_IPV4_OFFSET_MASK 0x1fff
#define PACKET_IPV6_MORE	0x0001
#define PACKET_IPV6_OFFSET_MASK 0xfff8

struct packet_eth {
	__u8 destination[6];
	__u8 source[6];
	__be16 type;
};

struct packet_vlan {
	__be16 tci;
	__be16 type;
};

struct packet_ipv4 {
	__u8 version_ihl; /* high 4 bits: 4; low 4 bits: header length in 4 bytes */
	__u8 tos;
	__be16 total_length;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__be16 checksum;
	__u8 source[4];
	__u8 destination[4];
};

struct packet_ipv6 {
	__u8 version_class; /* high 4 bits: 6 */
	__u8 class_flow[3];
	__be16 payload_length;
	__u8 next;
	__u8 hop_limit;
	__u8 source[16];
	__u8 destination[16];
};

/* The first 8 bytes of each IPv6 extension header, and the whole fragment header. */
struct packet_ipv6_extension {
	__u8 next;
	__u8 length; /* in 8 bytes without the first 8; AH: in 4 bytes without the first 8 */
	__be16 fragment;
	__u8 rest[4];
};

struct packet_tcp {
	__be16 source;
	__be16 destination;
	__u8 sequence[8];
	__u8 offset; /* high 4 bits: header length in 4 bytes */
	__u8 flags;
	__u8 rest[6];
};

struct packet_udp {
	__be16 source;
	__be16 destination;
	__be16 length;
	__be16 checksum;
};

#endif
