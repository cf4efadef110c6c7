// SPDX-License-Identifier: Apache-2.0
/* Compares sha256__update() with libsodium for every length and cut that matters. */
#include "../sha256.h"

#include <stdio.h>
#include <string.h>

#define LONGEST 700

int main(void)
{
	static uint8_t data[LONGEST];
	uint8_t wanted[32], found[32];
	unsigned wrong = 0;

	for (unsigned i = 0; i < LONGEST; i++)
		data[i] = (uint8_t)(i * 2654435761u >> 13);
	for (unsigned size = 0; size <= LONGEST; size++) {
		for (unsigned cut = 0; cut <= size; cut += size < 200 ? 1 : 37) {
			crypto_hash_sha256_state state;

			crypto_hash_sha256(wanted, data, size);
			crypto_hash_sha256_init(&state);
			sha256__update(&state, data, cut);
			sha256__update(&state, data + cut, size - cut);
			crypto_hash_sha256_final(&state, found);
			wrong += memcmp(wanted, found, sizeof(found)) != 0;
		}
	}
	printf("%u wrong\n", wrong);
	return wrong != 0;
}
