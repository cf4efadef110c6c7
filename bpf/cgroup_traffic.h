/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Maps of cgroup_traffic.bpf.c, for the program and for readers of its maps. */
#ifndef BUILDTOOL_CGROUP_TRAFFIC_H
#define BUILDTOOL_CGROUP_TRAFFIC_H

#include <linux/types.h>

#define CGROUP_MAX 4096

struct cgroup_counter {
	__u64 packets; /* as on the wire: a GSO packet counts as its segments */
	__u64 bytes;   /* from the IP header on, without the link layer */
};

/* A value of cgroup_traffic, per CPU. The key is the cgroup's id (__u64), its directory's inode number. */
struct cgroup_counters {
	struct cgroup_counter ingress;
	struct cgroup_counter egress;
};

#endif
