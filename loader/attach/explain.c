// SPDX-License-Identifier: Apache-2.0
#include "attach/explain.h"

#include "attach/targets.h"
#include "base/capabilities.h"
#include "base/fault.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/if_link.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Programs get this number of the kernel, but their headers and strerror() do not have it. */
#define NO_SYMBOL	"no such symbol in this kernel, or one that cannot be probed; /proc/kallsyms lists symbols"
#define KERNEL_ENOTSUPP 524

#define MASK(cap) (UINT64_C(1) << (cap))
#define TEXT_SIZE 256
#define KPROBES	  "/sys/bus/event_source/devices/kprobe"

/*
 * The cause of an error at a place, and what to try. The kernel gives reasons by numbers only: bpf(2) drops
 * the texts that drivers have for XDP. Sources: dev_xdp_attach(), bpf_mprog_attach(), __cgroup_bpf_attach(),
 * netns_bpf_link_create(), sock_map_link_create(), bpf_tracing_prog_attach(), perf_event_set_bpf_prog(),
 * bpf_nf_link_attach() and bpf_struct_ops_link_create() of Linux 5.15 to 6.18.
 */
static const struct explanation {
	enum attach_place place; /* PLACE_UNKNOWN: any */
	int err;
	const char *text;
} explanations[] = {
	{ PLACE_XDP, EEXIST,
	  "XDP runs in the other mode, or on a device above this one (bond, bridge); bpftool net lists "
	  "programs" },
	{ PLACE_XDP, ENODEV, "the interface no longer exists; ip link lists interfaces" },
	{ PLACE_TCX, ENODEV, "the interface no longer exists; ip link lists interfaces" },
	{ PLACE_TCX, EEXIST, "the program is attached there already; name each interface once" },
	{ PLACE_TCX, ERANGE, "the hook has its maximum of programs; bpftool net lists them" },
	{ PLACE_TCX, ENXIO, "not a netkit device; use tcx/ingress for other devices" },
	{ PLACE_TCX, EACCES, "not the primary device of its pair; use the primary device" },
	{ PLACE_TCX, EINVAL, "netkit requires Linux 6.7; use tcx/ingress for other devices" },
	{ PLACE_CLSACT, ENODEV, "the interface no longer exists; ip link lists interfaces" },
	{ PLACE_CLSACT, ENOENT,
	  "the kernel has no clsact or cls_bpf; run modprobe -a sch_ingress cls_bpf on the host" },
	{ PLACE_CLSACT, EOPNOTSUPP,
	  "the kernel has no clsact or cls_bpf; run modprobe -a sch_ingress cls_bpf on the host" },
	{ PLACE_CGROUP, EBADF, "not a cgroup of version 2; findmnt -t cgroup2 shows where these are" },
	{ PLACE_CGROUP, EINVAL,
	  "this kernel does not have the hook (Linux 5.7 and CONFIG_CGROUP_BPF); check with buildtool check "
	  "--kernel" },
	{ PLACE_CGROUP, EPERM,
	  "a program on this cgroup, or on one above, allows no other; bpftool cgroup tree lists programs" },
	{ PLACE_NETNS, EINVAL,
	  "not a network namespace, or Linux is older than 5.9; use the path of a namespace, as "
	  "/run/netns/NAME" },
	{ PLACE_SOCKMAP, EBUSY, "the map has such a program already; use another sockmap" },
	{ PLACE_SOCKMAP, EOPNOTSUPP,
	  "the map or this kernel does not have the hook (CONFIG_BPF_STREAM_PARSER); check with buildtool "
	  "check --kernel" },
	{ PLACE_TRACE, KERNEL_ENOTSUPP,
	  "this kernel has no trampolines for BPF on this architecture; use kprobe or raw_tp" },
	{ PLACE_TRACE, EBUSY, "another tracer holds the entry of the function; use kprobe" },
	{ PLACE_TRACE, ENOENT, "this kernel has no such tracepoint; see /sys/kernel/tracing/events" },
	{ PLACE_FUNCTION, KERNEL_ENOTSUPP,
	  "this kernel has no trampolines for BPF on this architecture; call a function of the object's "
	  "own" },
	{ PLACE_FUNCTION, EBUSY, "another program replaces the function already; name each function once" },
	{ PLACE_RAW_TP, ENOENT,
	  "this kernel has no such tracepoint; the name is that in /sys/kernel/tracing/events, without its "
	  "category" },
	{ PLACE_RAW_TP, EINVAL,
	  "the program reads more arguments than the tracepoint has; check its context" },
	{ PLACE_TRACEPOINT, EEXIST, "the program is attached there already; name each tracepoint once" },
	{ PLACE_TRACEPOINT, EACCES,
	  "the program reads beyond the fields of the tracepoint, or perf events are denied; compare the "
	  "program with its format file" },
	{ PLACE_TRACEPOINT, EINVAL, "links of perf events require Linux 5.15; use raw_tp" },
	{ PLACE_PERF, ENOENT, "this machine has no such event; use cpu-clock:99, which every machine has" },
	{ PLACE_PERF, EOPNOTSUPP,
	  "this machine has no such event; use cpu-clock:99, which every machine has" },
	{ PLACE_PERF, EINVAL,
	  "no such event, or Linux is older than 5.15; use cpu-clock:99, which every machine has" },
	{ PLACE_PERF, EACCES, "perf events are denied; see /proc/sys/kernel/perf_event_paranoid" },
	{ PLACE_KPROBE, ENOENT, NO_SYMBOL },
	{ PLACE_KPROBE, ESRCH, NO_SYMBOL },
	{ PLACE_KPROBE, EADDRNOTAVAIL, NO_SYMBOL },
	{ PLACE_KPROBE, EILSEQ, "the offset is inside an instruction; choose the offset of an instruction" },
	{ PLACE_KPROBE, EINVAL,
	  "this kernel has no probe at the entry of a function that ftrace uses; use fentry, or an offset" },
	{ PLACE_UPROBE, ENOENT,
	  "no such file, or it has no such function; the path is that in the loader's container" },
	{ PLACE_UPROBE, ESRCH,
	  "no such file, or it has no such function; the path is that in the loader's container" },
	{ PLACE_UPROBE, EINVAL,
	  "no instruction begins at the offset, or the kernel has no uprobe.multi (Linux 6.6) or "
	  "uprobe.session (Linux 6.13); use another offset, or uprobe" },
	{ PLACE_USDT, ENOENT, "no such file, or it has no such probe; readelf -n FILE lists them" },
	{ PLACE_USDT, ESRCH,
	  "no such process, or the object lacks the maps of probes; its source must include "
	  "<bpf/usdt.bpf.h>" },
	{ PLACE_ITER, EINVAL, "the kernel has no iterator over maps of this type; use another type of map" },
	{ PLACE_ITER, EACCES, "the program reads beyond the key or the value of the map; check its sizes" },
	{ PLACE_NETFILTER, ERANGE, "the kernel reserves this priority; use another one, such as 0" },
	{ PLACE_NETFILTER, EAFNOSUPPORT, "this kernel has no netfilter for the family; use ipv4" },
	{ PLACE_NETFILTER, EINVAL,
	  "this kernel has no such link (Linux 6.4 and CONFIG_NETFILTER_BPF_LINK); use tc or XDP" },
	{ PLACE_STRUCT_OPS, EEXIST, "the name is registered already; bpftool struct_ops list shows it" },
	{ PLACE_STRUCT_OPS, EBUSY, "another one is registered already; bpftool struct_ops list shows it" },
	{ PLACE_STRUCT_OPS, EINVAL, "the kernel rejects the struct; dmesg has the missing function" },
	{ PLACE_UNKNOWN, E2BIG, "the hook has its maximum of programs; bpftool link lists them" },
};

/* Drivers refuse XDP in their own words. The generic mode has none of their conditions. */
static void explain_xdp(int err, const struct attach_point *point, const char *shown, char text[TEXT_SIZE])
{
	int size = (int)strcspn(shown, ":");

	/* bpf_xdp_link_attach() has one error for a missing interface and for all else. */
	if (err == -EINVAL && !targets__has_index(point->ifindex)) {
		snprintf(text, TEXT_SIZE, "the interface no longer exists; ip link lists interfaces");
		return;
	}
	if (point->flags & XDP_FLAGS_SKB_MODE) {
		if (err == -EINVAL)
			snprintf(text, TEXT_SIZE, "links of XDP require Linux 5.9; update the kernel");
		return;
	}
	if (err == -ERANGE)
		snprintf(text, TEXT_SIZE,
			 "the MTU (of a veth: its peer's) is too large for XDP in the driver; use "
			 "%.*s:generic, "
			 "or ip link set NAME mtu 1500",
			 size, shown);
	else if (err == -ENOSPC)
		snprintf(text, TEXT_SIZE,
			 "the interface has fewer receive queues than its peer has transmit queues; use "
			 "%.*s:generic, or set the queues with ethtool -L",
			 size, shown);
	else if (err == -EOPNOTSUPP && point->flags)
		snprintf(text, TEXT_SIZE, "the driver has no XDP, or not in this setup; use %.*s:generic",
			 size, shown);
	else if (err == -EOPNOTSUPP)
		snprintf(text, TEXT_SIZE,
			 "the driver refuses XDP in this setup (queues, MTU, offloads); use %.*s:generic",
			 size, shown);
	else if (err == -EINVAL)
		snprintf(
			text, TEXT_SIZE,
			"the driver refuses XDP in this setup (MTU, queues), or Linux is older than 5.9; use "
			"%.*s:generic",
			size, shown);
}

static const char *find(int err, const struct attach_point *point)
{
	/* The missing capability is the cause then, and the loader's last words name it. */
	if (err == -EPERM && capabilities__missing(MASK(CAP_NET_ADMIN), capabilities__held()))
		return NULL;
	for (size_t i = 0; i < sizeof(explanations) / sizeof(explanations[0]); i++) {
		const struct explanation *e = &explanations[i];

		if (e->err == -err && (e->place == point->place || e->place == PLACE_UNKNOWN))
			return e->text;
	}
	return NULL;
}

int explain__error(int err, const struct attach_point *point, const char *shown, const char *cause,
		   struct fault *fault)
{
	bool by_pattern = point->shown[0] && strpbrk(point->target, "*?");
	char text[TEXT_SIZE] = "";

	if (err == -EPERM && !cause)
		fault->capabilities = FAULT_ANY_CAPABILITY;
	else if (err == -EACCES && (point->place == PLACE_PERF || point->place == PLACE_TRACEPOINT))
		fault->capabilities = MASK(CAP_PERFMON);
	if (point->place == PLACE_XDP && !cause)
		explain_xdp(err, point, shown, text);
	else if (point->place == PLACE_KPROBE && access(KPROBES, F_OK))
		cause = "this kernel has no kprobes, or sysfs is not mounted; use fentry, or mount /sys";
	if (!cause)
		cause = text[0] ? text : find(err, point);
	/* "No such file or directory" would not be about the symbol. */
	if (cause && point->place == PLACE_KPROBE && !strcmp(cause, NO_SYMBOL))
		return fault__set(fault, err, "cannot attach to %.100s: %s", shown, cause);
	return fault__set(fault, err, "cannot attach to %.100s%s%.32s%s: %s%s%s", shown,
			  by_pattern ? " (" : "", by_pattern ? point->target : "", by_pattern ? ")" : "",
			  err == -KERNEL_ENOTSUPP ? "Operation not supported" : strerror(-err),
			  cause		? ": " :
			  err == -EPERM ? "" :
					  "; dmesg can have the cause",
			  cause ? cause : "");
}
