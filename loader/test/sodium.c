// SPDX-License-Identifier: Apache-2.0
/*
 * sodium MAJOR MINOR: print whether sig__verify() accepts a signature whose R is not a valid point, and one
 * whose R is valid, if libsodium of this version accepts both. Linked with verify/sig.c; the functions below
 * replace libsodium.
 */
#include "verify/sig.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

static int major, minor;

int sodium_library_version_major(void)
{
	return major;
}

int sodium_library_version_minor(void)
{
	return minor;
}

int sodium_is_zero(const unsigned char *data, const size_t size)
{
	return !data && !size;
}

int crypto_sign_verify_detached(const unsigned char *signature, const unsigned char *data,
				unsigned long long size, const unsigned char *key)
{
	return signature[0] | key[0] || !data || !size ? -1 : 0;
}

int crypto_core_ed25519_is_valid_point(const unsigned char *point)
{
	return point[1];
}

static const char *verify(uint8_t valid)
{
	const uint8_t signature[64] = { 0, valid }, zero[64] = { 0 };

	return sig__verify(signature, zero, sizeof(zero), zero) ? "accepted" : "refused";
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 1;
	major = atoi(argv[1]);
	minor = atoi(argv[2]);
	return printf("%s %s\n", verify(0), verify(1)) < 0;
}
