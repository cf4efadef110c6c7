// SPDX-License-Identifier: Apache-2.0
#include "run/metrics.h"

#include "base/arch.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/log.h"
#include "base/version.h"
#include "load/load.h"
#include "verify/verdict.h"
#include "verify/verify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define TEXT_SIZE 8192
#define SECOND	  1000000
#define REASONS	  (REASON_TOO_LARGE + 1)

static const char *const outcomes[] = { "updated", "unchanged", "kept" };

#define OUTCOMES (sizeof(outcomes) / sizeof(outcomes[0]))

static struct {
	const char *path, *name; /* as given, and without the directory */
	char *temporary;
	int directory;
	time_t began;
	int64_t began_clock, ready_after, verify_time, load_time, attach_time;
	size_t verifications[REASONS], reloads[OUTCOMES], errors;
	struct load_counts loaded;
	bool ready;
	char policy[2 * DIGEST_SIZE + 1];
} m;

static char text[TEXT_SIZE];
static size_t text_size;

__attribute__((format(printf, 1, 2))) static void add(const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(text + text_size, TEXT_SIZE - text_size, format, args);
	va_end(args);
	if (n > 0 && (size_t)n < TEXT_SIZE - text_size)
		text_size += (size_t)n;
}

static void add_head(const char *name, const char *type, const char *help)
{
	add("# HELP buildtool_%s %s\n# TYPE buildtool_%s %s\n", name, help, name, type);
}

static void add_value(const char *name, const char *type, const char *help, int64_t value)
{
	add_head(name, type, help);
	add("buildtool_%s %lld\n", name, (long long)value);
}

static void add_seconds(const char *name, const char *type, const char *help, int64_t value)
{
	add_head(name, type, help);
	add("buildtool_%s %lld.%06lld\n", name, (long long)(value / SECOND), (long long)(value % SECOND));
}

static void format_metrics(void)
{
	text_size = 0;
	add_head("info", "gauge", "What runs: version, platform and policy digest.");
	add("buildtool_info{version=\"%s\",platform=\"%s\",policy=\"%s\"} 1\n", LOADER_VERSION, PLATFORM,
	    m.policy);
	add_head("verifications_total", "counter", "Objects verified, by result and reason of refusal.");
	for (int i = 0; i < REASONS; i++)
		add("buildtool_verifications_total{result=\"%s\",reason=\"%s\"} %zu\n",
		    i ? "refused" : "accepted", i ? verdict__word((enum reason)i) : "", m.verifications[i]);
	add_seconds("verify_seconds_total", "counter", "Time taken to read and verify.", m.verify_time);
	add_seconds("load_seconds_total", "counter", "Time the kernel took to load.", m.load_time);
	add_seconds("attach_seconds_total", "counter", "Time taken to attach.", m.attach_time);
	add_value("ready", "gauge", "1 while everything is attached.", m.ready);
	add_value("start_time_seconds", "gauge", "When the loader began, since 1970.", m.began);
	add_seconds("start_duration_seconds", "gauge", "From its beginning to ready.", m.ready_after);
	add_value("objects_loaded", "gauge", "Objects in the kernel.", m.loaded.objects);
	add_value("programs_loaded", "gauge", "Programs in the kernel.", m.loaded.programs);
	add_value("maps_loaded", "gauge", "Maps in the kernel.", m.loaded.maps);
	add_value("attachments", "gauge", "Attached programs, each place counted.", m.loaded.attachments);
	add_value("attachments_lost", "gauge", "Targets where nothing is attached.", m.loaded.lost);
	add_head("reloads_total", "counter", "Reloads after SIGHUP, by outcome.");
	for (size_t i = 0; i < OUTCOMES; i++)
		add("buildtool_reloads_total{outcome=\"%s\"} %zu\n", outcomes[i], m.reloads[i]);
	add_value("errors_total", "counter", "Lines of the event error.", m.errors);
}

static int fail(int err, struct fault *fault)
{
	bool denied = err == -EACCES || err == -EPERM;

	fault__set(fault, err, "metrics %.200s: %s", m.path, strerror(-err));
	if (denied)
		fault__set(fault, err, "metrics %.200s: %s; run chown %u on its directory", m.path,
			   strerror(-err), geteuid());
	return err;
}

int metrics__begin(const char *path, struct fault *fault)
{
	const char *slash = path ? strrchr(path, '/') : NULL;
	char *parent;

	m.path = path;
	m.began = time(NULL);
	m.began_clock = log__clock();
	if (!path)
		return 0;
	log__set_observer(metrics__observe);
	m.name = slash ? slash + 1 : path;
	/* Collectors read *.prom and skip hidden files, so they never see an unfinished one. */
	parent =
		slash == path ? strdup("/") : strndup(slash ? path : ".", slash ? (size_t)(slash - path) : 1);
	if (!parent || asprintf(&m.temporary, ".%s.%d", m.name, (int)getpid()) < 0) {
		free(parent);
		return fault__set(fault, -ENOMEM, "out of memory");
	}
	m.directory = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
	free(parent);
	return m.directory < 0 ? fail(-errno, fault) : 0;
}

static void count_decision(const struct log_line *line, int64_t duration)
{
	m.verify_time += duration;
	for (int i = REASON_NONE; line->reason && i < REASONS; i++)
		m.verifications[i] += i && !strcmp(line->reason, verdict__word((enum reason)i));
	m.verifications[REASON_NONE] += !line->reason;
	for (size_t i = 0; line->policy && i < DIGEST_SIZE; i++)
		snprintf(m.policy + 2 * i, 3, "%02x", line->policy[i]);
}

void metrics__observe(const struct log_line *line, int64_t duration)
{
	if (!strcmp(line->event, "verify"))
		count_decision(line, duration);
	else if (!strcmp(line->event, "load"))
		m.load_time += duration;
	else if (!strcmp(line->event, "attach"))
		m.attach_time += duration;
	else if (!strcmp(line->event, "error"))
		m.errors++;
	else if (!strcmp(line->event, "ready"))
		m.ready_after = log__clock() - m.began_clock;
	for (size_t i = 0; line->outcome && i < OUTCOMES; i++)
		m.reloads[i] += !strcmp(line->outcome, outcomes[i]);
}

void metrics__set_load(const struct load *load)
{
	m.loaded = load && m.path ? load__count(load) : (struct load_counts){ 0 };
	m.ready = load && !m.loaded.lost;
}

static int replace_file(int fd)
{
	int err = 0;

	/* A node exporter runs as another user. */
	if (fchmod(fd, 0644) || write(fd, text, text_size) != (ssize_t)text_size)
		err = errno ? -errno : -ENOSPC;
	close(fd);
	if (!err && renameat(m.directory, m.temporary, m.directory, m.name))
		err = -errno;
	if (err)
		unlinkat(m.directory, m.temporary, 0);
	return err;
}

int metrics__write(struct fault *fault)
{
	int fd, err;

	if (!m.path)
		return 0;
	format_metrics();
	errno = 0;
	fd = file__create(m.directory, m.temporary, 0600);
	err = fd < 0 ? fd : replace_file(fd);
	return err ? fail(err, fault) : 0;
}
