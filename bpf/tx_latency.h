/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Maps of tx_latency.bpf.c, for the program and for readers of its maps. */
#ifndef BUILDTOOL_TX_LATENCY_H
#define BUILDTOOL_TX_LATENCY_H

#include <linux/types.h>

#define TX_MAX_IN_FLIGHT 16384
#define TX_SLOTS	 64
#define TX_MAX_DEVICES	 128
#define TX_MAX_SLOTS	 (TX_MAX_DEVICES * TX_SLOTS)

/* A key of tx_histogram: slot n counts times of 2^n to 2^(n+1) - 1 ns. Its values are __u64, per CPU. */
struct tx_slot {
	__u32 netns; /* inode number of the network namespace: namespaces share interface indexes */
	__u32 ifindex;
	__u32 slot;
};

/* A value of tx_in_flight. The key is the address of the packet's struct sk_buff. */
struct tx_start {
	__u64 time_ns;
	__u64 device; /* address of its struct net_device */
};

/* Keys of tx_totals. The values are __u64, per CPU. */
enum tx_total {
	TX_QUEUED = 0,	/* packets handed to a device's queue */
	TX_SENT = 1,	/* of these: handed to the driver */
	TX_DROPPED = 2, /* of these: freed while they waited */
	TX_LOST = 3,	/* of these: never sent, such as split packets; counted when the address is reused */
	TX_UNMATCHED = 4, /* handed to the driver without a known start: segments, retries, evicted, bypass */
	TX_NO_ROOM = 5,	  /* measured, but tx_histogram is full */
	TX_TOTALS = 6,
};

#endif
