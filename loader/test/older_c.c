// SPDX-License-Identifier: Apache-2.0
/*
 * A function of newer C libraries that Debian 13's libbpf.a calls. Sanitizers need this machine's library,
 * which may lack it.
 */
#include <stdlib.h>

#if !__GLIBC_PREREQ(2, 38)
unsigned long long __isoc23_strtoull(const char *text, char **end, int base);

unsigned long long __isoc23_strtoull(const char *text, char **end, int base)
{
	return strtoull(text, end, base);
}
#endif
