/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_ATTACH_POINT_H
#define LOADER_ATTACH_POINT_H

#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The places where programs are attached: shared by the files that plan, attach and describe them. */

struct bpf_link;
struct bpf_map;
struct bpf_object;
struct bpf_program;
struct trust;

/* The target of a program that is loaded and not attached, for example the target of a tail call. */
#define ATTACH_NOWHERE	  "none"
#define ATTACH_SHOWN_SIZE 48
#define ATTACH_MAX_CPUS	  512

/* The way in which a program is attached. Records of pins hold these numbers, so append new ones. */
enum attach_place {
	PLACE_UNKNOWN, /* only the workload can attach the program */
	PLACE_NOWHERE,
	PLACE_XDP,
	PLACE_TCX,
	PLACE_CLSACT, /* tc on a kernel without tcx: a filter, which no file descriptor keeps */
	PLACE_CGROUP,
	PLACE_NETNS,
	PLACE_SOCKMAP,
	PLACE_TRACE, /* fentry, fexit, tp_btf, lsm: the loaded program has the target */
	PLACE_RAW_TP,
	PLACE_TRACEPOINT,
	PLACE_PERF, /* perf_event: one link per CPU */
	PLACE_KPROBE,
	PLACE_UPROBE,
	PLACE_ITER,
	PLACE_NETFILTER,
	PLACE_STRUCT_OPS, /* of a map, not of a program */
	PLACE_USDT,
	PLACE_FUNCTION, /* freplace: the function of another program of the same load */
};

/* The operator's options, for all programs of a run. */
struct attach_options {
	const struct trust *trust; /* its attachPoints apply to targets of options too; or NULL */
	const struct trust *image; /* the rules of the image, which apply as well; or NULL */
	bool replace;		   /* detach another program that holds the hook */
	bool stays;		   /* the loader runs until everything is detached */
	int64_t deadline;	   /* of log__clock(): the end of the wait for an interface; 0: no wait */
};

/* The type, config, and sample_period or sample_freq of perf_event_open(2). */
struct trace_event {
	uint32_t type;
	uint64_t config, rate;
	bool is_frequency;
};

/* One place for a program; filled before anything is loaded. */
struct attach_point {
	enum attach_place place;
	enum bpf_prog_type type;
	enum bpf_attach_type attach_type;
	const char *section;	       /* of the program */
	const char *target;	       /* the given text, or NULL */
	char shown[ATTACH_SHOWN_SIZE]; /* the target that was found, if it differs: eth0 for eth* */
	const struct bpf_map *map;     /* sockmap, of an iterator, or struct_ops */
	int map_fd;		       /* of sockmap and iterator, set before attaching; else -1 */
	int ifindex;
	uint64_t inode;	   /* of the cgroup or network namespace */
	uint32_t identity; /* of clsact: project, object and program, as a hash */
	uint32_t flags;	   /* of XDP: the mode */
	int priority;	   /* of netfilter */
	unsigned family, hook;
	int cpu; /* of perf_event */
	struct trace_event event;
};

/* The resources that keep a program attached; all zero without any. */
struct attachment_handle {
	int fd; /* the link, or the descriptor that must stay open in its place; never 0 */
	bool is_link;
	struct bpf_link *owner; /* libbpf's link, which libbpf must destroy; or NULL */
	int program_fd;		/* without a link: detaching requires it */
	struct attach_point point;
	uint32_t handle, priority, program_id; /* of a clsact filter */
};

#endif
