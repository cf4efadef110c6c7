// SPDX-License-Identifier: Apache-2.0
#include "attach/probes.h"

#include "base/fault.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ONLINE_CPUS "/sys/devices/system/cpu/online"

/* Parse a number that ends at @end. */
static bool parse_number(const char *text, char end, uint64_t *number, const char **rest)
{
	char *stop;

	if (*text < '0' || *text > '9')
		return false;
	*number = strtoull(text, &stop, 0);
	*rest = stop + 1;
	return *stop == end;
}

bool probes__parse_event(const char *text, struct trace_event *event)
{
	static const char *const clocks[] = { "cpu-clock:", "task-clock:" }; /* PERF_COUNT_SW_*_CLOCK */
	uint64_t type;

	for (unsigned i = 0; i < 2; i++) {
		size_t n = strlen(clocks[i]);

		if (strncmp(text, clocks[i], n))
			continue;
		*event = (struct trace_event){ PERF_TYPE_SOFTWARE, i, 0, true };
		return parse_number(text + n, 0, &event->rate, &text) && event->rate;
	}
	if (!parse_number(text, ':', &type, &text) || type > UINT32_MAX)
		return false;
	event->type = (uint32_t)type;
	return parse_number(text, ':', &event->config, &text) && parse_number(text, 0, &event->rate, &text) &&
	       event->rate;
}

/* Read a small file of procfs or sysfs as text; stat(2) does not know the sizes of such files. */
static int read_text(const char *path, char *text, size_t room)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, text, room - 1);
	close(fd);
	text[n > 0 ? n : 0] = 0;
	return n > 0 ? 0 : -EIO;
}

/* Parse a list such as "0-3,5". */
int probes__list_cpus(int *cpus, struct fault *fault)
{
	char text[1024], *p = text;
	int n = 0, err = read_text(ONLINE_CPUS, text, sizeof(text));

	if (err)
		return fault__set(fault, err, ONLINE_CPUS ": %s", strerror(-err));
	while (*p >= '0' && *p <= '9') {
		long first = strtol(p, &p, 10), last = *p == '-' ? strtol(p + 1, &p, 10) : first;

		for (; first <= last; first++) {
			if (n == ATTACH_MAX_CPUS)
				return fault__set(fault, -E2BIG, "perf_event: more than %d CPUs",
						  ATTACH_MAX_CPUS);
			cpus[n++] = (int)first;
		}
		p += *p == ',';
	}
	return n;
}

static int open_event(const struct trace_event *event, int cpu)
{
	struct perf_event_attr attr = {
		.size = sizeof(attr),
		.type = event->type,
		.config = event->config,
		.sample_period = event->rate,
		.freq = event->is_frequency,
	};
	long fd = syscall(SYS_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC);

	return fd < 0 ? -errno : (int)fd;
}

/* The link keeps the event, so the event's own descriptor is closed. */
static int attach_event(int program_fd, const struct trace_event *event, int cpu)
{
	int fd = open_event(event, cpu), link;

	if (fd < 0)
		return fd;
	link = bpf_link_create(program_fd, fd, BPF_PERF_EVENT, NULL);
	if (link >= 0 && ioctl(fd, PERF_EVENT_IOC_ENABLE, 0)) {
		close(link);
		link = -errno;
	}
	close(fd);
	return link;
}

int probes__attach_event(int program_fd, const struct attach_point *point)
{
	return attach_event(program_fd, &point->event, point->cpu);
}

int probes__attach_tracepoint(int program_fd, const struct attach_point *point, struct fault *fault)
{
	static const char *const roots[] = { "/sys/kernel/tracing", "/sys/kernel/debug/tracing" };
	const char *rest = strchr(point->section, '/'), *name = rest ? rest + 1 : point->target;
	struct trace_event event = { PERF_TYPE_TRACEPOINT, 0, 1, false };
	char path[256], text[32];
	int err = -ENOENT;

	for (size_t i = 0; err && i < sizeof(roots) / sizeof(roots[0]); i++) {
		int n = snprintf(path, sizeof(path), "%s/events/%s/id", roots[i], name);

		if (n < (int)sizeof(path) && !strstr(path, "/../"))
			err = read_text(path, text, sizeof(text));
	}
	if (err)
		return fault__set(
			fault, err, "tracepoint %.128s: %s: %s", name, strerror(-err),
			err == -EACCES ?
				"tracefs belongs to root; add CAP_DAC_READ_SEARCH, or use raw_tp" :
			access("/sys/kernel/tracing/events", X_OK) ?
				"tracefs is not mounted, or not readable; mount it at /sys/kernel/tracing" :
				"this kernel has no such tracepoint; see /sys/kernel/tracing/events");
	event.config = strtoull(text, NULL, 10);
	return attach_event(program_fd, &event, 0);
}

/* The parts of "/path:symbol+0x10@123". */
struct probe {
	char text[1024];
	char *path, *symbol; /* symbol: NULL for a plain offset */
	size_t offset;
	int pid; /* -1: any */
};

static bool parse_probe(const char *target, bool has_path, struct probe *probe)
{
	char *at, *rest;
	uint64_t number = 0;
	const char *end;

	if (strlen(target) >= sizeof(probe->text))
		return false;
	strcpy(probe->text, target);
	probe->pid = -1;
	probe->offset = 0;
	probe->path = probe->symbol = probe->text;
	at = has_path ? strrchr(probe->text, '@') : NULL;
	if (at) {
		*at = 0;
		if (!parse_number(at + 1, 0, &number, &end) || !number || number > INT32_MAX)
			return false;
		probe->pid = (int)number;
	}
	if (has_path) {
		rest = strrchr(probe->text, ':');
		if (!rest || probe->text[0] != '/')
			return false;
		*rest = 0;
		probe->symbol = rest + 1;
	}
	if (parse_number(probe->symbol, 0, &number, &end)) {
		probe->symbol = NULL;
		probe->offset = (size_t)number;
		return has_path && number <= SIZE_MAX;
	}
	at = strchr(probe->symbol, '+');
	if (at) {
		*at = 0;
		if (!parse_number(at + 1, 0, &number, &end) || number > SIZE_MAX)
			return false;
		probe->offset = (size_t)number;
	}
	return probe->symbol[0] != 0;
}

static bool is_return(const char *section)
{
	return !strncmp(section + 1, "ret", 3);
}

/* The parts of "/path:provider:name@123". */
struct usdt {
	char text[1024];
	char *path, *provider, *name;
	int pid; /* -1: any */
};

static bool parse_usdt(const char *target, struct usdt *usdt)
{
	char *at, *provider, *name;
	const char *end;
	uint64_t number;

	if (strlen(target) >= sizeof(usdt->text))
		return false;
	strcpy(usdt->text, target);
	usdt->pid = -1;
	at = strrchr(usdt->text, '@');
	if (at) {
		*at = 0;
		if (!parse_number(at + 1, 0, &number, &end) || !number || number > INT32_MAX)
			return false;
		usdt->pid = (int)number;
	}
	name = strrchr(usdt->text, ':');
	if (!name)
		return false;
	*name++ = 0;
	provider = strrchr(usdt->text, ':');
	if (!provider)
		return false;
	*provider++ = 0;
	usdt->path = usdt->text;
	usdt->provider = provider;
	usdt->name = name;
	return usdt->path[0] == '/' && *provider && *name;
}

static int check_usdt(const struct attach_point *point, struct fault *fault)
{
	struct usdt usdt;

	if (parse_usdt(point->target, &usdt))
		return 1;
	return fault__usage(fault, "%.200s: not /PATH:PROVIDER:NAME[@PID]", point->target);
}

int probes__check_probe(const struct attach_point *point, struct fault *fault)
{
	bool has_path = point->place == PLACE_UPROBE;
	struct probe probe;

	if (point->place == PLACE_USDT)
		return check_usdt(point, fault);
	if (parse_probe(point->target, has_path, &probe))
		return 1;
	return fault__usage(fault, "%.200s: not %s", point->target,
			    has_path ? "/PATH:SYMBOL[+OFFSET][@PID] or /PATH:OFFSET[@PID]" :
				       "FUNCTION[+OFFSET]");
}

bool probes__has_pattern(const char *section)
{
	return strstr(section, ".multi") || strstr(section, ".session");
}

struct bpf_link *probes__attach_kprobe(struct bpf_program *program, const struct attach_point *point)
{
	bool is_ret = is_return(point->section);
	LIBBPF_OPTS(bpf_kprobe_multi_opts, multi, .retprobe = is_ret,
		    .session = strstr(point->section, ".session"));
	LIBBPF_OPTS(bpf_ksyscall_opts, ksyscall, .retprobe = is_ret);
	LIBBPF_OPTS(bpf_kprobe_opts, opts, .retprobe = is_ret);
	struct probe probe;

	if (!point->target)
		return bpf_program__attach(program);
	if (probes__has_pattern(point->section))
		return bpf_program__attach_kprobe_multi_opts(program, point->target, &multi);
	if (strstr(point->section, "syscall"))
		return bpf_program__attach_ksyscall(program, point->target, &ksyscall);
	parse_probe(point->target, false, &probe);
	opts.offset = probe.offset;
	return bpf_program__attach_kprobe_opts(program, probe.symbol, &opts);
}

struct bpf_link *probes__attach_uprobe(struct bpf_program *program, const struct attach_point *point)
{
	LIBBPF_OPTS(bpf_uprobe_multi_opts, multi, .retprobe = is_return(point->section),
		    .session = strstr(point->section, ".session"));
	LIBBPF_OPTS(bpf_uprobe_opts, opts, .retprobe = is_return(point->section));
	struct probe probe;

	if (!point->target)
		return bpf_program__attach(program);
	parse_probe(point->target, true, &probe);
	if (probes__has_pattern(point->section))
		return bpf_program__attach_uprobe_multi(program, probe.pid, probe.path, probe.symbol, &multi);
	opts.func_name = probe.symbol;
	return bpf_program__attach_uprobe_opts(program, probe.pid, probe.path, probe.offset, &opts);
}

struct bpf_link *probes__attach_usdt(struct bpf_program *program, const struct attach_point *point)
{
	struct usdt usdt;

	if (!point->target)
		return bpf_program__attach(program);
	parse_usdt(point->target, &usdt);
	return bpf_program__attach_usdt(program, usdt.pid, usdt.path, usdt.provider, usdt.name, NULL);
}
