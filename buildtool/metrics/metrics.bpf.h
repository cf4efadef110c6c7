/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Declares metrics in the object itself: the object's signature covers them, and readers of its maps such as
 * `buildtool metrics` need no other description. The form of the tags is in spec/metrics.md of buildtool.
 *
 *	struct {
 *		__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
 *		__uint(max_entries, 1024);
 *		__type(key, struct flow);
 *		__type(value, struct counts);
 *	} flows SEC(".maps")
 *		METRIC_COUNTER(flow_packets_total, "value=packets label=protocol", "Packets of a flow")
 *		METRIC_COUNTER(flow_bytes_total, "value=bytes unit=bytes label=protocol", "Their bytes");
 *
 *	__u64 lost METRIC_COUNTER(flow_lost_total, "", "Packets without room in the map");
 *
 * Place a macro after the name of a map (behind SEC), of a global variable, or of a member of a map's value.
 * A metric of a member names no value= of its own.
 */
#ifndef BUILDTOOL_METRICS_BPF_H
#define BUILDTOOL_METRICS_BPF_H

#ifndef __has_attribute
#define __has_attribute(name) 0
#endif
#if !__has_attribute(btf_decl_tag)
#error "metrics.bpf.h: the compiler has no btf_decl_tag; clang 14 and newer have it"
#endif

/* The text of one tag. The macros below write it. */
#define METRIC_TAG(text)		     __attribute__((btf_decl_tag(text)))
#define METRIC_OF(name, kind, options, help) METRIC_TAG("metric: " #name " " kind " " options " help " help)

/* A number that only rises; its name ends in _total. */
#define METRIC_COUNTER(name, options, help) METRIC_OF(name, "counter", options, help)
/* A number that rises and falls. */
#define METRIC_GAUGE(name, options, help) METRIC_OF(name, "gauge", options, help)
/* A histogram whose slot n counts 2^n <= value < 2^(n+1), and 0 in slot 0. */
#define METRIC_LOG2(name, options, help) METRIC_OF(name, "log2", options, help)
/* A histogram whose slot n counts start + n * step <= value < start + (n + 1) * step. */
#define METRIC_LINEAR(name, options, help) METRIC_OF(name, "linear", options, help)
/* The number 1 with labels; its name ends in _info. */
#define METRIC_INFO(name, options, help) METRIC_OF(name, "info", options, help)

/* A label of all metrics of a map, at a member of its key: METRIC_LABEL(interface:ifname). */
#define METRIC_LABEL(label) METRIC_TAG("metric-label: " #label)

/*
 * The entries of a map in place of __uint(max_entries, count). The object keeps the names of the enum's
 * values, which label=NAME=key:enum(ENUM) needs: the key of an array must be an integer.
 */
#define METRIC_ENTRIES(enumeration, count) enumeration(*max_entries)[count]

#endif
