// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Counts OPC UA messages that arrive at an interface, by message type and size: binary over TCP port 4840
 * (OPC 10000-6) and UADP over UDP port 4840 (OPC 10000-14). All packets pass unchanged.
 *
 * The program keeps no state between packets, so it classifies each segment alone. A helper copies the
 * headers. With packet pointers, the kernel verifier would require CAP_PERFMON for variable offsets. The
 * helper also reads frames of several buffers.
 */
#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <buildtool/metrics.bpf.h>
#include <stdbool.h>

#include "count.h"
#include "opcua_monitor.h"
#include "packet.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	METRIC_ENTRIES(enum opcua_count, OPCUA_COUNTS);
	__type(key, __u32);
	__type(value, struct opcua_counter);
} opcua_counts SEC(".maps")
	METRIC_COUNTER(opcua_messages_total, "value=count label=type:enum(opcua_count)",
		       "OPC UA messages, payload that is none, and packets that could not be parsed")
		METRIC_COUNTER(opcua_bytes_total, "value=bytes unit=bytes label=type:enum(opcua_count)",
			       "Bytes of what opcua_messages_total counts");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, OPCUA_SIZE_KEYS);
	__type(key, __u32);
	__type(value, __u64);
} opcua_sizes SEC(".maps") METRIC_LOG2(opcua_message_size_bytes,
				       "slot=key%32 slots=32 unit=bytes label=type=key/32:enum(opcua_count)",
				       "Sizes of OPC UA messages");

/* The offset of the next header, the end of the IP packet, and the protocol of the next header. */
struct cursor {
	__u32 offset;
	__u32 end;
	__u32 protocol;
	__u32 fragmented; /* true for the first fragment of a packet */
};

/*
 * Loops are unrolled, and their bodies are functions. If clang enters a loop in its middle, the kernel
 * verifier of Linux 6.1 refuses it as endless ("back-edge").
 */
#define UNROLLED _Pragma("clang loop unroll(full)")

/*
 * The kernel verifier checks a function that is not static once, for any arguments. With static functions, it
 * would follow each path for each order of headers: 166,000 instructions instead of 2,000 on Linux 7.2. These
 * functions never receive the context, which kernels without BTF accept in the main program only.
 */
#define VERIFIED_ONCE __noinline

/* Results of a parsing step beside the number of a counter: continue, or ignore the packet. */
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

VERIFIED_ONCE int count_message(__u32 message, __u32 size)
{
	__u32 key = opcua__size_key(message, count__log2(size));
	__u64 *messages = bpf_map_lookup_elem(&opcua_sizes, &key);

	if (messages)
		count__add(messages, 1);
	count(message, size);
	return 0;
}

/* Copies the header at the cursor. Returns false if the frame ends inside it. */
#define READ(ctx, at, header) (!bpf_xdp_load_bytes(ctx, (at)->offset, &(header), sizeof(header)))

static __always_inline int parse_ethernet(struct xdp_md *ctx, struct cursor *at)
{
	struct packet_eth eth;

	if (!READ(ctx, at, eth))
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
		if (!READ(ctx, at, vlan))
			return OPCUA_PACKET_SHORT;
		at->protocol = bpf_ntohs(vlan.type);
		at->offset += sizeof(vlan);
	}
	return OPCUA_PACKET_TOO_DEEP;
}

/* Use the length in the IP header, because short frames have padding after the IP packet. */
VERIFIED_ONCE int take_ipv4(struct cursor *at, const struct packet_ipv4 *ip)
{
	__u32 header, total;

	if (!at || !ip)
		return STEP_IGNORE;
	header = (ip->version_ihl & 0x0f) * 4;
	total = bpf_ntohs(ip->total_length);
	if (ip->version_ihl >> 4 != 4 || header < sizeof(*ip) || total < header)
		return OPCUA_PACKET_MALFORMED;
	if (bpf_ntohs(ip->fragment) & PACKET_IPV4_OFFSET_MASK)
		return OPCUA_FRAGMENT;
	at->fragmented = bpf_ntohs(ip->fragment) & PACKET_IPV4_MORE;
	at->protocol = ip->protocol;
	at->end = at->offset + total;
	at->offset += header;
	return STEP_ON;
}

static __always_inline int parse_ipv4(struct xdp_md *ctx, struct cursor *at)
{
	struct packet_ipv4 ip;

	return READ(ctx, at, ip) ? take_ipv4(at, &ip) : OPCUA_PACKET_SHORT;
}

/* Returns whether *protocol* is an extension header of the common form. */
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

VERIFIED_ONCE int take_extension(struct cursor *at, const struct packet_ipv6_extension *extension)
{
	__u32 length = sizeof(*extension);

	if (!at || !extension)
		return STEP_IGNORE;
	if (at->protocol == PACKET_IP_FRAGMENT) {
		if (bpf_ntohs(extension->fragment) & PACKET_IPV6_OFFSET_MASK)
			return OPCUA_FRAGMENT;
		at->fragmented = bpf_ntohs(extension->fragment) & PACKET_IPV6_MORE;
	} else if (at->protocol == PACKET_IP_AH) {
		length += extension->length * 4;
	} else {
		length += extension->length * 8;
	}
	at->protocol = extension->next;
	at->offset += length;
	return at->offset <= at->end ? STEP_ON : OPCUA_PACKET_MALFORMED;
}

static __always_inline int parse_extensions(struct xdp_md *ctx, struct cursor *at)
{
	UNROLLED
	for (int headers = 0; headers <= OPCUA_MAX_IPV6_EXTENSIONS; headers++) {
		struct packet_ipv6_extension extension;
		int step;

		if (!is_extension(at->protocol))
			return STEP_ON;
		if (headers == OPCUA_MAX_IPV6_EXTENSIONS)
			break;
		if (!READ(ctx, at, extension))
			return OPCUA_PACKET_SHORT;
		step = take_extension(at, &extension);
		if (step != STEP_ON)
			return step;
	}
	return OPCUA_PACKET_TOO_DEEP;
}

static __always_inline int parse_ipv6(struct xdp_md *ctx, struct cursor *at)
{
	struct packet_ipv6 ip;

	if (!READ(ctx, at, ip))
		return OPCUA_PACKET_SHORT;
	if (ip.version_class >> 4 != 6)
		return OPCUA_PACKET_MALFORMED;
	at->protocol = ip.next;
	at->offset += sizeof(ip);
	at->end = at->offset + bpf_ntohs(ip.payload_length);
	return parse_extensions(ctx, at);
}

static __always_inline bool is_opcua(__be16 source, __be16 destination)
{
	return source == bpf_htons(OPCUA_PORT) || destination == bpf_htons(OPCUA_PORT);
}

/* The header of each message: OPC 10000-6, 7.1.2.2 */
struct opcua_header {
	__u8 type[3];
	__u8 chunk;
	__u8 size[4]; /* always little-endian: OPC 10000-6, 5.2.2.2 */
};

_Static_assert(sizeof(struct opcua_header) == OPCUA_HEADER_BYTES, "OPC UA message header");

#define TYPE(a, b, c) ((a) << 16 | (b) << 8 | (c))

/* Returns the message of a MessageType, or OPCUA_OTHER. */
static __always_inline enum opcua_count message_type(const __u8 *type)
{
	switch (TYPE(type[0], type[1], type[2])) {
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

/* Only MSG has chunks. All other messages have 'F' in this byte. */
static __always_inline bool is_chunk(enum opcua_count message, __u8 chunk)
{
	return chunk == 'F' || (message == OPCUA_MSG && (chunk == 'C' || chunk == 'A'));
}

/*
 * Counts the message that begins with *header*. The segment has *left* bytes from there, and later bytes of
 * the header are 0. Returns the message's size, or 0 if no message can follow.
 */
VERIFIED_ONCE __u32 count_one(const struct opcua_header *header, __u32 left, bool first)
{
	enum opcua_count message;
	__u32 size;

	if (!header)
		return 0;
	message = message_type(header->type);
	size = header->size[0] | header->size[1] << 8 | header->size[2] << 16 | (__u32)header->size[3] << 24;
	if (message == OPCUA_OTHER && first)
		count(OPCUA_OTHER, left);
	else if (left < sizeof(header->type) || (message != OPCUA_OTHER && left < sizeof(*header)))
		count(OPCUA_SHORT_HEADER, left);
	else if (message == OPCUA_OTHER)
		count(OPCUA_BAD_TYPE, left);
	else if (!is_chunk(message, header->chunk))
		count(OPCUA_BAD_CHUNK, left);
	else if (size < sizeof(*header))
		count(OPCUA_BAD_SIZE, left);
	else {
		count_message(message, size);
		return size < left ? size : 0;
	}
	return 0;
}

/* Reads the next message's header, as far as the segment has it, and counts the message as count_one does. */
static __always_inline __u32 count_next(struct xdp_md *ctx, const struct cursor *at, bool first)
{
	struct opcua_header header = {};
	__u32 left = at->end - at->offset;

	if (left >= sizeof(header)) {
		if (!READ(ctx, at, header))
			return 0;
	} else if (left >= sizeof(header.type)) {
		if (!READ(ctx, at, header.type))
			return 0;
	}
	return count_one(&header, left, first);
}

VERIFIED_ONCE int take_tcp(struct cursor *at, const struct packet_tcp *tcp)
{
	__u32 header;

	if (!at || !tcp)
		return STEP_IGNORE;
	header = (tcp->offset >> 4) * 4;
	if (header < sizeof(*tcp) || at->offset + header > at->end)
		return OPCUA_PACKET_MALFORMED;
	if (!is_opcua(tcp->source, tcp->destination))
		return STEP_IGNORE;
	at->offset += header;
	return STEP_ON;
}

static __always_inline int count_tcp(struct xdp_md *ctx, struct cursor *at)
{
	struct packet_tcp tcp;
	__u32 size;
	int step;

	if (!READ(ctx, at, tcp))
		return OPCUA_PACKET_SHORT;
	step = take_tcp(at, &tcp);
	if (step != STEP_ON)
		return step;
	UNROLLED
	for (int messages = 0; messages < OPCUA_MAX_MESSAGES; messages++) {
		if (at->offset >= at->end)
			return STEP_IGNORE;
		size = count_next(ctx, at, messages == 0);
		if (!size)
			return STEP_IGNORE;
		at->offset += size;
	}
	if (at->offset < at->end)
		count(OPCUA_NOT_FOLLOWED, at->end - at->offset);
	return STEP_IGNORE;
}

VERIFIED_ONCE int take_udp(struct cursor *at, const struct packet_udp *udp)
{
	__u32 size;

	if (!at || !udp)
		return STEP_IGNORE;
	size = bpf_ntohs(udp->length);
	if (size < sizeof(*udp) || at->offset + sizeof(*udp) > at->end)
		return OPCUA_PACKET_MALFORMED;
	if (at->offset + size > at->end && !at->fragmented)
		return OPCUA_PACKET_MALFORMED;
	if (!is_opcua(udp->source, udp->destination))
		return STEP_IGNORE;
	at->offset += sizeof(*udp);
	return STEP_ON;
}

static __always_inline int count_udp(struct xdp_md *ctx, struct cursor *at)
{
	struct packet_udp udp;
	__u32 size;
	__u8 flags;
	int step;

	if (!READ(ctx, at, udp))
		return OPCUA_PACKET_SHORT;
	step = take_udp(at, &udp);
	if (step != STEP_ON)
		return step;
	size = bpf_ntohs(udp.length) - sizeof(udp);
	if (!size || at->offset >= at->end)
		count(OPCUA_UADP_EMPTY, size);
	else if (!READ(ctx, at, flags))
		return OPCUA_PACKET_MALFORMED;
	else if ((flags & 0x0f) != 1)
		count(OPCUA_UADP_VERSION, size);
	else
		count_message(OPCUA_UADP, size);
	return STEP_IGNORE;
}

static __always_inline int parse(struct xdp_md *ctx, struct cursor *at, __u64 frame)
{
	int step = parse_ethernet(ctx, at);

	if (step != STEP_ON)
		return step;
	if (at->protocol == PACKET_ETH_IPV4)
		step = parse_ipv4(ctx, at);
	else if (at->protocol == PACKET_ETH_IPV6)
		step = parse_ipv6(ctx, at);
	else
		return STEP_IGNORE;
	if (step != STEP_ON)
		return step;
	if (at->protocol != PACKET_IP_TCP && at->protocol != PACKET_IP_UDP)
		return STEP_IGNORE;
	if (at->end > frame)
		return OPCUA_PACKET_MALFORMED;
	return at->protocol == PACKET_IP_TCP ? count_tcp(ctx, at) : count_udp(ctx, at);
}

/* "frags" lets frames of several buffers (jumbo MTU) reach the program. */
SEC("xdp.frags")
int opcua_monitor(struct xdp_md *ctx)
{
	__u64 frame = bpf_xdp_get_buff_len(ctx);
	struct cursor at = {};
	int what = parse(ctx, &at, frame);

	if (what >= 0)
		count(what, frame);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
