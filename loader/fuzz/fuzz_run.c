// SPDX-License-Identifier: Apache-2.0
/*
 * libFuzzer: the loader's other inputs, and its output. The first byte selects the kind of the rest: a state,
 * a file of --attach-file, arguments, strings of a decision line, a file of --settings, or the bounds of
 * settings with a value.
 */
#include "base/json.h"
#include "base/log.h"
#include "run/attach_file.h"
#include "run/options.h"
#include "run/settings_file.h"
#include "run/versions.h"
#include "verify/settable.h"
#include "verify/statement.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Write lines to a file in memory, and free the text of options, which the loader keeps until it ends. */
static int line_file = -1;
static void *kept;

static void *keep(void *text, size_t size)
{
	kept = realloc(text, size);
	return kept;
}

#undef STDERR_FILENO
#define STDERR_FILENO line_file
#include "base/log.c"
#define realloc keep
#include "run/line_file.c"
#undef realloc

#define WORDS_MAX 300

static char directory[] = "/tmp/buildtool-run-XXXXXX";
static char link_path[sizeof(directory) + 16], file_path[32];
static int file = -1;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void remove_place(void)
{
	unlink(link_path);
	rmdir(directory);
}

static void make_place(void)
{
	file = memfd_create("input", MFD_CLOEXEC);
	line_file = memfd_create("lines", MFD_CLOEXEC);
	snprintf(file_path, sizeof(file_path), "/proc/self/fd/%d", file);
	if (file < 0 || line_file < 0 || !mkdtemp(directory))
		abort();
	snprintf(link_path, sizeof(link_path), "%s/versions.json", directory);
	if (symlink(file_path, link_path))
		abort();
	atexit(remove_place);
}

static void put(const uint8_t *data, size_t size)
{
	if (ftruncate(file, 0) || pwrite(file, data, size, 0) != (ssize_t)size)
		abort();
}

static void check_state(const uint8_t *data, size_t size)
{
	struct fault fault = { 0 };
	struct versions s;

	put(data, size);
	if (versions__open(&s, directory, &fault)) {
		if (!fault.text[0] || s.root || s.dir != -1)
			abort();
		return;
	}
	if (versions__version(&s, "p", "o") < 0 || versions__raise(&s, "p", "o", 7) ||
	    versions__version(&s, "p", "o") < 7)
		abort();
	versions__close(&s);
}

static void check_attach(const struct options *o)
{
	for (size_t i = 0; i < o->attach_count; i++) {
		const struct attach_option *a = &o->attach[i];

		if (!*a->target || (a->object ? a->program == a->object : !*a->program))
			abort();
	}
	for (size_t i = 0; i < o->setting_count; i++) {
		const struct setting_option *s = &o->settings[i];

		if (!*s->name || (s->object && !*s->object) || !s->value)
			abort();
	}
	if (o->attach_count > LOAD_MAX_OPTIONS || o->setting_count > LOAD_MAX_OPTIONS ||
	    o->settings_at > o->setting_count)
		abort();
}

static void check_option_file(const uint8_t *data, size_t size, bool is_settings)
{
	static char name[] = "first", value[] = "";
	const struct setting_option first = { .name = name, .value = value };
	struct options o = { .attach_file = is_settings ? NULL : file_path,
			     .settings_file = is_settings ? file_path : NULL,
			     .settings = { first },
			     .setting_count = 1 };
	struct fault fault = { 0 };
	int err;

	put(data, size);
	kept = NULL;
	err = attach_file__read(&o, &fault);
	if (!err)
		err = settings_file__read(&o, &fault);
	if (err ? !fault.text[0] || !fault.usage : fault.text[0])
		abort();
	/* Those of the file are before the one that follows --settings. */
	if (!err && strcmp(o.settings[o.setting_count - 1].name, "first"))
		abort();
	check_attach(&o);
	free(kept);
}

/* Split at the ends of lines; @words ends in NULL. */
static size_t cut(char *text, char *words[WORDS_MAX + 1])
{
	size_t count = 0;

	while (text && count < WORDS_MAX)
		words[count++] = strsep(&text, "\n");
	words[count] = NULL;
	return count;
}

/* A predicate, a name and a value: what is allowed has one text, which is allowed too. */
static void check_settable(char *text)
{
	struct setting_value value, again;
	struct statement st = { 0 };
	struct fault fault = { 0 };
	char *words[WORDS_MAX + 1], shown[SETTING_TEXT_SIZE];
	json_t *predicate;

	if (cut(text, words) < 3 || json__parse(&predicate, (uint8_t *)words[0], strlen(words[0]), &fault))
		return;
	/* The statement's rules for maps have held before. */
	json_object_set_new(predicate, "maps", json_pack("[{s:s,s:s}]", "name", "m", "type", "hash_of_maps"));
	if (!settable__check(predicate, &fault)) {
		st.settable = json_object_get(predicate, "settable");
		if (!settable__read_variable(&st, words[1], words[2], &value, &fault) &&
		    settable__read_variable(&st, words[1], settable__show(&value, shown), &again, &fault))
			abort();
		if (!settable__read_entries(&st, words[1], words[2], &value, &fault) &&
		    !settable__allows_entries(&st, words[1], (uint32_t)value.integer.magnitude))
			abort();
	} else if (!fault.text[0]) {
		abort();
	}
	json_decref(predicate);
}

static void check_options(char *text)
{
	char *argv[WORDS_MAX + 1];
	struct fault fault = { 0 };
	struct options o;
	int err;

	cut(text, argv);
	err = options__parse(&o, argv, &fault);
	if (err ? !fault.text[0] || !fault.usage : fault.text[0])
		abort();
	if (err)
		return;
	if (o.wait_interface < 0 || o.wait_interface > 86400 || o.health_wait < 0 || o.health_wait > 86400)
		abort();
	check_attach(&o);
}

static void check_line(const char *line, size_t size, bool human)
{
	json_t *value;

	if (size < 2 || line[size - 1] != '\n')
		abort();
	for (size_t i = 0; i + 1 < size; i++) {
		if (line[i] < ' ' || line[i] > '~')
			abort();
	}
	value = human ? json_object() : json_loadb(line, size, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(value))
		abort();
	json_decref(value);
}

/* Check that any names give one complete line of ASCII. */
static void check_log(char *text)
{
	static const uint8_t digest[DIGEST_SIZE];
	static char read_back[2 * LINE_SIZE];
	const uint8_t *key_ids[16];
	char *words[WORDS_MAX + 1];
	struct log_line line = { .event = "verify", .decision = "refused", .reason = "below-threshold" };

	cut(text, words);
	for (size_t i = 0; i < 16; i++)
		key_ids[i] = digest;
	line.digest = line.policy = digest;
	line.key_ids = key_ids;
	line.key_id_count = 16;
	line.platform = "linux/loong64";
	line.object = words[0];
	line.program = words[0] ? words[1] : NULL;
	line.target = line.program ? words[2] : NULL;
	line.message = line.target ? words[3] : NULL;
	line.value = line.message ? words[4] : NULL;
	for (int human = 0; human < 2; human++) {
		ssize_t n;

		if (ftruncate(line_file, 0) || lseek(line_file, 0, SEEK_SET))
			abort();
		log__set_human(human);
		log__write(&line);
		n = pread(line_file, read_back, sizeof(read_back), 0);
		check_line(read_back, n > 0 ? (size_t)n : 0, human);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text;

	if (!size)
		return 0;
	if (file < 0)
		make_place();
	text = strndup((const char *)data + 1, size - 1);
	if (data[0] % 6 == 0)
		check_state(data + 1, size - 1);
	else if (data[0] % 6 == 1)
		check_option_file(data + 1, size - 1, false);
	else if (text && data[0] % 6 == 2)
		check_options(text);
	else if (text && data[0] % 6 == 3)
		check_log(text);
	else if (data[0] % 6 == 4)
		check_option_file(data + 1, size - 1, true);
	else if (text)
		check_settable(text);
	free(text);
	return 0;
}
