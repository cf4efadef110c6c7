// SPDX-License-Identifier: Apache-2.0
#include "options.h"

#include "json.h"

#include <string.h>

const char options__help[] =
	"usage: verify-and-load [OPTION]... [-- WORKLOAD [ARGUMENT]...]\n"
	"\n"
	"Verify every eBPF object, load and attach them, drop all capabilities, then run\n"
	"WORKLOAD, or wait for SIGTERM or SIGINT and detach.\n"
	"\n"
	"  --objects PATH           directory of objects, or one object\n"
	"                           (" DEFAULT_OBJECTS ")\n"
	"  --trust PATH             directory of .pub files, one .pub file, or a policy\n"
	"                           (" DEFAULT_TRUST_HOST " when it holds something,\n"
	"                           else " DEFAULT_TRUST ")\n"
	"  --state DIR              remember the highest version of each object, refuse lower ones\n"
	"                           (" DEFAULT_STATE " when it is there;\n"
	"                           with --verify-only: none)\n"
	"  --attach PROGRAM=TARGET  an interface (eth0, eth0:egress), a cgroup's path, or none;\n"
	"                           OBJECT:PROGRAM when several objects have the program\n"
	"  --verify-only            load nothing; exit code 0 or 3\n"
	"  --platform P, --time T   with --verify-only: as if on this platform, at this time\n"
	"  --log json|human         form of the lines on stderr (json)\n"
	"  --version, --help\n"
	"\n"
	"Exit codes: 0 done, 1 could not do it, 2 usage or configuration, 3 refused.\n";

static int add_attach(struct options *o, char *value, struct fault *fault)
{
	char *equals = strchr(value, '='), *colon;
	struct attach_option *a;

	if (!equals || equals == value || !equals[1])
		return fault__usage(fault, "--attach %.128s: not PROGRAM=TARGET", value);
	if (o->attach_count == LOAD_MAX_OPTIONS)
		return fault__usage(fault, "--attach: more than %d times", LOAD_MAX_OPTIONS);
	a = &o->attach[o->attach_count++];
	*equals = 0;
	*a = (struct attach_option){ .program = value, .target = equals + 1 };
	colon = strchr(value, ':');
	if (colon) {
		*colon = 0;
		a->object = value;
		a->program = colon + 1;
	}
	return 0;
}

static int set_value(struct options *o, const char *name, char *value, struct fault *fault)
{
	if (!strcmp(name, "--objects"))
		o->objects = value;
	else if (!strcmp(name, "--trust"))
		o->trust = value;
	else if (!strcmp(name, "--state"))
		o->state = value;
	else if (!strcmp(name, "--platform"))
		o->platform = value;
	else if (!strcmp(name, "--attach"))
		return add_attach(o, value, fault);
	else if (!strcmp(name, "--log") && !strcmp(value, "human"))
		o->human = true;
	else if (!strcmp(name, "--log") && !strcmp(value, "json"))
		o->human = false;
	else if (strcmp(name, "--time") || !json__time(value, &o->now))
		return fault__usage(fault, "%.64s: bad value %.128s", name, value);
	return 0;
}

static bool set_switch(struct options *o, const char *name)
{
	if (!strcmp(name, "--verify-only"))
		return o->verify_only = true;
	if (!strcmp(name, "--version"))
		return o->version = true;
	if (!strcmp(name, "--help"))
		return o->help = true;
	return false;
}

static bool takes_value(const char *name)
{
	static const char *const names[] = { "--objects",  "--trust", "--state", "--attach",
					     "--platform", "--time",  "--log" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (!strcmp(names[i], name))
			return true;
	}
	return false;
}

static int check_together(const struct options *o, struct fault *fault)
{
	if (o->verify_only && (o->attach_count || o->workload))
		return fault__usage(fault, "--verify-only takes no --attach and no workload");
	if (!o->verify_only && (o->platform || o->now >= 0))
		return fault__usage(fault, "--platform and --time need --verify-only");
	return 0;
}

int options__parse(struct options *o, char **argv, struct fault *fault)
{
	*o = (struct options){ .objects = DEFAULT_OBJECTS, .now = -1 };
	for (argv++; *argv; argv++) {
		char *value = NULL;
		int err;

		if (!strcmp(*argv, "--")) {
			o->workload = argv + 1;
			if (!*o->workload)
				return fault__usage(fault, "no workload after --");
			break;
		}
		if (set_switch(o, *argv))
			continue;
		value = strchr(*argv, '=');
		if (value)
			*value++ = 0;
		if (!takes_value(*argv))
			return fault__usage(fault, "unknown option %.128s", *argv);
		if (!value && !(value = argv[1] ? *++argv : NULL))
			return fault__usage(fault, "%.64s needs a value", *argv);
		if (!*value)
			return fault__usage(fault, "an option has an empty value");
		err = set_value(o, value == *argv ? argv[-1] : *argv, value, fault);
		if (err)
			return err;
	}
	return check_together(o, fault);
}
