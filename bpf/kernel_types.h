/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The kernel's own types, reduced to the fields that the programs read. CO-RE finds each field by its
 * name at load time, so neither the layout nor a vmlinux.h of the build machine matters.
 *
 * Origin of the names: struct sk_buff in include/linux/skbuff.h, struct net_device in
 * include/linux/netdevice.h of Linux; the same in 6.1, 6.12 and 6.18.
 */
#ifndef BUILDTOOL_KERNEL_TYPES_H
#define BUILDTOOL_KERNEL_TYPES_H

#define KERNEL_TYPE __attribute__((preserve_access_index))

struct net_device {
	int ifindex;
} KERNEL_TYPE;

struct sk_buff {
	struct net_device *dev;
} KERNEL_TYPE;

#endif
