// SPDX-License-Identifier: Apache-2.0
#include "file.h"
#include "load.h"
#include "log.h"
#include "options.h"
#include "privileges.h"
#include "set.h"
#include "state.h"
#include "version.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* The same in the command line tool; 126, 127 and 128+n belong to tini. */
enum exit_code { EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_REFUSED };

#if defined(__x86_64__)
#define PLATFORM "linux/amd64"
#elif defined(__aarch64__)
#define PLATFORM "linux/arm64"
#elif defined(__arm__)
#define PLATFORM "linux/arm/v7"
#elif defined(__riscv) && __riscv_xlen == 64
#define PLATFORM "linux/riscv64"
#elif defined(__s390x__)
#define PLATFORM "linux/s390x"
#elif defined(__powerpc64__) && defined(__LITTLE_ENDIAN__)
#define PLATFORM "linux/ppc64le"
#elif defined(__loongarch64)
#define PLATFORM "linux/loong64"
#else
#error "not in the table of architectures"
#endif

static int fail(const struct fault *fault)
{
	log__write(&(struct log_line){ .event = "error", .message = fault->text });
	return fault->usage ? EXIT_USAGE : EXIT_FAILED;
}

/*
 * The host's trust store takes precedence over the image's. Only its absence, or an empty mount
 * point, selects the image's: one that can't be read must not.
 */
static const char *default_trust(void)
{
	struct file_list list = { 0 };
	const char *path = DEFAULT_TRUST_HOST;
	struct stat st;
	int dir;

	if (lstat(path, &st) && errno == ENOENT)
		return DEFAULT_TRUST;
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return path;
	if (!file__list(dir, &list) && !list.count)
		path = DEFAULT_TRUST;
	file__list_free(&list);
	close(dir);
	return path;
}

/*
 * The state directory, or NULL for none. A default one that is there is used, or its error shown.
 * What is only verified replaces nothing, unless the caller says where to remember it.
 */
static const char *choose_state(const struct options *o)
{
	struct stat st;

	if (o->state || o->verify_only)
		return o->state;
	return lstat(DEFAULT_STATE, &st) && errno == ENOENT ? NULL : DEFAULT_STATE;
}

/* Remember the versions of a set that was accepted as a whole, and let the next loader in. */
static int remember(struct state *state, const struct set *set, struct fault *fault)
{
	int err = 0;

	for (size_t i = 0; !err && i < set->count; i++) {
		const struct statement *st = &set->items[i].verdict.statement;

		err = state__raise(state, st->project, st->name, st->version);
	}
	if (err)
		fault__set(fault, err, "state: %s", strerror(-err));
	else
		err = state__save(state, fault);
	state__close(state);
	return err;
}

static bool is_program(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISREG(st.st_mode) && !faccessat(AT_FDCWD, path, X_OK, AT_EACCESS);
}

/* Find the workload as execvp would, but never hand it to a shell. The caller frees the path. */
static char *find_workload(const char *name)
{
	const char *dirs = strchr(name, '/') ? "" : getenv("PATH");
	char *path = NULL;

	for (const char *p = dirs; p; p = strchr(p, ':') ? strchr(p, ':') + 1 : NULL) {
		int n = (int)strcspn(p, ":");

		if (asprintf(&path, "%.*s%s%s", n, p, n ? "/" : "", name) < 0)
			return NULL;
		if (is_program(path))
			return path;
		free(path);
	}
	return NULL;
}

/* The signals that stop us; blocked from the start, so that none gets lost while we load. */
static sigset_t stop_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	return set;
}

static bool stop_is_pending(void)
{
	const sigset_t set = stop_signals();

	return sigtimedwait(&set, NULL, &(struct timespec){ 0 }) > 0;
}

static int wait_and_stop(struct load *load)
{
	const sigset_t set = stop_signals();

	while (sigwaitinfo(&set, NULL) < 0 && errno == EINTR)
		;
	load__stop(load);
	return EXIT_DONE;
}

/* Become the workload; returns only when that fails. */
static int run_workload(struct load *load, const char *path, char **argv)
{
	const sigset_t set = stop_signals();
	struct fault fault = { 0 };

	if (stop_is_pending()) {
		load__stop(load);
		return EXIT_DONE;
	}
	if (!load__keep_over_exec(load, &fault)) {
		log__write(&(struct log_line){ .event = "exec", .target = path });
		signal(SIGPIPE, SIG_DFL);
		sigprocmask(SIG_UNBLOCK, &set, NULL);
		execv(path, argv);
		fault__set(&fault, -errno, "workload %.200s: %s", path, strerror(errno));
	}
	load__stop(load);
	return fail(&fault);
}

static int load_and_run(const struct options *o, const struct set *set, const uint8_t *policy,
			struct state *state, const char *workload)
{
	struct load_input inputs[LOAD_MAX_OBJECTS];
	const struct load_options options = {
		.attach = o->attach,
		.attach_count = o->attach_count,
		.health_command = o->health_command,
		.health_wait = o->health_wait,
	};
	int64_t started = log__clock();
	struct fault fault = { 0 };
	struct load *load;

	for (size_t i = 0; i < set->count; i++) {
		inputs[i] = (struct load_input){
			.name = set->items[i].name,
			.data = set->items[i].data,
			.size = set->items[i].size,
			.statement = &set->items[i].verdict.statement,
			.digest = set->items[i].verdict.digest,
			.policy = policy,
			.key_ids = set->items[i].verdict.key_ids,
			.key_id_count = set->items[i].verdict.key_id_count,
		};
	}
	if (load__start(&load, inputs, set->count, &options, &fault))
		return fail(&fault);
	if ((state && remember(state, set, &fault)) || privileges__drop(&fault)) {
		load__stop(load);
		return fail(&fault);
	}
	log__write(&(struct log_line){ .event = "ready", .platform = PLATFORM, .started = started });
	return workload ? run_workload(load, workload, o->workload) : wait_and_stop(load);
}

static int verify_and_load(const struct options *o, const struct trust *trust, struct state *state,
			   const char *workload)
{
	const struct verify_context context = {
		.trust = trust,
		.state = state,
		.platform = o->platform ? o->platform : PLATFORM,
		.now = o->now >= 0 ? o->now : (int64_t)time(NULL),
	};
	struct fault fault = { 0 };
	char text[64];
	struct set set;
	int code;

	if (set__verify(&set, o->objects, LOAD_MAX_OBJECTS, &context, &fault))
		return fail(&fault);
	if (set.refused) {
		snprintf(text, sizeof(text), "%zu of %zu objects refused%s", set.refused, set.count,
			 o->verify_only ? "" : ", none loaded");
		log__write(&(struct log_line){ .event = "refuse", .message = text });
		code = EXIT_REFUSED;
	} else if (set.failed) {
		code = EXIT_FAILED;
	} else if (!o->verify_only) {
		code = load_and_run(o, &set, trust->digest, state, workload);
	} else {
		code = state && remember(state, &set, &fault) ? fail(&fault) : EXIT_DONE;
	}
	set__free(&set);
	return code;
}

static int run_with_state(const struct options *o, const struct trust *trust, const char *workload)
{
	const char *path = choose_state(o);
	struct fault fault = { 0 };
	struct state state;
	int code;

	if (!path)
		return verify_and_load(o, trust, NULL, workload);
	if (state__open(&state, path, &fault))
		return fail(&fault);
	code = verify_and_load(o, trust, &state, workload);
	state__close(&state);
	return code;
}

static int run(const struct options *o)
{
	struct fault fault = { 0 };
	char *workload = NULL;
	struct trust trust;
	int code;

	if (trust__read(&trust, o->trust ? o->trust : default_trust(), &fault))
		return fail(&fault);
	if (o->workload) {
		workload = find_workload(o->workload[0]);
		if (!workload) {
			fault__set(&fault, -ENOENT, "workload %.200s: no such program", o->workload[0]);
			trust__free(&trust);
			return fail(&fault);
		}
	}
	code = run_with_state(o, &trust, workload);
	free(workload);
	trust__free(&trust);
	return code;
}

int main(int argc, char **argv)
{
	const sigset_t set = stop_signals();
	struct fault fault = { 0 };
	struct options options;

	(void)argc;
	signal(SIGPIPE, SIG_IGN);
	sigprocmask(SIG_BLOCK, &set, NULL);
	if (options__parse(&options, argv, &fault))
		return fail(&fault);
	log__set_human(options.human);
	if (options.help)
		return fputs(options__help, stdout) < 0 || fflush(stdout) ? EXIT_FAILED : EXIT_DONE;
	if (options.version)
		return printf("verify-and-load %s (%s, libbpf %s)\n", LOADER_VERSION, PLATFORM,
			      load__library_version()) < 0;
	if (options.command != COMMAND_RUN) {
		fault__usage(&fault, "%s: this loader keeps nothing that outlives it", argv[1]);
		return fail(&fault);
	}
	return run(&options);
}
