// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Measures the time of packets between the queue of a device (net_dev_queue) and its driver
 * (net_dev_start_xmit), as a log2 histogram for each device.
 *
 * net_dev_xmit would be too late: the driver may have freed the packet, and another CPU may have reused its
 * address. Plain tracepoints, unlike tp_btf, contain only the name of the device, and require tracefs in the
 * container.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>
#include <buildtool/metrics.bpf.h>

#include "count.h"
#include "kernel_types.h"
#include "tx_latency.h"

/* An LRU map evicts old entries, such as those of packets that never appear again. */
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
} tx_histogram SEC(".maps")
	METRIC_LOG2(tx_wait_seconds,
		    "slot=slot slots=40 unit=ns label=netns:netns label=interface=ifindex:ifname(netns)",
		    "Time of packets between the queue of a device and its driver");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	METRIC_ENTRIES(enum tx_total, TX_TOTALS);
	__type(key, __u32);
	__type(value, __u64);
} tx_totals SEC(".maps")
	METRIC_COUNTER(tx_packets_total, "label=event:enum(tx_total)", "Packets at the queues of devices");

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
		/* Ignore a failure, because another CPU may have added the entry, and look it up again. */
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

	/* A start with another device is stale: an earlier packet had this address. */
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
