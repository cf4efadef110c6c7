/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What tx_latency.bpf.c measures; for the program and for those who read its maps. */
#ifndef BUILDTOOL_TX_LATENCY_H
#define BUILDTOOL_TX_LATENCY_H

#include <linux/types.h>

#define TX_MAX_IN_FLIGHT 16384
#define TX_SLOTS	 64
#define TX_MAX_DEVICES	 128
#define TX_MAX_SLOTS	 (TX_MAX_DEVICES * TX_SLOTS)

/* Key of tx_histogram: slot n counts waits of 2^n to 2^(n+1) - 1 ns. Its values are __u64, per CPU. */
struct tx_slot {
	__u32 netns; /* inode number of the network namespace: interface indexes repeat between them */
	__u32 ifindex;
	__u32 slot;
};

/* Value of tx_in_flight; its key is the address of the packet's struct sk_buff. */
struct tx_start {
	__u64 time_ns;
	__u64 device; /* address of its struct net_device */
};

/* Keys of tx_totals; the values are __u64, per CPU. */
enum tx_total {
	TX_QUEUED = 0,	/* packets handed to a device's queue */
	TX_SENT = 1,	/* of these: handed to the driver */
	TX_DROPPED = 2, /* of these: freed while they waited */
	TX_LOST = 3,	/* of these: never seen again (split into segments); known when the address returns */
	TX_UNMATCHED = 4, /* handed to the driver without a known start: segments, retries, evicted, bypass */
	TX_NO_ROOM = 5,	  /* measured, but tx_histogram is full */
	TX_TOTALS = 6,
};

#endif
