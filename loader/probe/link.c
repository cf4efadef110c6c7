// SPDX-License-Identifier: Apache-2.0
#include "probe/link.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

__attribute__((format(printf, 2, 0))) static int print_warning(enum libbpf_print_level level,
							       const char *format, va_list args)
{
	return level == LIBBPF_WARN ? vfprintf(stderr, format, args) : 0;
}

static int report(const char *name, int err)
{
	fprintf(stderr, "bpf-probe: %s: %s\n", name, strerror(-err));
	return err;
}

int link__objects(const char *output, char *const *objects, int count)
{
	struct bpf_linker *linker;
	int err = 0;

	libbpf_set_print(print_warning);
	linker = bpf_linker__new(output, NULL);
	if (!linker)
		return report(output, -errno);
	for (int i = 0; i < count && !err; i++) {
		err = bpf_linker__add_file(linker, objects[i], NULL);
		if (err)
			report(objects[i], err);
	}
	if (!err) {
		err = bpf_linker__finalize(linker);
		if (err)
			report(output, err);
	}
	bpf_linker__free(linker);
	return err;
}
