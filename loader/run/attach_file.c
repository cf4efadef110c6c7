// SPDX-License-Identifier: Apache-2.0
#include "run/attach_file.h"

#include "base/fault.h"
#include "run/line_file.h"
#include "run/options.h"

#include <string.h>

#define FORM "PROGRAM=TARGET"

static int add_line(struct options *o, char *line, struct fault *fault)
{
	if (strchr(line, ' '))
		return fault__usage(fault, "not " FORM);
	return options__add_attach(o, line, ATTACH_BY_FILE, fault);
}

int attach_file__read(struct options *o, struct fault *fault)
{
	return o->attach_file ? line_file__read(o, "attach-file", o->attach_file, FORM, add_line, fault) : 0;
}
