/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_ATTACH_POINT_H
#define LOADER_ATTACH_POINT_H

#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The places where programs are attached, for the files that find, take and name them. */

struct bpf_link;
struct bpf_map;
struct bpf_object;
struct bpf_program;
struct trust;

/* A target that means: load the program, attach it nowhere (a tail call's target, for example). */
#define ATTACH_NOWHERE	  "none"
#define ATTACH_SHOWN_SIZE 48
#define ATTACH_MAX_CPUS	  512

/* How a program gets to its place. Records of pins have these numbers: new ones come last. */
enum attach_place {
	PLACE_UNKNOWN, /* the workload attaches it, by means of its own */
	PLACE_NOWHERE,
	PLACE_XDP,
	PLACE_TCX,
	PLACE_CLSACT, /* tc on a kernel without tcx: a filter, which no file descriptor holds */
	PLACE_CGROUP,
	PLACE_NETNS,
	PLACE_SOCKMAP,
	PLACE_TRACE, /* fentry, fexit, tp_btf, lsm: what the loaded program says */
	PLACE_RAW_TP,
	PLACE_TRACEPOINT,
	PLACE_PERF, /* perf_event: one link per CPU */
	PLACE_KPROBE,
	PLACE_UPROBE,
	PLACE_ITER,
	PLACE_NETFILTER,
	PLACE_STRUCT_OPS, /* a map's, not a program's */
};

/* What the operator allows, for all programs of a run. */
struct attach_options {
	const struct trust *trust; /* its attachPoints hold for targets that are given later, too; or NULL */
	const struct trust *image; /* the image's rules beside them, or NULL */
	bool replace;		   /* take a hook that a foreign program holds */
	bool stays;		   /* the loader is there until everything is detached */
	int64_t deadline;	   /* of log__clock(): until then an interface may appear; 0: now */
};

/* What perf_event_open(2) calls type, config, and sample_period or sample_freq. */
struct trace_event {
	uint32_t type;
	uint64_t config, rate;
	bool is_frequency;
};

/* One place where a program is to be attached; filled before anything is loaded. */
struct attach_point {
	enum attach_place place;
	enum bpf_prog_type type;
	enum bpf_attach_type attach_type;
	const char *section;	       /* of the program */
	const char *target;	       /* as it was given, or NULL */
	char shown[ATTACH_SHOWN_SIZE]; /* what it came to, where that differs: eth0 for eth* */
	const struct bpf_map *map;     /* sockmap, of an iterator, or struct_ops */
	int map_fd;		       /* of the first two, filled before attaching; -1: there is none */
	int ifindex;
	uint32_t identity; /* of clsact: project, object and program, as a hash */
	uint32_t flags;	   /* of XDP: the mode */
	int priority;	   /* of netfilter */
	unsigned family, hook;
	int cpu; /* of perf_event */
	struct trace_event event;
};

/* What keeps a program attached. Zeroed: nothing. */
struct attachment_handle {
	int fd; /* the link; or, where there is none, what must stay open: 0 is never one */
	bool is_link;
	struct bpf_link *owner; /* what libbpf has to take away with it, or NULL */
	int program_fd;		/* without a link: for detaching */
	struct attach_point point;
	uint32_t handle, priority, program_id; /* of a clsact filter */
};

#endif
