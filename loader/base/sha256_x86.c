// SPDX-License-Identifier: Apache-2.0
/*
 * OpenSSL asks the processor what it can, ten times at every start. In a virtual machine each question
 * is a way to the hypervisor and back, 50 us in all, where a whole verification takes 150. The C library
 * has asked already: tell OpenSSL's SHA-256 from there what it looks at, in the layout of
 * OPENSSL_ia32cap(3). With these two symbols defined, nothing links what would ask.
 */
#ifdef __x86_64__
#include <string.h>
#include <sys/platform/x86.h>

#define WORDS 10 /* of OpenSSL 3.5; 3.0 has four */

extern unsigned int OPENSSL_ia32cap_P[WORDS];
void OPENSSL_cleanse(void *data, size_t size);

unsigned int OPENSSL_ia32cap_P[WORDS];

void OPENSSL_cleanse(void *data, size_t size)
{
	explicit_bzero(data, size);
}

static unsigned int bit(int is_set, unsigned int number)
{
	return is_set ? 1u << number : 0;
}

__attribute__((constructor)) static void tell_openssl(void)
{
	OPENSSL_ia32cap_P[1] = bit(CPU_FEATURE_ACTIVE(SSSE3), 9);
	OPENSSL_ia32cap_P[2] = bit(CPU_FEATURE_ACTIVE(BMI1), 3) | bit(CPU_FEATURE_ACTIVE(AVX2), 5) |
			       bit(CPU_FEATURE_ACTIVE(BMI2), 8) | bit(CPU_FEATURE_ACTIVE(SHA), 29);
}
#endif
