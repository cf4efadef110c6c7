// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Counts the packets and bytes that arrive at an interface, by kind. Read the numbers with
 *   bpftool map dump name packet_counts
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

enum packet_kind {
	PACKET_IPV4,
	PACKET_IPV6,
	PACKET_OTHER,
	PACKET_KINDS,
};

struct packet_count {
	__u64 packets;
	__u64 bytes;
};

/* Each CPU has its own counters, so that no CPU waits and no update is lost. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PACKET_KINDS);
	__type(key, __u32);
	__type(value, struct packet_count);
} packet_counts SEC(".maps");

SEC("xdp")
int count_packets(struct xdp_md *context)
{
	void *data = (void *)(long)context->data;
	void *data_end = (void *)(long)context->data_end;
	struct ethhdr *ethernet = data;
	struct packet_count *count;
	__u32 kind = PACKET_OTHER;

	/* The kernel verifier requires this comparison before the header is read. */
	if ((void *)(ethernet + 1) <= data_end) {
		if (ethernet->h_proto == bpf_htons(ETH_P_IP))
			kind = PACKET_IPV4;
		else if (ethernet->h_proto == bpf_htons(ETH_P_IPV6))
			kind = PACKET_IPV6;
	}

	count = bpf_map_lookup_elem(&packet_counts, &kind);
	if (count) {
		count->packets++;
		/* Subtracting pointers (data_end - data) would also require CAP_PERFMON. */
		count->bytes += bpf_xdp_get_buff_len(context);
	}
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
