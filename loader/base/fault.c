// SPDX-License-Identifier: Apache-2.0
#include "base/fault.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

int fault__set(struct fault *fault, int err, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(fault->text, sizeof(fault->text), format, args);
	va_end(args);
	return err;
}

int fault__usage(struct fault *fault, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(fault->text, sizeof(fault->text), format, args);
	va_end(args);
	fault->usage = true;
	return -EINVAL;
}

int fault__code(const struct fault *fault)
{
	return fault->usage ? EXIT_USAGE : EXIT_FAILED;
}
