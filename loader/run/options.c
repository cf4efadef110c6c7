// SPDX-License-Identifier: Apache-2.0
#include "run/options.h"

#include "base/capabilities.h"
#include "base/fault.h"
#include "base/json.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECONDS_MAX	    86400
#define HEALTH_WAIT_SECONDS 10

const char options__help[] =
	"usage: verify-and-load [run] [OPTION]... [-- WORKLOAD [ARGUMENT]...]\n"
	"       verify-and-load status --pin-root DIR [OPTION]...\n"
	"\n"
	"Verify, load and attach all eBPF objects, and drop all capabilities. Then run WORKLOAD,\n"
	"or wait for SIGTERM or SIGINT and detach the programs.\n"
	"\n"
	"  --objects PATH           directory of objects, or one object\n"
	"                           (" DEFAULT_OBJECTS ")\n"
	"  --trust PATH             directory of .pub files, one .pub file, or a policy\n"
	"                           (" DEFAULT_TRUST_HOST " if it has files,\n"
	"                           else " DEFAULT_TRUST ")\n"
	"  --state DIR              remember the highest version of each object, refuse lower ones\n"
	"                           (" DEFAULT_STATE " if it exists;\n"
	"                           with --verify-only: none)\n"
	"  --btf PATH               types of this kernel, if it has none: a signed file of buildtool btf,\n"
	"                           or a directory with RELEASE.btf.o\n"
	"  --attach PROGRAM=TARGET  attach the program there (eth0, eth0:egress, a cgroup's path,\n"
	"                           none); OBJECT:PROGRAM if several objects have the program;\n"
	"                           PROGRAM+=TARGET adds to the image's targets\n"
	"  --load PROGRAM           load this optional program (SEC(\"?...\")), without a target of its\n"
	"                           own: attach it where the image or its section says, or nowhere\n"
	"  --no-load PROGRAM        do not load this program\n"
	"  --attach-file FILE       read a PROGRAM=TARGET from each line of FILE\n"
	"  --set OBJECT:NAME=VALUE  set a constant of the object, within the bounds that its signers allow\n"
	"  --map-entries OBJECT:MAP=N  set the number of entries of a map, within such bounds\n"
	"  --settings FILE          read set, map-entries, attach, load or no-load, and a value, from each\n"
	"                           line of FILE\n"
	"  --image-attach P=TARGET  the image's own target, unless another one is given\n"
	"  --image-load PROGRAM     --load of the image itself, unless --no-load names the program\n"
	"  --image-workload WORD    a word of the image's own workload, which -- WORKLOAD replaces\n"
	"  --hand-over              load nothing: pass the verified objects, and the capabilities that\n"
	"                           loading them requires, to the workload\n"
	"  --wait-interface SECONDS wait for missing interfaces\n"
	"  --replace                detach another program that holds the hook\n"
	"  --pin-root DIR           pin programs, maps and links below DIR; update existing pins\n"
	"  --share DIR              load each object once for all containers that share DIR\n"
	"  --health-command COMMAND run COMMAND after attaching; restore the old programs if it fails\n"
	"  --health-wait SECONDS    longest time of the health command (10)\n"
	"  --reload                 stay as the workload's parent, and update on SIGHUP\n"
	"  --no-map-fds             pass no maps to the workload\n"
	"  --no-seccomp             allow the workload all of bpf(2), and 32-bit system calls\n"
	"  --workload-user UID[:GID]  run the workload as this user; requires SETUID and SETGID\n"
	"  --capabilities C,...     allow these capabilities of the container, beyond the programs'\n"
	"                           needs\n"
	"  --metrics-file FILE      write metrics for Prometheus\n"
	"  --verify-only            load and attach nothing; exit code 0 or 3\n"
	"  --platform P, --time T   with --verify-only: verify for this platform, at this time\n"
	"  --log json|human         form of the lines on stderr (json)\n"
	"  --json                   with status: print JSON\n"
	"  --version                print the version\n"
	"  --help, -h               print this help\n"
	"\n"
	"Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 refused.\n";

static const char *const commands[] = {
	[COMMAND_RUN] = "run",	     [COMMAND_LIST] = "list",	      [COMMAND_STATUS] = "status",
	[COMMAND_DETACH] = "detach", [COMMAND_ROLLBACK] = "rollback",
};

enum kind {
	KIND_TEXT,
	KIND_SWITCH,
	KIND_SECONDS,
	KIND_TIME,
	KIND_LOG,
	KIND_ATTACH,
	KIND_IMAGE_ATTACH,
	KIND_LOAD,
	KIND_NO_LOAD,
	KIND_IMAGE_LOAD,
	KIND_SET,
	KIND_MAP_ENTRIES,
	KIND_SETTINGS,
	KIND_IMAGE_WORKLOAD,
	KIND_CAPABILITIES,
	KIND_USER
};

/* The commands that accept an option; --log, --help and --version belong to all of them. */
#define RUN	  (1 << COMMAND_RUN)
#define LOADING	  (1 << 7 | RUN) /* what --hand-over leaves to the workload */
#define SHOW	  (1 << COMMAND_LIST | 1 << COMMAND_STATUS)
#define ROLLBACK  (1 << COMMAND_ROLLBACK)
#define PINS	  (SHOW | 1 << COMMAND_DETACH | ROLLBACK)
#define FIELD(of) offsetof(struct options, of)

static const struct option {
	const char *name;
	uint16_t field;
	uint8_t kind;
	uint8_t commands;
} options[] = {
	{ "objects", FIELD(objects), KIND_TEXT, RUN },
	{ "trust", FIELD(trust), KIND_TEXT, RUN },
	{ "state", FIELD(state), KIND_TEXT, RUN },
	{ "attach", 0, KIND_ATTACH, LOADING },
	{ "image-attach", 0, KIND_IMAGE_ATTACH, LOADING },
	{ "load", 0, KIND_LOAD, LOADING },
	{ "no-load", 0, KIND_NO_LOAD, LOADING },
	{ "image-load", 0, KIND_IMAGE_LOAD, LOADING },
	{ "image-workload", 0, KIND_IMAGE_WORKLOAD, RUN },
	{ "attach-file", FIELD(attach_file), KIND_TEXT, LOADING },
	{ "set", 0, KIND_SET, LOADING },
	{ "map-entries", 0, KIND_MAP_ENTRIES, LOADING },
	{ "settings", FIELD(settings_file), KIND_SETTINGS, LOADING },
	{ "btf", FIELD(btf), KIND_TEXT, RUN },
	{ "hand-over", FIELD(hand_over), KIND_SWITCH, RUN },
	{ "wait-interface", FIELD(wait_interface), KIND_SECONDS, LOADING },
	{ "replace", FIELD(replace), KIND_SWITCH, LOADING },
	{ "pin-root", FIELD(pin_root), KIND_TEXT, LOADING | PINS },
	{ "share", FIELD(share), KIND_TEXT, LOADING | PINS },
	{ "health-command", FIELD(health_command), KIND_TEXT, LOADING },
	{ "health-wait", FIELD(health_wait), KIND_SECONDS, LOADING },
	{ "reload", FIELD(reload), KIND_SWITCH, LOADING },
	{ "no-map-fds", FIELD(no_map_fds), KIND_SWITCH, LOADING },
	{ "no-seccomp", FIELD(no_seccomp), KIND_SWITCH, LOADING },
	{ "workload-user", 0, KIND_USER, RUN },
	{ "capabilities", FIELD(capabilities), KIND_CAPABILITIES, RUN },
	{ "metrics-file", FIELD(metrics_file), KIND_TEXT, RUN },
	{ "verify-only", FIELD(verify_only), KIND_SWITCH, RUN },
	{ "platform", FIELD(platform), KIND_TEXT, RUN },
	{ "time", FIELD(now), KIND_TIME, RUN },
	{ "log", FIELD(human), KIND_LOG, RUN | PINS },
	{ "json", FIELD(json), KIND_SWITCH, SHOW },
	{ "version", FIELD(version), KIND_SWITCH, RUN | PINS },
	{ "help", FIELD(help), KIND_SWITCH, RUN | PINS },
};

int options__add_attach(struct options *o, char *value, enum attach_source source, struct fault *fault)
{
	char *equals = strchr(value, '='), *colon;
	struct attach_option *a;

	bool adds = equals && equals > value && equals[-1] == '+';

	if (!equals || equals == value + adds || !equals[1])
		return fault__usage(fault, "--attach %.128s: not PROGRAM=TARGET", value);
	if (o->attach_count == LOAD_MAX_OPTIONS)
		return fault__usage(fault, "--attach: more than %d times", LOAD_MAX_OPTIONS);
	a = &o->attach[o->attach_count++];
	equals[-adds] = 0;
	*a = (struct attach_option){
		.program = value, .target = equals + 1, .source = (unsigned char)source, .adds = adds
	};
	colon = strchr(value, ':');
	if (colon) {
		*colon = 0;
		a->object = value;
		a->program = colon + 1;
	}
	return 0;
}

/* Add the [OBJECT:]NAME=VALUE of --set or --map-entries. The value may contain any character. */
static int add_setting(struct options *o, const struct option *option, char *value, struct fault *fault)
{
	char *equals = strchr(value, '='), *colon, *name = value;

	if (o->setting_count == LOAD_MAX_OPTIONS)
		return fault__usage(fault, "--%s: more than %d times", option->name, LOAD_MAX_OPTIONS);
	colon = equals ? memchr(value, ':', (size_t)(equals - value)) : NULL;
	if (colon)
		name = colon + 1;
	if (!equals || name == equals || colon == value)
		return fault__usage(fault, "--%s %.128s: not OBJECT:NAME=VALUE", option->name, value);
	*equals = 0;
	if (colon)
		*colon = 0;
	o->settings[o->setting_count++] = (struct setting_option){
		.object = colon ? value : NULL,
		.name = name,
		.value = equals + 1,
		.is_size = option->kind == KIND_MAP_ENTRIES,
	};
	return 0;
}

/* Add the [OBJECT:]PROGRAM of --load, --no-load or --image-load. */
static int add_select(struct options *o, const struct option *option, char *value, enum attach_source source,
		      struct fault *fault)
{
	char *colon = strchr(value, ':');
	struct select_option *s;

	if (o->select_count == LOAD_MAX_OPTIONS)
		return fault__usage(fault, "--%s: more than %d times", option->name, LOAD_MAX_OPTIONS);
	if (strchr(value, '=') || colon == value || (colon && !colon[1]))
		return fault__usage(fault, "--%s %.128s: not PROGRAM or OBJECT:PROGRAM; --attach says where",
				    option->name, value);
	s = &o->select[o->select_count++];
	*s = (struct select_option){
		.program = colon ? colon + 1 : value,
		.object = colon ? value : NULL,
		.source = (unsigned char)source,
		.loads = option->kind != KIND_NO_LOAD,
	};
	if (colon)
		*colon = 0;
	return 0;
}

struct selection_options options__selection(const struct options *o)
{
	return (struct selection_options){ .attach = o->attach,
					   .attach_count = o->attach_count,
					   .select = o->select,
					   .select_count = o->select_count };
}

static bool is_replaced(const struct options *o, const struct attach_option *a)
{
	for (size_t i = 0; i < o->attach_count; i++) {
		const struct attach_option *other = &o->attach[i];

		if (other->source > a->source && !other->adds && !strcmp(other->program, a->program) &&
		    (!other->object || !a->object || !strcmp(other->object, a->object)))
			return true;
	}
	return false;
}

void options__settle_attach(struct options *o)
{
	bool replaced[LOAD_MAX_OPTIONS];
	size_t kept = 0;

	for (size_t i = 0; i < o->attach_count; i++)
		replaced[i] = is_replaced(o, &o->attach[i]);
	for (size_t i = 0; i < o->attach_count; i++) {
		if (!replaced[i])
			o->attach[kept++] = o->attach[i];
	}
	o->attach_count = kept;
}

bool options__ask_human(char **argv)
{
	for (argv++; argv[0] && strcmp(argv[0], "--"); argv++) {
		if (!strcmp(argv[0], "--image-workload") && argv[1])
			argv++; /* a word of another program */
		else if (!strcmp(argv[0], "--log=human") ||
			 (!strcmp(argv[0], "--log") && argv[1] && !strcmp(argv[1], "human")))
			return true;
	}
	return false;
}

static bool parse_seconds(const char *text, int *seconds)
{
	size_t n = strspn(text, "0123456789");

	if (!n || n > 5 || text[n])
		return false;
	*seconds = 0;
	for (; *text; text++)
		*seconds = *seconds * 10 + (*text - '0');
	return *seconds <= SECONDS_MAX;
}

/* A number as user: names are in files that an image need not have. -1 is none, as the kernel says. */
static bool parse_id(const char *text, char end, uint32_t *id)
{
	size_t n = strspn(text, "0123456789");
	unsigned long long number;

	if (!n || n > 10 || (text[n] != end && text[n]))
		return false;
	number = strtoull(text, NULL, 10);
	*id = (uint32_t)number;
	return number < UINT32_MAX;
}

static bool parse_user(const char *text, struct options *o)
{
	const char *colon = strchr(text, ':');

	o->has_user = true;
	return parse_id(text, ':', &o->uid) && parse_id(colon ? colon + 1 : text, 0, &o->gid);
}

static int set_value(struct options *o, const struct option *option, char *value, struct fault *fault)
{
	void *field = (char *)o + option->field;
	bool ok = true;

	if (option->kind == KIND_ATTACH || option->kind == KIND_IMAGE_ATTACH)
		return options__add_attach(
			o, value, option->kind == KIND_ATTACH ? ATTACH_BY_COMMAND : ATTACH_BY_IMAGE, fault);
	if (option->kind == KIND_LOAD || option->kind == KIND_NO_LOAD || option->kind == KIND_IMAGE_LOAD)
		return add_select(o, option, value,
				  option->kind == KIND_IMAGE_LOAD ? ATTACH_BY_IMAGE : ATTACH_BY_COMMAND,
				  fault);
	if (option->kind == KIND_SET || option->kind == KIND_MAP_ENTRIES)
		return add_setting(o, option, value, fault);
	if (option->kind == KIND_SETTINGS)
		o->settings_at = o->setting_count;
	/* The arguments up to here are parsed already: their places hold the image's workload. */
	if (option->kind == KIND_IMAGE_WORKLOAD)
		o->image_workload[o->image_words++] = value;
	else if (option->kind == KIND_TEXT || option->kind == KIND_SETTINGS)
		*(const char **)field = value;
	else if (option->kind == KIND_SECONDS)
		ok = parse_seconds(value, field);
	else if (option->kind == KIND_TIME)
		ok = json__time(value, field);
	else if (option->kind == KIND_USER)
		ok = parse_user(value, o);
	else if (option->kind == KIND_CAPABILITIES)
		ok = !capabilities__parse(value, field);
	else /* KIND_LOG */
		ok = (*(bool *)field = !strcmp(value, "human")) || !strcmp(value, "json");
	return ok ? 0 : fault__usage(fault, "--%s: bad value %.128s", option->name, value);
}

/* Find the option that an argument names before its equals sign. */
static const struct option *find_option(const char *argument, size_t size)
{
	if (size < 3 || memcmp(argument, "--", 2))
		return NULL;
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
		if (strlen(options[i].name) == size - 2 && !memcmp(options[i].name, argument + 2, size - 2))
			return &options[i];
	}
	return NULL;
}

int options__add_word(struct options *o, const char *word, char *value, struct fault *fault)
{
	char argument[32];
	const struct option *option;
	int n = snprintf(argument, sizeof(argument), "--%s", word);

	option = find_option(argument, n > 0 && (size_t)n < sizeof(argument) ? (size_t)n : 0);
	switch (option ? option->kind : KIND_TEXT) {
	case KIND_ATTACH:
		return options__add_attach(o, value, ATTACH_BY_FILE, fault);
	case KIND_LOAD:
	case KIND_NO_LOAD:
		return add_select(o, option, value, ATTACH_BY_FILE, fault);
	case KIND_SET:
	case KIND_MAP_ENTRIES:
		return add_setting(o, option, value, fault);
	default:
		return fault__usage(
			fault,
			"%.32s: none of set, map-entries, attach, load, no-load, with a value after it",
			word);
	}
}

/* Parse one option, and its value if that is the next argument. Moves *@argv to the last argument used. */
static int parse_option(struct options *o, char ***argv, struct fault *fault)
{
	size_t n = strcspn(**argv, "=");
	char *value = (**argv)[n] ? **argv + n + 1 : NULL;
	const struct option *option = find_option(**argv, n);

	if (!strcmp(**argv, "-h")) {
		o->help = true;
		return 0;
	}
	if (!option && (**argv)[0] != '-' && o->command == COMMAND_RUN)
		return fault__usage(
			fault,
			"unknown command %.64s; -- %.64s starts it as the workload, and docker run "
			"--entrypoint %.64s in place of verify-and-load",
			**argv, **argv, **argv);
	if (!option || (value && option->kind == KIND_SWITCH))
		return fault__usage(fault, "unknown option %.128s; see --help", **argv);
	if (!(option->commands & 1 << o->command))
		return fault__usage(fault, "--%s: not an option of %s; see --help", option->name,
				    commands[o->command]);
	if (option->commands & ~RUN & LOADING)
		o->for_loading = option->name;
	if (option->kind == KIND_SWITCH) {
		*((bool *)o + option->field) = true;
		return 0;
	}
	if (!value && (*argv)[1])
		value = *++*argv;
	if (!value)
		return fault__usage(fault, "--%s requires a value", option->name);
	if (!*value)
		return fault__usage(fault, "--%s has an empty value", option->name);
	return set_value(o, option, value, fault);
}

static int check_together(const struct options *o, struct fault *fault)
{
	if (o->help || o->version)
		return 0;
	if (o->command != COMMAND_RUN)
		return o->workload ? fault__usage(fault, "%s accepts no workload", commands[o->command]) : 0;
	/* An image's entrypoint may have all other options: they have no effect if nothing is loaded. */
	if (o->verify_only && o->workload)
		return fault__usage(fault, "--verify-only cannot be combined with a workload");
	if (!o->verify_only && (o->platform || o->now >= 0))
		return fault__usage(fault, "--platform and --time require --verify-only");
	if (!o->workload && !o->image_words && (o->no_seccomp || o->no_map_fds || o->has_user))
		return fault__usage(fault,
				    "--no-seccomp, --no-map-fds and --workload-user require a workload");
	if (o->hand_over && !o->verify_only && !o->workload)
		return fault__usage(fault, "--hand-over requires a workload");
	if (o->hand_over && !o->verify_only && o->for_loading)
		return fault__usage(
			fault, "--hand-over cannot be combined with --%s: the workload loads the objects",
			o->for_loading);
	if (o->health_command && o->health_command[0] != '/')
		return fault__usage(fault, "--health-command %.128s: not an absolute path",
				    o->health_command);
	return 0;
}

const char *options__command(const struct options *o)
{
	return commands[o->command];
}

/*
 * A command's word: the first argument, or the first after the options of an image's entrypoint. Of those a
 * command keeps the places of pins, unless it names one.
 */
static bool take_command(struct options *o, char **argument)
{
	for (size_t i = 0; !o->arguments && i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(*argument, commands[i]))
			continue;
		if (i != COMMAND_RUN)
			*o = (struct options){ .pin_root = o->pin_root,
					       .share = o->share,
					       .human = o->human };
		o->command = (enum command)i;
		o->arguments = argument;
		for (argument++; *argument; argument++) {
			if (!strncmp(*argument, "--pin-root", 10) || !strncmp(*argument, "--share", 7))
				o->pin_root = o->share = NULL;
		}
		return true;
	}
	return false;
}

int options__parse(struct options *o, char **argv, struct fault *fault)
{
	int err = 0;

	*o = (struct options){ .objects = DEFAULT_OBJECTS,
			       .now = -1,
			       .health_wait = HEALTH_WAIT_SECONDS,
			       .image_workload = argv + 1 };
	for (argv++; !err && *argv; argv++) {
		if (take_command(o, argv))
			continue;
		if (!strcmp(*argv, "--")) {
			o->workload = argv + 1;
			if (!*o->workload)
				return fault__usage(fault, "no workload after --");
			break;
		}
		err = parse_option(o, &argv, fault);
	}
	if (!err && o->command == COMMAND_RUN && o->image_words && !o->workload && !o->verify_only) {
		o->image_workload[o->image_words] = NULL;
		o->workload = o->image_workload;
	}
	return err ? err : check_together(o, fault);
}
