// SPDX-License-Identifier: Apache-2.0
#include "attach/plan.h"

#include "attach/probes.h"
#include "attach/targets.h"
#include "attach/tc_filter.h"
#include "base/fault.h"
#include "verify/trust.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/if_link.h>
#include <linux/netfilter.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_INTERFACES 64
#define OWN_NETNS      "/proc/self/ns/net"

/* The place of a program type, and the form of its target. */
static const struct kind {
	enum bpf_prog_type type;
	enum attach_place place;
	const char *wants;
} kinds[] = {
	{ BPF_PROG_TYPE_XDP, PLACE_XDP, "INTERFACE" },
	{ BPF_PROG_TYPE_SCHED_CLS, PLACE_TCX, "INTERFACE" },
	{ BPF_PROG_TYPE_CGROUP_SKB, PLACE_CGROUP, "/PATH/OF/CGROUP" },
	{ BPF_PROG_TYPE_CGROUP_SOCK, PLACE_CGROUP, "/PATH/OF/CGROUP" },
	{ BPF_PROG_TYPE_CGROUP_SOCK_ADDR, PLACE_CGROUP, "/PATH/OF/CGROUP" },
	{ BPF_PROG_TYPE_CGROUP_SOCKOPT, PLACE_CGROUP, "/PATH/OF/CGROUP" },
	{ BPF_PROG_TYPE_CGROUP_DEVICE, PLACE_CGROUP, "/PATH/OF/CGROUP" },
	{ BPF_PROG_TYPE_CGROUP_SYSCTL, PLACE_CGROUP, "/PATH/OF/CGROUP" },
	{ BPF_PROG_TYPE_SOCK_OPS, PLACE_CGROUP, "/PATH/OF/CGROUP" },
	{ BPF_PROG_TYPE_SK_LOOKUP, PLACE_NETNS, "/PATH/OF/NETNS" },
	{ BPF_PROG_TYPE_FLOW_DISSECTOR, PLACE_NETNS, "/PATH/OF/NETNS" },
	{ BPF_PROG_TYPE_SK_MSG, PLACE_SOCKMAP, "SOCKMAP" },
	{ BPF_PROG_TYPE_SK_SKB, PLACE_SOCKMAP, "SOCKMAP" },
	{ BPF_PROG_TYPE_TRACING, PLACE_TRACE, "FUNCTION" },
	{ BPF_PROG_TYPE_LSM, PLACE_TRACE, "HOOK" },
	{ BPF_PROG_TYPE_RAW_TRACEPOINT, PLACE_RAW_TP, "NAME" },
	{ BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE, PLACE_RAW_TP, "NAME" },
	{ BPF_PROG_TYPE_TRACEPOINT, PLACE_TRACEPOINT, "CATEGORY/NAME" },
	{ BPF_PROG_TYPE_KPROBE, PLACE_KPROBE, "FUNCTION" },
	{ BPF_PROG_TYPE_PERF_EVENT, PLACE_PERF, "cpu-clock:FREQUENCY" },
	{ BPF_PROG_TYPE_EXT, PLACE_FUNCTION, "OBJECT:PROGRAM" },
	{ BPF_PROG_TYPE_NETFILTER, PLACE_NETFILTER, "ipv4:prerouting:PRIORITY" },
	/* Nothing to attach: the workload, or the struct_ops map, calls the program. */
	{ BPF_PROG_TYPE_SYSCALL, PLACE_NOWHERE, NULL },
	{ BPF_PROG_TYPE_STRUCT_OPS, PLACE_NOWHERE, NULL },
};

static struct kind kind_of(const struct bpf_program *program)
{
	enum bpf_attach_type type = bpf_program__expected_attach_type(program);
	struct kind kind = { bpf_program__type(program), PLACE_UNKNOWN, NULL };

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (kinds[i].type == bpf_program__type(program))
			kind = kinds[i];
	}
	/* The workload puts these programs into maps. */
	if (type == BPF_XDP_DEVMAP || type == BPF_XDP_CPUMAP)
		kind = (struct kind){ kind.type, PLACE_NOWHERE, NULL };
	if (kind.place == PLACE_TRACE && type == BPF_LSM_CGROUP)
		return (struct kind){ kind.type, PLACE_CGROUP, "/PATH/OF/CGROUP" };
	if (kind.place == PLACE_TRACE && type == BPF_TRACE_ITER)
		kind.place = PLACE_ITER;
	if (kind.place == PLACE_KPROBE && !strncmp(bpf_program__section_name(program), "usdt", 4))
		return (struct kind){ kind.type, PLACE_USDT, "/PATH:PROVIDER:NAME" };
	if (kind.place == PLACE_KPROBE && bpf_program__section_name(program)[0] == 'u')
		return (struct kind){ kind.type, PLACE_UPROBE, "/PATH:SYMBOL" };
	return kind;
}

/* Make a point for each interface of "eth*:WORD". The name of an interface has no colon. */
static int plan_interfaces(const struct attach_options *options, struct attach_point *points, size_t room,
			   struct fault *fault)
{
	struct interface found[MAX_INTERFACES];
	struct attach_point common = points[0];
	size_t n = strcspn(common.target, ":");
	int count = targets__interfaces(common.target, n, options->deadline, found,
					room < MAX_INTERFACES ? room : MAX_INTERFACES, fault);

	for (int i = 0; i < count; i++) {
		points[i] = common;
		points[i].ifindex = found[i].index;
		snprintf(points[i].shown, sizeof(points[i].shown), "%s%.16s", found[i].name,
			 common.target + n);
	}
	return count;
}

static int plan_xdp(const struct attach_options *options, struct attach_point *points, size_t room,
		    struct fault *fault)
{
	const char *mode = strchr(points->target, ':');

	if (mode && !strcmp(mode, ":driver"))
		points->flags = XDP_FLAGS_DRV_MODE;
	else if (mode && !strcmp(mode, ":generic"))
		points->flags = XDP_FLAGS_SKB_MODE;
	else if (mode)
		return fault__usage(fault, "%.64s: not a mode of XDP; the modes are :driver and :generic",
				    points->target);
	return plan_interfaces(options, points, room, fault);
}

static int plan_clsact(const struct attach_options *options, struct attach_point *points, int count,
		       struct fault *fault)
{
	if (!options->stays)
		return fault__usage(
			fault,
			"%.64s: this kernel has no tcx (Linux 6.6), so the filter would stay after "
			"the workload; use --reload, with which the loader removes it",
			points->target);
	for (int i = 0; i < count; i++)
		points[i].place = PLACE_CLSACT;
	return count;
}

/* The section's name has the direction (tcx/egress), or the target for plain tc. */
static int plan_tcx(struct bpf_program *program, const struct attach_options *options,
		    struct attach_point *points, size_t room, struct fault *fault)
{
	enum bpf_attach_type type = points->attach_type, wanted = type;
	const char *target = points->target, *direction = strchr(target, ':');
	int count;

	if (direction && !strcmp(direction, ":ingress"))
		wanted = BPF_TCX_INGRESS;
	else if (direction && !strcmp(direction, ":egress"))
		wanted = BPF_TCX_EGRESS;
	else if (direction)
		return fault__usage(fault, "%.64s: not a direction; use :ingress or :egress", target);
	if (!wanted)
		return fault__usage(fault, "%.64s: no direction; use %.64s:ingress or %.64s:egress", target,
				    target, target);
	if (type && type != wanted)
		return fault__usage(fault, "%.64s: section %.64s has the other direction; use %.*s", target,
				    points->section, (int)(direction - target), target);
	bpf_program__set_expected_attach_type(program, wanted); /* fails only after loading */
	points->attach_type = wanted;
	count = plan_interfaces(options, points, room, fault);
	return count > 0 && tc_filter__is_needed(points) ? plan_clsact(options, points, count, fault) : count;
}

static int plan_cgroup(struct attach_point *point, struct fault *fault)
{
	struct stat st;
	int fd;

	if (point->target[0] != '/')
		return fault__usage(fault, "%.200s: not the absolute path of a cgroup", point->target);
	fd = targets__open_cgroup(point->target, fault);
	if (fd < 0)
		return fd;
	point->inode = fstat(fd, &st) ? 0 : st.st_ino;
	close(fd);
	return 1;
}

static int plan_netns(struct attach_point *point, struct fault *fault)
{
	struct stat st;

	if (!point->target)
		point->target = OWN_NETNS;
	if (point->target[0] != '/')
		return fault__usage(fault, "%.200s: not the path of a network namespace; use /run/netns/NAME",
				    point->target);
	if (access(point->target, R_OK))
		return fault__set(fault, -errno, "network namespace %.200s: %s; ip netns lists the names",
				  point->target, strerror(errno));
	point->inode = stat(point->target, &st) ? 0 : st.st_ino;
	return 1;
}

static bool is_sockmap(const struct bpf_map *map)
{
	return bpf_map__type(map) == BPF_MAP_TYPE_SOCKMAP || bpf_map__type(map) == BPF_MAP_TYPE_SOCKHASH;
}

static int plan_sockmap(struct bpf_object *object, struct attach_point *point, struct fault *fault)
{
	const struct bpf_map *map;
	size_t found = 0;

	if (point->type == BPF_PROG_TYPE_SK_SKB && !point->attach_type)
		return fault__usage(fault,
				    "section sk_skb: ambiguous; use sk_skb/verdict, sk_skb/stream_verdict or "
				    "sk_skb/stream_parser");
	bpf_object__for_each_map(map, object) {
		if (!is_sockmap(map) || (point->target && strcmp(bpf_map__name(map), point->target)))
			continue;
		point->map = map;
		found++;
	}
	if (found > 1)
		return fault__usage(fault, "the object has several sockmaps; name one: --attach PROGRAM=MAP");
	if (!found && !point->target)
		return fault__usage(
			fault, "the object has no sockmap; --attach PROGRAM=none loads the program only");
	if (!found)
		return fault__usage(fault, "%.128s: the object has no sockmap of this name", point->target);
	point->target = bpf_map__name(point->map);
	return 1;
}

/* A signed section without a function: the operator names the function, within the policy. */
static int plan_bare(struct bpf_program *program, const struct attach_options *options,
		     const struct attach_point *point, struct fault *fault)
{
	char name[256];
	int err;

	snprintf(name, sizeof(name), "%.64s/%s", point->section, point->target);
	if (strlen(point->section) + strlen(point->target) + 2 > sizeof(name))
		return fault__usage(fault, "%.64s: too long", point->target);
	if ((options->trust && !trust__allows_point(options->trust, name)) ||
	    (options->image && !trust__allows_point(options->image, name)))
		return fault__set(fault, -EKEYREJECTED,
				  "denied-by-policy: attachPoints do not include %.128s", name);
	if (point->place == PLACE_KPROBE && probes__has_pattern(point->section))
		return 1; /* a pattern */
	if (point->place == PLACE_KPROBE || point->place == PLACE_UPROBE || point->place == PLACE_USDT)
		return probes__check_probe(point, fault);
	if (point->place != PLACE_TRACE && point->place != PLACE_ITER)
		return 1;
	/* The kernel binds a program of this type to one target when it loads the program. */
	if (!bpf_program__autoattach(program))
		return fault__usage(fault, "%.128s: a program of this type has one target", point->target);
	bpf_program__set_autoattach(program, false);
	err = bpf_program__set_attach_target(program, 0, point->target);
	if (err)
		return fault__set(
			fault, err, "%.128s: %s", point->target,
			access("/sys/kernel/btf/vmlinux", R_OK) ?
				"this kernel has no BTF (CONFIG_DEBUG_INFO_BTF); use kprobe or raw_tp" :
				"this kernel has no such function; see bpftool btf dump file "
				"/sys/kernel/btf/vmlinux");
	return 1;
}

/* The section names the function, and the target the loaded program that has it. */
static int plan_function(struct bpf_program *program, const struct attach_point *point, struct fault *fault)
{
	const char *function = strchr(point->section, '/'), *name = strrchr(point->target, ':');

	if (!function || !function[1])
		return fault__usage(fault, "section %.64s names no function; use freplace/FUNCTION",
				    point->section);
	if (!name || name == point->target || !name[1])
		return fault__usage(fault, "%.200s: not OBJECT:PROGRAM", point->target);
	/* The kernel binds the program to one target when it loads the program. */
	if (!bpf_program__autoattach(program))
		return fault__usage(fault, "%.128s: a program of this type has one target", point->target);
	bpf_program__set_autoattach(program, false);
	return 1;
}

static int plan_by_section(struct bpf_object *object, struct bpf_program *program,
			   const struct attach_options *options, struct attach_point *point,
			   struct fault *fault)
{
	const char *rest = strchr(point->section, '/');

	/* An iterator over the elements of a map requires that map. */
	if (point->place == PLACE_ITER && rest && point->target) {
		point->map = bpf_object__find_map_by_name(object, point->target);
		return point->map ? 1 :
				    fault__usage(fault, "%.128s: no such map in the object", point->target);
	}
	if (rest && point->target)
		return fault__usage(fault,
				    "%.200s: section %.64s already names the target; remove it from --attach",
				    point->target, point->section);
	return rest ? 1 : plan_bare(program, options, point, fault);
}

/* Parse the FREQUENCY of one of the kernel's clocks, or the numbers TYPE:CONFIG:PERIOD of the system call. */
static int plan_perf(struct attach_point *points, size_t room, struct fault *fault)
{
	struct attach_point common = points[0];
	int cpus[ATTACH_MAX_CPUS];
	int n;

	if (!probes__parse_event(common.target, &common.event))
		return fault__usage(fault, "%.64s: not cpu-clock:FREQUENCY or TYPE:CONFIG:PERIOD",
				    common.target);
	n = probes__list_cpus(cpus, fault);
	if (n > 0 && (size_t)n > room)
		return fault__usage(fault,
				    "too many attachments: perf_event requires one for each of %d CPUs", n);
	for (int i = 0; i < n; i++) {
		points[i] = common;
		points[i].cpu = cpus[i];
		snprintf(points[i].shown, sizeof(points[i].shown), "%.30s:cpu%d", common.target, cpus[i]);
	}
	return n;
}

/* Parse FAMILY:HOOK:PRIORITY. */
static int plan_netfilter(struct attach_point *point, struct fault *fault)
{
	static const char *const hooks[] = { ":prerouting:", ":input:", ":forward:", ":output:",
					     ":postrouting:" };
	const char *rest = point->target + strcspn(point->target, ":");
	long long priority;
	char *end;

	if (!strncmp(point->target, "ipv4:", 5))
		point->family = NFPROTO_IPV4;
	else if (!strncmp(point->target, "ipv6:", 5))
		point->family = NFPROTO_IPV6;
	for (unsigned i = 0; point->family && i < sizeof(hooks) / sizeof(hooks[0]); i++) {
		size_t n = strlen(hooks[i]);

		if (strncmp(rest, hooks[i], n))
			continue;
		point->hook = i;
		priority = strtoll(rest + n, &end, 10);
		point->priority = (int)priority;
		/* What an int does not hold would be another priority, which one is up to the machine. */
		if (rest[n] && !*end && priority == point->priority)
			return 1;
	}
	return fault__usage(fault, "%.64s: not ipv4:HOOK:PRIORITY or ipv6:HOOK:PRIORITY", point->target);
}

/* Return whether a target is required, because the section names none. */
static bool wants_target(const struct attach_point *point)
{
	if (point->place == PLACE_USDT ||
	    (point->place >= PLACE_TRACE && point->place <= PLACE_ITER && point->place != PLACE_PERF))
		return !strchr(point->section, '/');
	return point->place != PLACE_NETNS && point->place != PLACE_SOCKMAP;
}

static int refuse_section(const struct attach_point *point, const char *name, struct fault *fault)
{
	return fault__usage(
		fault,
		"section %.64s has no hook that the loader knows; use --attach %.64s=none to load only",
		point->section, name);
}

bool plan__needs_target(const struct bpf_program *program)
{
	const struct kind kind = kind_of(program);
	const struct attach_point point = { .place = kind.place,
					    .section = bpf_program__section_name(program) };

	return kind.place != PLACE_NOWHERE && (!kind.wants || wants_target(&point));
}

int plan__program(struct bpf_object *object, struct bpf_program *program, const char *target,
		  const struct attach_options *options, struct attach_point *points, size_t room,
		  struct fault *fault)
{
	struct kind kind = kind_of(program);

	if (kind.place == PLACE_FUNCTION && (!target || !strcmp(target, ATTACH_NOWHERE)))
		return fault__usage(fault,
				    "section %.64s: the kernel loads the program for a target only; use "
				    "--attach %.64s=%s, "
				    "or --no-load %.64s",
				    bpf_program__section_name(program), bpf_program__name(program),
				    kind.wants, bpf_program__name(program));
	if (target ? !strcmp(target, ATTACH_NOWHERE) : kind.place == PLACE_NOWHERE)
		return 0;
	if (!room)
		return fault__usage(fault, "too many attachments");
	points[0] = (struct attach_point){
		.place = kind.place,
		.type = kind.type,
		.attach_type = bpf_program__expected_attach_type(program),
		.section = bpf_program__section_name(program),
		.target = target,
	};
	if (!kind.wants)
		return refuse_section(points, bpf_program__name(program), fault);
	if (!target && wants_target(points))
		return fault__usage(fault,
				    "no target; use --attach %.64s=%s, or --attach %.64s=none to load only",
				    bpf_program__name(program), kind.wants, bpf_program__name(program));
	switch (kind.place) {
	case PLACE_XDP:
		return plan_xdp(options, points, room, fault);
	case PLACE_TCX:
		return plan_tcx(program, options, points, room, fault);
	case PLACE_CGROUP:
		return plan_cgroup(points, fault);
	case PLACE_NETNS:
		return plan_netns(points, fault);
	case PLACE_SOCKMAP:
		return plan_sockmap(object, points, fault);
	case PLACE_PERF:
		return plan_perf(points, room, fault);
	case PLACE_NETFILTER:
		return plan_netfilter(points, fault);
	case PLACE_FUNCTION:
		return plan_function(program, points, fault);
	default:
		return plan_by_section(object, program, options, points, fault);
	}
}

/* `ip netns add` makes a plain file, and mounts the namespace over it a moment later. */
static int plan_netns_again(struct attach_point *point, struct fault *fault)
{
	struct stat there, own;
	int err = plan_netns(point, fault);

	if (err < 0)
		return err;
	if (stat(point->target, &there) || stat(OWN_NETNS, &own) || there.st_dev != own.st_dev)
		return fault__set(fault, -ENOENT, "network namespace %.200s: not mounted", point->target);
	return 1;
}

int plan__again(const struct attach_point *known, struct attach_point *points, size_t room,
		struct fault *fault)
{
	const struct attach_options now = { 0 };

	if (!room)
		return fault__usage(fault, "too many attachments");
	points[0] = *known;
	points[0].shown[0] = 0;
	switch (known->place) {
	case PLACE_XDP:
	case PLACE_TCX:
	case PLACE_CLSACT:
		return plan_interfaces(&now, points, room, fault);
	case PLACE_CGROUP:
		return plan_cgroup(points, fault);
	case PLACE_NETNS:
		return plan_netns_again(points, fault);
	default:
		points[0] = *known;
		return 1;
	}
}

int plan__map(struct bpf_map *map, const char *target, struct attach_point *point, struct fault *fault)
{
	bool nowhere = target && !strcmp(target, ATTACH_NOWHERE);

	if (bpf_map__type(map) != BPF_MAP_TYPE_STRUCT_OPS || nowhere ||
	    (!target && !bpf_map__autocreate(map)))
		return 0;
	if (target)
		return fault__usage(
			fault, "%.200s: a struct_ops map has no target; use --attach %.64s=none to omit it",
			target, bpf_map__name(map));
	/* Without a link, the map would stay registered after a killed loader. */
	if (!(bpf_map__map_flags(map) & BPF_F_LINK))
		return fault__usage(
			fault, "section .struct_ops: the map would outlive the loader; use .struct_ops.link");
	*point = (struct attach_point){
		.place = PLACE_STRUCT_OPS,
		.type = BPF_PROG_TYPE_STRUCT_OPS,
		.attach_type = BPF_STRUCT_OPS,
		.section = "struct_ops",
		.target = bpf_map__name(map),
		.map = map,
	};
	return 1;
}
