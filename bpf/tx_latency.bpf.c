// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Measures how long packets wait between the queue of a device (net_dev_queue) and its driver
 * (net_dev_start_xmit), as a log2 histogram per device.
 *
 * net_dev_start_xmit and not net_dev_xmit: when the latter fires the driver may have freed the packet
 * already, and another CPU may have given its address to a new one. tp_btf and not plain tracepoints: their
 * formats hold the device's name only, and attaching them needs tracefs in the container.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "count.h"
#include "kernel_types.h"
#include "tx_latency.h"

/* LRU: a start whose packet is never seen again makes room for newer ones. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, TX_MAX_IN_FLIGHT);
	__type(key, __u64);
	__type(value, struct tx_start);
} tx_in_flight SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, TX_MAX_SLOTS);
	__type(key, struct tx_slot);
	__type(value, __u64);
} tx_histogram SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, TX_TOTALS);
	__type(key, __u32);
	__type(value, __u64);
} tx_totals SEC(".maps");

static void count(__u32 what)
{
	__u64 *total = bpf_map_lookup_elem(&tx_totals, &what);

	if (total)
		count__add(total, 1);
}

static void count_wait(struct net_device *dev, __u64 wait_ns)
{
	struct tx_slot key = {
		.netns = dev->nd_net.net->ns.inum,
		.ifindex = dev->ifindex,
		.slot = count__log2(wait_ns),
	};
	__u64 *packets = bpf_map_lookup_elem(&tx_histogram, &key);
	__u64 none = 0;

	if (!packets) {
		/* Another CPU may have made it meanwhile: look again whatever this returns. */
		bpf_map_update_elem(&tx_histogram, &key, &none, BPF_NOEXIST);
		packets = bpf_map_lookup_elem(&tx_histogram, &key);
	}
	if (packets)
		count__add(packets, 1);
	else
		count(TX_NO_ROOM);
}

SEC("tp_btf/net_dev_queue")
int tx_queue(__u64 *ctx)
{
	struct sk_buff *skb = (void *)ctx[0];
	struct tx_start start = { .time_ns = bpf_ktime_get_ns(), .device = (__u64)skb->dev };
	__u64 key = ctx[0];

	if (bpf_map_update_elem(&tx_in_flight, &key, &start, BPF_NOEXIST)) {
		count(TX_LOST);
		bpf_map_update_elem(&tx_in_flight, &key, &start, BPF_ANY);
	}
	count(TX_QUEUED);
	return 0;
}

SEC("tp_btf/net_dev_start_xmit")
int tx_start(__u64 *ctx)
{
	struct net_device *dev = (void *)ctx[1];
	__u64 now = bpf_ktime_get_ns();
	__u64 key = ctx[0];
	struct tx_start *start = bpf_map_lookup_elem(&tx_in_flight, &key);

	/* Another device: a stale start of a packet that had this address before. */
	if (start && start->device == (__u64)dev) {
		count_wait(dev, now - start->time_ns);
		count(TX_SENT);
	} else {
		count(start ? TX_LOST : TX_UNMATCHED);
	}
	bpf_map_delete_elem(&tx_in_flight, &key);
	return 0;
}

SEC("tp_btf/kfree_skb")
int tx_drop(__u64 *ctx)
{
	__u64 key = ctx[0];

	if (!bpf_map_delete_elem(&tx_in_flight, &key))
		count(TX_DROPPED);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
