// SPDX-License-Identifier: Apache-2.0
#include "run/settings_file.h"

#include "base/fault.h"
#include "run/line_file.h"
#include "run/options.h"

#include <stdlib.h>
#include <string.h>

#define BLANK " "
#define FORM  "printable ASCII"

static int add_line(struct options *o, char *line, struct fault *fault)
{
	size_t size = strcspn(line, BLANK);
	char *value = line + size + strspn(line + size, BLANK);

	line[size] = 0;
	return options__add_word(o, *value ? line : "a word without a value", value, fault);
}

/* Move the items from @from on to the place @to before them. */
static void move_up(struct setting_option *items, size_t count, size_t from, size_t to)
{
	for (; from < count; from++, to++) {
		struct setting_option item = items[from];

		memmove(&items[to + 1], &items[to], (from - to) * sizeof(*items));
		items[to] = item;
	}
}

int settings_file__read(struct options *o, struct fault *fault)
{
	size_t before = o->setting_count;
	int err;

	if (!o->settings_file)
		return 0;
	err = line_file__read(o, "settings", o->settings_file, FORM, add_line, fault);
	if (!err)
		move_up(o->settings, o->setting_count, before, o->settings_at);
	return err;
}
