// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Counts OPC UA messages that arrive at an interface: binary over TCP port 4840 (OPC 10000-6) and UADP over
 * UDP port 4840 (OPC 10000-14), per message type and size. It lets every packet pass and changes none.
 *
 * It keeps no state between packets: what a segment holds is judged from that segment alone. Headers are
 * copied by a helper and not read through packet pointers: the kernel verifier wants CAP_PERFMON for pointer
 * arithmetic with variable offsets, and the helper reads frames of several buffers too.
 */
#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>

#include "count.h"
#include "opcua_monitor.h"
#include "packet.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, OPCUA_COUNTS);
	__type(key, __u32);
	__type(value, struct opcua_counter);
} opcua_counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, OPCUA_SIZE_KEYS);
	__type(key, __u32);
	__type(value, __u64);
} opcua_sizes SEC(".maps");

/* Where the next header begins, where the IP packet ends, and what comes next. */
struct cursor {
	struct xdp_md *ctx;
	__u32 offset;
	__u32 end;
	__u32 protocol;
	bool fragmented; /* this is the first fragment: the rest of the payload comes in others */
};

/*
 * Loops are unrolled and their bodies are functions of their own: where clang begins a loop in its middle,
 * the verifier of Linux 6.1 takes the edge for one that does not end ("back-edge").
 */
#define UNROLLED _Pragma("clang loop unroll(full)")

/* How a step of parsing ended: go on, nothing of ours, or a count to raise. */
#define STEP_ON	    (-1)
#define STEP_IGNORE (-2)

static void count(__u32 what, __u64 bytes)
{
	struct opcua_counter *counter = bpf_map_lookup_elem(&opcua_counts, &what);

	if (counter) {
		count__add(&counter->count, 1);
		count__add(&counter->bytes, bytes);
	}
}

static void count_message(enum opcua_count message, __u32 size)
{
	__u32 key = opcua__size_key(message, count__log2(size));
	__u64 *messages = bpf_map_lookup_elem(&opcua_sizes, &key);

	if (messages)
		count__add(messages, 1);
	count(message, size);
}

/* Copies the header at the cursor; returns false when the frame ends before it does. */
#define READ(at, header) (!bpf_xdp_load_bytes((at)->ctx, (at)->offset, &(header), sizeof(header)))

static __always_inline int parse_ethernet(struct cursor *at)
{
	struct packet_eth eth;

	if (!READ(at, eth))
		return OPCUA_PACKET_SHORT;
	at->protocol = bpf_ntohs(eth.type);
	at->offset += sizeof(eth);
	UNROLLED
	for (int tags = 0; tags <= OPCUA_MAX_VLAN_TAGS; tags++) {
		struct packet_vlan vlan;

		if (at->protocol != PACKET_ETH_8021Q && at->protocol != PACKET_ETH_8021AD)
			return STEP_ON;
		if (tags == OPCUA_MAX_VLAN_TAGS)
			break;
		if (!READ(at, vlan))
			return OPCUA_PACKET_SHORT;
		at->protocol = bpf_ntohs(vlan.type);
		at->offset += sizeof(vlan);
	}
	return OPCUA_PACKET_TOO_DEEP;
}

/* The IP header's length rules, not the frame's: short frames carry padding after the IP packet. */
static __always_inline int parse_ipv4(struct cursor *at)
{
	struct packet_ipv4 ip;
	__u32 header, total;

	if (!READ(at, ip))
		return OPCUA_PACKET_SHORT;
	header = (ip.version_ihl & 0x0f) * 4;
	total = bpf_ntohs(ip.total_length);
	if (ip.version_ihl >> 4 != 4 || header < sizeof(ip) || total < header)
		return OPCUA_PACKET_MALFORMED;
	if (bpf_ntohs(ip.fragment) & PACKET_IPV4_OFFSET_MASK)
		return OPCUA_FRAGMENT;
	at->fragmented = bpf_ntohs(ip.fragment) & PACKET_IPV4_MORE;
	at->protocol = ip.protocol;
	at->end = at->offset + total;
	at->offset += header;
	return STEP_ON;
}

/* Returns whether *protocol* is an extension header that has the common form. */
static __always_inline bool is_extension(__u32 protocol)
{
	switch (protocol) {
	case PACKET_IP_HOPOPTS:
	case PACKET_IP_ROUTING:
	case PACKET_IP_FRAGMENT:
	case PACKET_IP_AH:
	case PACKET_IP_DSTOPTS:
	case PACKET_IP_MOBILITY:
	case PACKET_IP_HIP:
	case PACKET_IP_SHIM6:
		return true;
	default:
		return false;
	}
}

static __noinline int skip_extension(struct cursor *at)
{
	struct packet_ipv6_extension extension;
	__u32 length = sizeof(extension);

	if (!READ(at, extension))
		return OPCUA_PACKET_SHORT;
	if (at->protocol == PACKET_IP_FRAGMENT) {
		if (bpf_ntohs(extension.fragment) & PACKET_IPV6_OFFSET_MASK)
			return OPCUA_FRAGMENT;
		at->fragmented = bpf_ntohs(extension.fragment) & PACKET_IPV6_MORE;
	} else if (at->protocol == PACKET_IP_AH) {
		length += extension.length * 4;
	} else {
		length += extension.length * 8;
	}
	at->protocol = extension.next;
	at->offset += length;
	return at->offset <= at->end ? STEP_ON : OPCUA_PACKET_MALFORMED;
}

static __always_inline int parse_ipv6(struct cursor *at)
{
	struct packet_ipv6 ip;

	if (!READ(at, ip))
		return OPCUA_PACKET_SHORT;
	if (ip.version_class >> 4 != 6)
		return OPCUA_PACKET_MALFORMED;
	at->protocol = ip.next;
	at->offset += sizeof(ip);
	at->end = at->offset + bpf_ntohs(ip.payload_length);
	UNROLLED
	for (int headers = 0; headers <= OPCUA_MAX_IPV6_EXTENSIONS; headers++) {
		int step;

		if (!is_extension(at->protocol))
			return STEP_ON;
		if (headers == OPCUA_MAX_IPV6_EXTENSIONS)
			break;
		step = skip_extension(at);
		if (step != STEP_ON)
			return step;
	}
	return OPCUA_PACKET_TOO_DEEP;
}

static __always_inline bool is_opcua(__be16 source, __be16 destination)
{
	return source == bpf_htons(OPCUA_PORT) || destination == bpf_htons(OPCUA_PORT);
}

#define TYPE(a, b, c) ((a) << 16 | (b) << 8 | (c))

/* Returns the message whose MessageType *header* begins with, or OPCUA_OTHER. */
static __always_inline enum opcua_count message_type(const __u8 *header)
{
	switch (TYPE(header[0], header[1], header[2])) {
	case TYPE('H', 'E', 'L'):
		return OPCUA_HEL;
	case TYPE('A', 'C', 'K'):
		return OPCUA_ACK;
	case TYPE('E', 'R', 'R'):
		return OPCUA_ERR;
	case TYPE('R', 'H', 'E'):
		return OPCUA_RHE;
	case TYPE('O', 'P', 'N'):
		return OPCUA_OPN;
	case TYPE('M', 'S', 'G'):
		return OPCUA_MSG;
	case TYPE('C', 'L', 'O'):
		return OPCUA_CLO;
	default:
		return OPCUA_OTHER;
	}
}

/* Only MSG comes in chunks; every other message has 'F' there. */
static __always_inline bool is_chunk(enum opcua_count message, __u8 chunk)
{
	return chunk == 'F' || (message == OPCUA_MSG && (chunk == 'C' || chunk == 'A'));
}

/* Counts *left* bytes at the end of a segment, too few for a message header. */
static __always_inline void count_rest(struct xdp_md *ctx, __u32 offset, __u32 left, bool first)
{
	__u8 type[3];

	if (left < sizeof(type)) {
		count(first ? OPCUA_OTHER : OPCUA_SHORT_HEADER, left);
		return;
	}
	if (bpf_xdp_load_bytes(ctx, offset, type, sizeof(type)))
		return;
	if (message_type(type) != OPCUA_OTHER)
		count(OPCUA_SHORT_HEADER, left);
	else
		count(first ? OPCUA_OTHER : OPCUA_BAD_TYPE, left);
}

/* Counts the message at *offset* of *left* bytes; returns its size, or 0 when nothing can follow it. */
static __noinline __u32 count_one(struct xdp_md *ctx, __u32 offset, __u32 left, bool first)
{
	enum opcua_count message;
	__u8 header[OPCUA_HEADER_BYTES];
	__u32 size;

	if (left < OPCUA_HEADER_BYTES) {
		count_rest(ctx, offset, left, first);
		return 0;
	}
	if (bpf_xdp_load_bytes(ctx, offset, header, sizeof(header)))
		return 0;
	message = message_type(header);
	/* Little-endian on the wire whatever this CPU is: OPC 10000-6, 5.2.2.2 */
	size = header[4] | header[5] << 8 | header[6] << 16 | (__u32)header[7] << 24;
	if (message == OPCUA_OTHER)
		count(first ? OPCUA_OTHER : OPCUA_BAD_TYPE, left);
	else if (!is_chunk(message, header[3]))
		count(OPCUA_BAD_CHUNK, left);
	else if (size < OPCUA_HEADER_BYTES)
		count(OPCUA_BAD_SIZE, left);
	else {
		count_message(message, size);
		return size < left ? size : 0;
	}
	return 0;
}

static __always_inline int count_tcp(struct cursor *at)
{
	struct packet_tcp tcp;
	__u32 header, size;

	if (!READ(at, tcp))
		return OPCUA_PACKET_SHORT;
	header = (tcp.offset >> 4) * 4;
	if (header < sizeof(tcp) || at->offset + header > at->end)
		return OPCUA_PACKET_MALFORMED;
	if (!is_opcua(tcp.source, tcp.destination))
		return STEP_IGNORE;
	at->offset += header;
	UNROLLED
	for (int messages = 0; messages < OPCUA_MAX_MESSAGES; messages++) {
		if (at->offset >= at->end)
			return STEP_IGNORE;
		size = count_one(at->ctx, at->offset, at->end - at->offset, messages == 0);
		if (!size)
			return STEP_IGNORE;
		at->offset += size;
	}
	if (at->offset < at->end)
		count(OPCUA_NOT_FOLLOWED, at->end - at->offset);
	return STEP_IGNORE;
}

static __always_inline int count_udp(struct cursor *at)
{
	struct packet_udp udp;
	__u32 size;
	__u8 flags;

	if (!READ(at, udp))
		return OPCUA_PACKET_SHORT;
	size = bpf_ntohs(udp.length);
	if (size < sizeof(udp) || at->offset + sizeof(udp) > at->end)
		return OPCUA_PACKET_MALFORMED;
	if (at->offset + size > at->end && !at->fragmented)
		return OPCUA_PACKET_MALFORMED;
	if (!is_opcua(udp.source, udp.destination))
		return STEP_IGNORE;
	size -= sizeof(udp);
	at->offset += sizeof(udp);
	if (!size || at->offset >= at->end)
		count(OPCUA_UADP_EMPTY, size);
	else if (bpf_xdp_load_bytes(at->ctx, at->offset, &flags, sizeof(flags)))
		return OPCUA_PACKET_MALFORMED;
	else if ((flags & 0x0f) != 1)
		count(OPCUA_UADP_VERSION, size);
	else
		count_message(OPCUA_UADP, size);
	return STEP_IGNORE;
}

static __always_inline int parse(struct cursor *at, __u64 frame)
{
	int step = parse_ethernet(at);

	if (step != STEP_ON)
		return step;
	if (at->protocol == PACKET_ETH_IPV4)
		step = parse_ipv4(at);
	else if (at->protocol == PACKET_ETH_IPV6)
		step = parse_ipv6(at);
	else
		return STEP_IGNORE;
	if (step != STEP_ON)
		return step;
	if (at->protocol != PACKET_IP_TCP && at->protocol != PACKET_IP_UDP)
		return STEP_IGNORE;
	if (at->end > frame)
		return OPCUA_PACKET_MALFORMED;
	return at->protocol == PACKET_IP_TCP ? count_tcp(at) : count_udp(at);
}

/* "frags": frames of several buffers (jumbo MTU) reach the program too. */
SEC("xdp.frags")
int opcua_monitor(struct xdp_md *ctx)
{
	__u64 frame = bpf_xdp_get_buff_len(ctx);
	struct cursor at = { .ctx = ctx };
	int what = parse(&at, frame);

	if (what >= 0)
		count(what, frame);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
