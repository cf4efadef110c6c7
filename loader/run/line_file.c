// SPDX-License-Identifier: Apache-2.0
#include "run/line_file.h"

#include "base/fault.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BYTES 65536
#define BLANKS	  " \t"

/* Cut the blanks around a line. Returns NULL for an empty line and a comment. */
static char *trim(char *line)
{
	char *end = line + strlen(line);

	line += strspn(line, BLANKS);
	while (end > line && strchr(BLANKS, end[-1]))
		*--end = 0;
	return *line && *line != '#' ? line : NULL;
}

static bool is_printable(const char *line)
{
	for (; *line; line++) {
		if (*line < ' ' || *line > '~')
			return false;
	}
	return true;
}

int line_file__read(struct options *o, const char *option, const char *path, const char *form,
		    int (*add)(struct options *o, char *line, struct fault *fault), struct fault *fault)
{
	uint8_t *data = NULL;
	size_t size, number = 0;
	char *text, *line;
	int err;

	err = file__read(AT_FDCWD, path, MAX_BYTES, &data, &size);
	if (err) {
		fault__set(fault, err, "--%s %.200s: %s", option, path,
			   err == -EFBIG  ? "larger than 64 KiB" :
			   err == -ENODEV ? "not a regular file" :
					    strerror(-err));
		fault->usage = true;
		return err;
	}
	text = memchr(data, 0, size) ? NULL : realloc(data, size + 1);
	if (!text) {
		free(data);
		return fault__usage(fault, "--%s %.200s: not a text file: it has a zero byte", option, path);
	}
	text[size] = 0;
	/* The options point into the text, so it is never freed. */
	while ((line = strsep(&text, "\n"))) {
		struct fault inner = { 0 };

		number++;
		line = trim(line);
		if (!line)
			continue;
		if (!is_printable(line))
			fault__usage(&inner, "not %s", form);
		if (!is_printable(line) || add(o, line, &inner))
			return fault__usage(fault, "--%s %.200s, line %zu: %.160s", option, path, number,
					    inner.text);
	}
	return 0;
}
