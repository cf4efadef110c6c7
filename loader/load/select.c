// SPDX-License-Identifier: Apache-2.0
#include "load/select.h"

#include <string.h>

static bool is_named(const char *object, const char *program, const char *file, const char *name)
{
	return !strcmp(program, name) && (!object || !strcmp(object, file));
}

enum selection select__find(const struct selection_options *o, const char *file, const char *name)
{
	const struct select_option *last = NULL;
	const struct attach_option *target = NULL;

	for (size_t i = 0; i < o->select_count; i++) {
		const struct select_option *s = &o->select[i];

		if (is_named(s->object, s->program, file, name) && (!last || s->source >= last->source))
			last = s;
	}
	for (size_t i = 0; i < o->attach_count; i++) {
		const struct attach_option *a = &o->attach[i];

		if (is_named(a->object, a->program, file, name) && (!target || a->source > target->source))
			target = a;
	}
	if (!last || last->loads)
		return last || target ? SELECT_ON : SELECT_DEFAULT;
	return target && target->source >= last->source ? SELECT_CONFLICT : SELECT_OFF;
}
