// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Counts the IP traffic, in both directions, of each cgroup (version 2) below the attached one. All packets
 * pass.
 *
 * The cgroup is that of the packet's socket. The current task's cgroup would be wrong: a softirq, which may
 * interrupt any task, handles incoming packets and outgoing packets that waited.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>
#include <buildtool/metrics.bpf.h>

#include "cgroup_traffic.h"
#include "count.h"

#define PASS 1

/* One direction of a metric: a constant label tells the two declarations apart. */
#define DIRECTION(direction, member, options)                                                                \
	"label=cgroup:cgroup const=direction:" #direction " value=" #direction "." #member options
#define PACKETS(direction)                                                                                   \
	METRIC_COUNTER(cgroup_packets_total, DIRECTION(direction, packets, ""), "IP packets of cgroups")
#define BYTES(direction)                                                                                     \
	METRIC_COUNTER(cgroup_bytes_total, DIRECTION(direction, bytes, " unit=bytes"), "IP bytes of cgroups")

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, CGROUP_MAX);
	__type(key, __u64);
	__type(value, struct cgroup_counters);
} cgroup_traffic SEC(".maps") PACKETS(ingress) PACKETS(egress) BYTES(ingress) BYTES(egress);

/* Packets of cgroups for which cgroup_traffic had no room. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cgroup_counter);
} cgroup_missed SEC(".maps")
	METRIC_COUNTER(cgroup_missed_packets_total, "value=packets", "IP packets without room in the map")
		METRIC_COUNTER(cgroup_missed_bytes_total, "value=bytes unit=bytes",
			       "IP bytes without room in the map");

static struct cgroup_counters *counters_of(__u64 cgroup)
{
	struct cgroup_counters *counters = bpf_map_lookup_elem(&cgroup_traffic, &cgroup);
	struct cgroup_counters none = {};

	if (counters)
		return counters;
	/* Ignore a failure, because another CPU may have added the entry, and look it up again. */
	bpf_map_update_elem(&cgroup_traffic, &cgroup, &none, BPF_NOEXIST);
	return bpf_map_lookup_elem(&cgroup_traffic, &cgroup);
}

static void count(struct cgroup_counter *counter, __u32 segments, __u32 bytes)
{
	count__add(&counter->packets, segments ? segments : 1);
	count__add(&counter->bytes, bytes);
}

static void count_missed(__u32 segments, __u32 bytes)
{
	__u32 only = 0;
	struct cgroup_counter *counter = bpf_map_lookup_elem(&cgroup_missed, &only);

	if (counter)
		count(counter, segments, bytes);
}

SEC("cgroup_skb/ingress")
int cgroup_ingress(struct __sk_buff *skb)
{
	struct cgroup_counters *counters = counters_of(bpf_skb_cgroup_id(skb));

	if (counters)
		count(&counters->ingress, skb->gso_segs, skb->len);
	else
		count_missed(skb->gso_segs, skb->len);
	return PASS;
}

SEC("cgroup_skb/egress")
int cgroup_egress(struct __sk_buff *skb)
{
	struct cgroup_counters *counters = counters_of(bpf_skb_cgroup_id(skb));

	if (counters)
		count(&counters->egress, skb->gso_segs, skb->len);
	else
		count_missed(skb->gso_segs, skb->len);
	return PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
