/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Maps of opcua_monitor.bpf.c, for the program and for readers of its maps. */
#ifndef BUILDTOOL_OPCUA_MONITOR_H
#define BUILDTOOL_OPCUA_MONITOR_H

#include <linux/types.h>

#define OPCUA_PORT 4840
/* MessageType (3), IsFinal or Reserved (1), MessageSize (4): OPC 10000-6, 6.7.2.2 and 7.1.2.2 */
#define OPCUA_HEADER_BYTES 8
/* The most messages read in one TCP segment. The rest of the segment counts once as OPCUA_NOT_FOLLOWED. */
#define OPCUA_MAX_MESSAGES	  8
#define OPCUA_MAX_VLAN_TAGS	  2
#define OPCUA_MAX_IPV6_EXTENSIONS 6

/* Keys of the map opcua_counts. A number never changes its meaning. */
enum opcua_count {
	/* Messages, which also have size classes. bytes: their MessageSize (UADP: the UDP payload). */
	OPCUA_HEL = 0,	/* Hello */
	OPCUA_ACK = 1,	/* Acknowledge */
	OPCUA_ERR = 2,	/* Error */
	OPCUA_RHE = 3,	/* ReverseHello */
	OPCUA_OPN = 4,	/* OpenSecureChannel */
	OPCUA_MSG = 5,	/* one chunk of a secured message */
	OPCUA_CLO = 6,	/* CloseSecureChannel */
	OPCUA_UADP = 7, /* PubSub NetworkMessage over UDP, version 1 */

	/* Payload on the port that is no message. bytes: the payload from that position to its end. */
	OPCUA_OTHER = 8, /* segment that begins with no message: the rest of a longer one, or no OPC UA */
	OPCUA_SHORT_HEADER = 9,	 /* segment ends inside the 8 bytes of a message header */
	OPCUA_BAD_CHUNK = 10,	 /* IsFinal is not F, C or A (not F for other types than MSG) */
	OPCUA_BAD_SIZE = 11,	 /* MessageSize is less than 8 */
	OPCUA_BAD_TYPE = 12,	 /* bytes after a whole message begin no message */
	OPCUA_NOT_FOLLOWED = 13, /* bytes after OPCUA_MAX_MESSAGES messages in the segment */
	OPCUA_UADP_VERSION = 14, /* UDP payload whose low 4 bits are not UADP version 1 */
	OPCUA_UADP_EMPTY = 15,	 /* UDP without payload */

	/* Packets of the interface that could not be parsed. bytes: the frame. */
	OPCUA_FRAGMENT = 16,	     /* later fragment of an IP packet, which has no ports */
	OPCUA_PACKET_SHORT = 17,     /* frame ends inside a header up to TCP and UDP */
	OPCUA_PACKET_MALFORMED = 18, /* a header contradicts itself or the frame */
	OPCUA_PACKET_TOO_DEEP = 19,  /* more VLAN tags or IPv6 extension headers than the maximum */

	OPCUA_COUNTS = 20,
};

#define OPCUA_SIZED_COUNTS (OPCUA_UADP + 1)
#define OPCUA_SIZE_CLASSES 32

/* A value of opcua_counts, per CPU. */
struct opcua_counter {
	__u64 count;
	__u64 bytes;
};

/* The map opcua_sizes: class n counts messages of 2^n to 2^(n+1) - 1 bytes. Its values are __u64, per CPU. */
#define OPCUA_SIZE_KEYS (OPCUA_SIZED_COUNTS * OPCUA_SIZE_CLASSES)

/* Returns the key of opcua_sizes for a message's type and size class. */
static inline __u32 opcua__size_key(enum opcua_count message, __u32 size_class)
{
	return message * OPCUA_SIZE_CLASSES + size_class;
}

#endif
