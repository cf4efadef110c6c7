/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Functions for counters and histogram slots of the programs. */
#ifndef BUILDTOOL_COUNT_H
#define BUILDTOOL_COUNT_H

#include <linux/types.h>

/*
 * Adds atomically, although the value is per CPU. On the same CPU, a softirq may run the program while it is
 * interrupted in process context, and on PREEMPT_RT softirqs preempt each other.
 */
static inline void count__add(__u64 *counter, __u64 amount)
{
	__sync_fetch_and_add(counter, amount);
}

/*
 * Returns the position of the highest set bit, and 0 for 0 and 1: slot n holds 2^n <= value < 2^(n+1).
 * There are no branches, because the kernel verifier would follow each of 64 paths to the end of the program.
 */
static inline __u32 count__log2(__u64 value)
{
	__u32 slot = 0;

	for (__u32 width = 32; width > 0; width >>= 1) {
		__u64 high = value >> width;
		__u64 move = (high | -high) >> 63;

		/* Hides the comparison from clang, which would turn it into a branch. */
		asm("" : "+r"(move));
		move *= width;
		value >>= move;
		slot += move;
	}
	return slot;
}

#endif
