// SPDX-License-Identifier: Apache-2.0
/* For sanitizers, which want this machine's C library: what libbpf.a of a newer one asks for. */
#include <stdlib.h>

#if !__GLIBC_PREREQ(2, 38)
unsigned long long __isoc23_strtoull(const char *text, char **end, int base);

unsigned long long __isoc23_strtoull(const char *text, char **end, int base)
{
	return strtoull(text, end, base);
}
#endif
