// SPDX-License-Identifier: Apache-2.0
#include "run/attach_file.h"

#include "base/fault.h"
#include "base/file.h"
#include "run/options.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BYTES 65536
#define BLANKS	  " \t"

static int add_line(struct options *o, char *line, struct fault *fault)
{
	char *end = line + strlen(line);

	line += strspn(line, BLANKS);
	while (end > line && strchr(BLANKS, end[-1]))
		*--end = 0;
	if (!*line || *line == '#')
		return 0;
	for (const char *p = line; *p; p++) {
		if (*p <= ' ' || *p > '~')
			return fault__usage(fault, "not PROGRAM=TARGET");
	}
	return options__add_attach(o, line, ATTACH_BY_FILE, fault);
}

/* Add the targets of the text. The options point into the text, so it is never freed. */
static int add_lines(struct options *o, char *text, struct fault *fault)
{
	size_t number = 0;
	char *line;

	while ((line = strsep(&text, "\n"))) {
		struct fault inner = { 0 };

		number++;
		if (add_line(o, line, &inner))
			return fault__usage(fault, "--attach-file %.200s, line %zu: %.160s", o->attach_file,
					    number, inner.text);
	}
	return 0;
}

int attach_file__read(struct options *o, struct fault *fault)
{
	uint8_t *data = NULL;
	size_t size;
	char *text;
	int err;

	if (!o->attach_file)
		return 0;
	err = file__read(AT_FDCWD, o->attach_file, MAX_BYTES, &data, &size);
	if (err) {
		fault__set(fault, err, "--attach-file %.200s: %s", o->attach_file,
			   err == -EFBIG  ? "larger than 64 KiB" :
			   err == -ENODEV ? "not a regular file" :
					    strerror(-err));
		fault->usage = true;
		return err;
	}
	text = memchr(data, 0, size) ? NULL : realloc(data, size + 1);
	if (!text) {
		free(data);
		return fault__usage(fault, "--attach-file %.200s: not a text file: it has a zero byte",
				    o->attach_file);
	}
	text[size] = 0;
	return add_lines(o, text, fault);
}
