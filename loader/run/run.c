// SPDX-License-Identifier: Apache-2.0
#include "run/run.h"

#include "attach/attach.h"
#include "attach/changes.h"
#include "base/arch.h"
#include "base/capabilities.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/signals.h"
#include "load/load.h"
#include "run/attach_file.h"
#include "run/candidate.h"
#include "run/confine.h"
#include "run/environment.h"
#include "run/handover.h"
#include "run/health.h"
#include "run/metrics.h"
#include "run/privileges.h"
#include "run/settings_file.h"
#include "run/supervise.h"
#include "run/workload.h"

#include <errno.h>
#include <linux/capability.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MASK(cap) (UINT64_C(1) << (cap))

/* The loaded set, and the means of a reload. */
struct session {
	const struct options *options;
	struct load *load;
	uint8_t fingerprint[FINGERPRINT_SIZE];
	struct confinement confinement; /* of the workload */
	struct changes changes;		/* news about targets, for a loader that stays */
	uint64_t held; /* capabilities: all of the container's at first, then those that are kept */
};

static int refuse(const struct fault *fault)
{
	log__write(&(struct log_line){ .event = "refuse", .message = fault->text });
	return EXIT_REFUSED;
}

/* The new set stays only if the health command succeeds and the versions can be written. */
struct acceptance {
	const struct session *session;
	struct candidate *candidate;
};

static int accept(void *context, struct fault *fault)
{
	const struct acceptance *a = context;
	const struct options *o = a->session->options;
	struct confinement confinement;
	int err = 0;

	if (o->health_command)
		err = confine__plan(&confinement, o, getpid(), fault);
	if (!err && o->health_command)
		err = health__check(o->health_command, o->health_wait, &confinement, fault);
	return err ? err : candidate__remember(a->candidate, fault);
}

/* Add the capabilities that the kernel's answer is about, if they are missing. */
static void explain_capabilities(const struct candidate *c, struct fault *fault)
{
	uint64_t asked = fault->capabilities;

	privileges__explain(asked && asked != FAULT_ANY_CAPABILITY ? asked : candidate__needs(c), fault);
}

static bool stays(const struct options *o)
{
	return o->reload || !o->workload;
}

/* Return the options for loading that do not depend on the candidate. */
static struct load_options describe_load(const struct options *o)
{
	return (struct load_options){
		.selection = options__selection(o),
		.settings = o->settings,
		.setting_count = o->setting_count,
		.pin_root = o->pin_root,
		.share = o->share,
		.may_update = o->reload,
		.rules = { .replace = o->replace, .stays = stays(o) },
	};
}

/* Load the candidate, in place of the old set, and remember its versions. */
static int put_in_place(struct session *s, struct candidate *c, struct fault *fault)
{
	const struct options *o = s->options;
	struct acceptance acceptance = { .session = s, .candidate = c };
	struct load_options options = describe_load(o);
	const struct verified_object *inputs = candidate__inputs(c);
	size_t count = c->set.count;
	int err = o->health_command ? health__parse(o->health_command, fault) : 0;

	if (err)
		return err;
	options.allow_rollback = c->trust.allow_rollback;
	options.accept = accept;
	options.context = &acceptance;
	if (c->btf.fd) {
		options.btf_path = c->btf.path;
		options.btf_digest = c->btf.set.items[0].verdict.digest;
	}
	options.rules.trust = &c->trust;
	options.rules.image = candidate__image(c);
	if (o->wait_interface)
		options.rules.deadline = log__clock() + o->wait_interface * INT64_C(1000000);
	if (!inputs)
		return fault__set(fault, -ENOMEM, "out of memory");
	err = s->load ? load__update(&s->load, inputs, count, &options, fault) :
			load__start(&s->load, inputs, count, &options, fault);
	if (err == -EPERM || (err && fault->capabilities))
		explain_capabilities(c, fault);
	/* Only a reload compares this hash, so compute it only then. */
	if (!err && o->reload)
		candidate__fingerprint(c, s->fingerprint);
	return err;
}

/* The objects are the same. Their targets may have gone and come since. */
static const char *reload_unchanged(struct session *s, struct fault *fault)
{
	const struct load_options options = describe_load(s->options);
	bool changed;
	int err = load__refresh(&s->load, &options, true, true, &changed, fault);

	if (err)
		return "kept";
	return changed ? "updated" : "unchanged";
}

static const char *try_reload(struct session *s, struct candidate *c, struct fault *fault)
{
	uint8_t fingerprint[FINGERPRINT_SIZE];
	uint64_t missing;

	if (candidate__verify(c, s->options, fault))
		return "kept";
	candidate__fingerprint(c, fingerprint);
	if (!memcmp(fingerprint, s->fingerprint, sizeof(fingerprint)))
		return reload_unchanged(s, fault);
	missing = capabilities__missing(candidate__needs(c), s->held);
	if (missing) {
		char names[CAPABILITIES_TEXT_SIZE];

		capabilities__format(missing, "CAP_", names);
		fault__set(fault, -EPERM,
			   "the new objects need %s, which the loader dropped at its start; restart the "
			   "container",
			   names);
		return "kept";
	}
	return put_in_place(s, c, fault) ? "kept" : "updated";
}

/* Reload the objects. The old set stays attached after any failure. */
static void reload(void *context)
{
	struct session *s = context;
	int64_t started = log__clock();
	struct fault fault = { 0 };
	struct candidate c;
	const char *outcome = "kept";

	if (s->options->reload)
		outcome = try_reload(s, &c, &fault);
	else
		fault__set(&fault, -EPERM,
			   "SIGHUP has no effect without --reload: the capabilities are dropped");
	log__write(&(struct log_line){ .event = "reload",
				       .outcome = outcome,
				       .message = fault.text[0] ? fault.text : NULL,
				       .started = started });
	if (s->options->reload)
		candidate__free(&c);
	malloc_trim(0); /* the next reload may be far away */
	metrics__set_load(s->load);
	if (metrics__write(&fault))
		log__fail(&fault);
}

/* An interface, a cgroup or a namespace may have gone or come. With --reload, attach again. */
static void look(void *context)
{
	struct session *s = context;
	struct load_options options = describe_load(s->options);
	struct fault fault = { 0 };
	bool changed;

	/* First the news, then the look: a change after it is news again. */
	changes__take(&s->changes);
	load__visit_paths(s->load, changes__watch, &s->changes);
	/* Two loaders that replace each other's programs would never end. */
	options.rules.replace = false;
	load__refresh(&s->load, &options, s->options->reload, false, &changed, &fault);
	if (!changed)
		return;
	malloc_trim(0);
	metrics__set_load(s->load);
	if (metrics__write(&fault))
		log__fail(&fault);
}

/* Wait for the end of the workload (0: for a signal). */
static int supervise(struct session *s, pid_t workload)
{
	const struct supervise_events events = {
		.reload = reload,
		.look = look,
		.fds = s->changes.fds,
		.count = CHANGES_COUNT,
		.context = s,
	};

	look(s);
	return supervise__wait(workload, &events);
}

/* Return the capabilities that loading needs, and those of --capabilities. */
static uint64_t find_asked(const struct session *s, uint64_t needs)
{
	uint64_t asked = needs | s->options->capabilities | confine__needs(&s->confinement);

	if (capabilities__missing(needs, s->held) != (needs & ~s->held))
		asked |= MASK(CAP_SYS_ADMIN); /* it includes missing ones */
	return asked;
}

/* Write that the start is done. @needs are the capabilities of the programs, @unneeded what else was there.
 */
static void report_ready(uint64_t needs, uint64_t unneeded, int64_t started)
{
	char names[CAPABILITIES_TEXT_SIZE], surplus[CAPABILITIES_TEXT_SIZE];

	capabilities__format(needs, "", names);
	capabilities__format(unneeded, "", surplus);
	log__write(&(struct log_line){ .event = "ready",
				       .platform = PLATFORM,
				       .capabilities = names,
				       .unneeded = surplus[0] ? surplus : NULL,
				       .started = started });
}

/* After everything is attached, keep only the capabilities that are needed from now on. */
static int get_ready(struct session *s, const struct candidate *c, int64_t started, struct fault *fault)
{
	uint64_t needs = candidate__needs(c), asked = find_asked(s, needs), unneeded = s->held & ~asked;
	int err;

	s->held &= (s->options->reload ? asked : 0) | attach__detaching_needs() |
		   confine__needs(&s->confinement);
	err = privileges__keep(s->held, fault);
	if (err)
		return err;
	report_ready(needs, unneeded, started);
	metrics__set_load(s->load);
	return metrics__write(fault);
}

/* The workload did not start: say what the pins keep attached without it. */
static void add_what_stays(const struct options *o, struct fault *fault)
{
	size_t n = strlen(fault->text);

	if (o->pin_root)
		snprintf(fault->text + n, sizeof(fault->text) - n,
			 "; the pinned programs stay attached: ebpf-pins detach --pin-root %.200s",
			 o->pin_root);
}

/* Execute the workload, or start and supervise it. Returns its exit code, or 1 or 2 with the text set. */
static int run_workload(struct session *s, const char *path, struct fault *fault)
{
	const struct options *o = s->options;
	const struct workload workload = { .path = path, .argv = o->workload, .confinement = s->confinement };
	pid_t child;

	if (environment__export_maps(o->no_map_fds ? NULL : s->load, fault))
		return fault__code(fault);
	/* Handle a SIGHUP from the time of the load: it would end the workload, which has no handler yet. */
	if (!o->reload && signals__take_hangup())
		reload(s);
	log__write(&(struct log_line){ .event = "exec", .target = path });
	if (o->reload) {
		signals__block(true);
		if (!workload__start(&workload, &child, fault))
			return supervise(s, child);
	} else if (!load__keep_over_exec(s->load, fault)) {
		workload__become(&workload, fault);
	}
	add_what_stays(o, fault);
	return fault__code(fault);
}

static int go_on(struct session *s, const char *workload, struct fault *fault)
{
	int code;

	log__bound(true);
	if (signals__stop_is_pending())
		code = EXIT_DONE;
	else
		code = workload ? run_workload(s, workload, fault) : supervise(s, 0);
	log__bound(false);
	return code;
}

/* What confinement takes is known before anything is loaded. */
static int plan_confinement(struct session *s, uint64_t needs, struct fault *fault)
{
	char names[CAPABILITIES_TEXT_SIZE];
	uint64_t missing;
	int err = confine__plan(&s->confinement, s->options, s->options->reload ? getpid() : 0, fault);

	if (err)
		return err;
	missing = capabilities__missing(confine__needs(&s->confinement), s->held);
	capabilities__format(missing, "CAP_", names);
	if (missing)
		return fault__set(fault, -EPERM, "--workload-user requires %s", names);
	return s->options->workload ? privileges__check_bounds(find_asked(s, needs), fault) : 0;
}

static int load_and_run(struct session *s, struct candidate *c, const char *workload)
{
	int64_t started = log__clock();
	struct fault fault = { 0 };
	int code = EXIT_DONE, err = 0;

	if (workload || s->options->health_command)
		err = plan_confinement(s, candidate__needs(c), &fault);
	/* Before the look at the targets, so that no later change is missed. */
	if (!err && stays(s->options) && changes__open(&s->changes, &fault)) {
		log__fail(&fault);
		fault.text[0] = 0;
	}
	if (!err)
		err = put_in_place(s, c, &fault);
	if (!err)
		err = get_ready(s, c, started, &fault);
	/* Free the objects' bytes now, if this process stays. An exec would free them by itself. */
	if (!workload || s->options->reload)
		candidate__free(c);
	/* SIGTERM during the wait for an interface is a normal end, like SIGTERM after the start. */
	if (err == -EINTR && signals__stop_is_pending())
		fault.text[0] = 0;
	else
		code = err ? fault__code(&fault) : go_on(s, workload, &fault);
	load__stop(s->load);
	metrics__set_load(NULL);
	candidate__free(c);
	if (err == -EKEYREJECTED)
		return refuse(&fault);
	return fault.text[0] ? log__fail(&fault) : code;
}

/* Pass the verified objects to the workload, with the capabilities that loading them requires. */
static int hand_over(struct session *s, struct candidate *c, const char *path, struct fault *fault)
{
	const struct options *o = s->options;
	uint64_t needs = candidate__needs(c), asked;
	struct workload workload = { .path = path, .argv = o->workload };
	int64_t started = log__clock();
	int err = plan_confinement(s, needs, fault);

	if (!err && capabilities__missing(needs, s->held)) {
		err = fault__set(fault, -EPERM, "the workload cannot load the objects");
		privileges__explain(needs, fault);
	}
	/* All that can fail comes before the versions are remembered. */
	if (!err)
		err = privileges__check_hand_over(fault);
	if (!err)
		err = handover__export(&c->set, fault);
	if (!err && c->btf.fd)
		err = environment__export_types(c->btf.fd, fault);
	if (!err)
		err = candidate__remember(c, fault);
	if (err)
		return fault__code(fault);
	asked = find_asked(s, needs);
	workload.confinement = s->confinement;
	workload.confinement.keep = s->held & (needs | o->capabilities | (asked & MASK(CAP_SYS_ADMIN)));
	report_ready(needs, s->held & ~asked, started);
	if (metrics__write(fault))
		return fault__code(fault);
	/* SIGHUP from before would end the workload, which has no handler yet. */
	signals__take_hangup();
	if (signals__stop_is_pending())
		return EXIT_DONE;
	log__write(&(struct log_line){ .event = "exec", .target = path });
	workload__become(&workload, fault);
	return fault__code(fault);
}

static int verify_and_run(struct session *s, const char *workload)
{
	const struct options *o = s->options;
	struct fault fault = { 0 };
	struct candidate c;
	int code = candidate__verify(&c, o, &fault);

	if (code == EXIT_REFUSED)
		refuse(&fault);
	else if (code && fault.text[0])
		log__fail(&fault);
	else if (!code && o->hand_over && !o->verify_only)
		code = hand_over(s, &c, workload, &fault) ? log__fail(&fault) : EXIT_DONE;
	else if (!code && !o->verify_only)
		return load_and_run(s, &c, workload);
	else if (!code && candidate__remember(&c, &fault))
		code = log__fail(&fault);
	candidate__free(&c);
	return code;
}

/*
 * Write the first metrics with the capabilities that the next ones are written with. Root's would write to
 * another user's directory now, and fail after everything is attached.
 */
static int begin_metrics(const struct options *o, struct fault *fault)
{
	int err = metrics__begin(o->metrics_file, fault);

	if (!err && o->metrics_file && !o->verify_only)
		privileges__lower(o->reload ? o->capabilities : 0);
	return err ? err : metrics__write(fault);
}

int run__all(struct options *o)
{
	struct session session = { .options = o };
	struct fault fault = { 0 };
	char *workload = NULL;
	int code;

	if (!o->verify_only && (attach_file__read(o, &fault) || settings_file__read(o, &fault)))
		return log__fail(&fault);
	options__settle_attach(o);
	if (o->workload && !(workload = workload__find(o->workload[0], &fault)))
		return log__fail(&fault);
	if (begin_metrics(o, &fault)) {
		free(workload);
		return log__fail(&fault);
	}
	if (!o->verify_only)
		session.held = privileges__raise();
	code = verify_and_run(&session, workload);
	/* The first failure decides the exit code. */
	if (metrics__write(&fault) && !code)
		code = log__fail(&fault);
	free(workload);
	return code;
}
