/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Types of the kernel, reduced to the fields that the programs read. CO-RE finds each field by name at load,
 * so neither the layout nor a vmlinux.h of the build machine matters.
 *
 * Source: Linux 6.1 to 6.18, struct sk_buff in include/linux/skbuff.h, struct net_device in
 * include/linux/netdevice.h, possible_net_t and struct net in include/net/net_namespace.h, struct ns_common
 * in include/linux/ns_common.h.
 */
#ifndef BUILDTOOL_KERNEL_TYPES_H
#define BUILDTOOL_KERNEL_TYPES_H

#define KERNEL_TYPE __attribute__((preserve_access_index))

struct ns_common {
	unsigned int inum;
} KERNEL_TYPE;

struct net {
	struct ns_common ns;
} KERNEL_TYPE;

typedef struct {
	struct net *net;
} KERNEL_TYPE possible_net_t;

struct net_device {
	int ifindex;
	possible_net_t nd_net;
} KERNEL_TYPE;

struct sk_buff {
	struct net_device *dev;
} KERNEL_TYPE;

#endif
