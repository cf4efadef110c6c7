/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LOADER_RUN_OPTIONS_H
#define LOADER_RUN_OPTIONS_H

#include "load/load.h"

#include <sys/types.h>

#define DEFAULT_OBJECTS	   "/usr/lib/buildtool/objects"
#define DEFAULT_TRUST	   "/etc/buildtool/trust"
#define DEFAULT_TRUST_HOST "/etc/buildtool/trust.host"
#define DEFAULT_STATE	   "/var/lib/buildtool/state"

/* The first word of the command line; COMMAND_RUN without such a word. */
enum command { COMMAND_RUN, COMMAND_LIST, COMMAND_STATUS, COMMAND_DETACH, COMMAND_ROLLBACK };

/* Where a target was named. A target of a later source replaces those of an earlier one for its program. */
enum attach_source { ATTACH_BY_IMAGE, ATTACH_BY_FILE, ATTACH_BY_COMMAND };

struct options {
	enum command command;
	const char *objects;
	const char *trust; /* NULL: the defaults */
	const char *state; /* NULL: the default, if it exists */
	struct attach_option attach[LOAD_MAX_OPTIONS];
	size_t attach_count;
	struct select_option select[LOAD_MAX_OPTIONS];
	size_t select_count;
	struct setting_option settings[LOAD_MAX_OPTIONS];
	size_t setting_count;
	size_t settings_at; /* those of --settings come after so many others */
	const char *attach_file, *settings_file;
	const char *btf; /* types of a kernel that has none: a file, or a directory of RELEASE.btf.o */
	const char *pin_root;
	const char *share;
	const char *health_command; /* an absolute path, and arguments split at blanks */
	const char *metrics_file;
	const char *platform;  /* NULL: this machine's */
	uint64_t capabilities; /* of the container, beyond the needs of the programs' types */
	int64_t now;	       /* -1: the clock's */
	int wait_interface;    /* seconds; 0: don't wait */
	int health_wait;       /* seconds */
	bool verify_only, help, version, human, json;
	bool hand_over;		 /* the workload loads the objects itself */
	const char *for_loading; /* an option that --hand-over forbids, or NULL */
	bool replace, reload, no_map_fds, no_seccomp;
	bool has_user; /* of the workload: */
	uid_t uid;
	gid_t gid;
	char **workload;       /* NULL or argv, ending in NULL */
	char **image_workload; /* the words of the image's workload, in places of the parsed command line */
	size_t image_words;
	char **arguments; /* those from the command's word on, ending in NULL; NULL without one */
};

/* Parse the command line; its strings are cut in place. Returns 0, or -EINVAL with the text set. */
int options__parse(struct options *options, char **argv, struct fault *fault);

/* Add a PROGRAM=TARGET. The string is cut in place, and must outlive the options. */
int options__add_attach(struct options *options, char *value, enum attach_source source, struct fault *fault);

/* Add what a line of --settings says: @value for the option @word, which outlives the options. */
int options__add_word(struct options *options, const char *word, char *value, struct fault *fault);

/* Return the options that select programs and targets. */
struct selection_options options__selection(const struct options *options);

/* Remove the targets that a later source replaces. */
void options__settle_attach(struct options *options);

/* Whether --log human is among the arguments. It applies to errors of other arguments too. */
bool options__ask_human(char **argv);

/* Return the word of the command. */
const char *options__command(const struct options *options);

extern const char options__help[];

#endif
