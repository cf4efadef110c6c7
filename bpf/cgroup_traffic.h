/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What cgroup_traffic.bpf.c counts; for the program and for those who read its maps. */
#ifndef BUILDTOOL_CGROUP_TRAFFIC_H
#define BUILDTOOL_CGROUP_TRAFFIC_H

#include <linux/types.h>

#define CGROUP_MAX 4096

struct cgroup_counter {
	__u64 packets; /* as on the wire: a packet that the kernel carries in one piece counts its segments */
	__u64 bytes;   /* from the IP header on, without the link layer */
};

/* Value of cgroup_traffic, per CPU; its key is the cgroup's id (__u64), the inode number of its directory. */
struct cgroup_counters {
	struct cgroup_counter ingress;
	struct cgroup_counter egress;
};

#endif
