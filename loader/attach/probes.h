/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_ATTACH_PROBES_H
#define LOADER_ATTACH_PROBES_H

#include "attach/point.h"
#include "base/fault.h"

/* Parse cpu-clock:FREQUENCY, task-clock:FREQUENCY or TYPE:CONFIG:PERIOD. */
bool probes__parse_event(const char *text, struct trace_event *event);

/* List the online CPUs, at most ATTACH_MAX_CPUS. Returns their number or a negative errno. */
int probes__list_cpus(int *cpus, struct fault *fault);

/* Check that a probe's target can be parsed. Returns 1 or -EINVAL with the text set. */
int probes__check_probe(const struct attach_point *point, struct fault *fault);

/* Attach by a perf event. Each returns the descriptor of a link or a negative errno. */
int probes__attach_tracepoint(int program_fd, const struct attach_point *point, struct fault *fault);
int probes__attach_event(int program_fd, const struct attach_point *point);

/* Return whether programs of the section are attached to all symbols of a pattern by one link. */
bool probes__has_pattern(const char *section);

/* Attach by libbpf. Each returns libbpf's link, or NULL with errno set. */
struct bpf_link *probes__attach_kprobe(struct bpf_program *program, const struct attach_point *point);
struct bpf_link *probes__attach_uprobe(struct bpf_program *program, const struct attach_point *point);
struct bpf_link *probes__attach_usdt(struct bpf_program *program, const struct attach_point *point);

#endif
