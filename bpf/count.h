/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Counters and histogram slots that the programs share. */
#ifndef BUILDTOOL_COUNT_H
#define BUILDTOOL_COUNT_H

#include <linux/types.h>

/*
 * Adds atomically although the value is per CPU: a program in process context may be interrupted on
 * its own CPU by the same program in a softirq, and on PREEMPT_RT softirqs preempt each other.
 */
static inline void count__add(__u64 *counter, __u64 amount)
{
	__sync_fetch_and_add(counter, amount);
}

/*
 * Returns the place of the highest set bit, 0 for 0 and 1: slot n holds 2^n <= value < 2^(n+1).
 * No branch: the verifier would go through each of 64 ways, and through all that follows them.
 */
static inline __u32 count__log2(__u64 value)
{
	__u32 slot = 0;

	for (__u32 width = 32; width > 0; width >>= 1) {
		__u64 high = value >> width;
		__u64 move = (high | -high) >> 63;

		/* Hides from clang that this is a comparison, which it would branch on. */
		asm("" : "+r"(move));
		move *= width;
		value >>= move;
		slot += move;
	}
	return slot;
}

#endif
