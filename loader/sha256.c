// SPDX-License-Identifier: Apache-2.0
#include "sha256.h"

#define BLOCK_SIZE 64

#if defined(__x86_64__) || defined(__aarch64__)
static const uint32_t round_constants[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};
#endif

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

static bool has_instructions(void)
{
	unsigned a, b, c, d;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSSE3) || !(c & bit_SSE4_1))
		return false;
	return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA);
}

/* The instructions want the state as two registers ABEF and CDGH. */
__attribute__((target("sha,ssse3,sse4.1"))) static void compress(uint32_t state[8], const uint8_t *data,
								 size_t blocks)
{
	const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
	__m128i abcd = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state), 0xb1);
	__m128i efgh = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(state + 4)), 0x1b);
	__m128i abef = _mm_alignr_epi8(abcd, efgh, 8), cdgh = _mm_blend_epi16(efgh, abcd, 0xf0);

	for (; blocks; blocks--, data += BLOCK_SIZE) {
		const __m128i abef_before = abef, cdgh_before = cdgh;
		__m128i m[4], sum;

		for (int i = 0; i < 4; i++)
			m[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)data + i), swap);
#pragma clang loop unroll(full)
		for (int i = 0; i < 16; i++) {
			sum = _mm_loadu_si128((const __m128i *)(round_constants + 4 * i));
			sum = _mm_add_epi32(m[i & 3], sum);
			cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
			abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0e));
			sum = _mm_sha256msg1_epu32(m[i & 3], m[(i + 1) & 3]);
			sum = _mm_add_epi32(sum, _mm_alignr_epi8(m[(i + 3) & 3], m[(i + 2) & 3], 4));
			m[i & 3] = _mm_sha256msg2_epu32(sum, m[(i + 3) & 3]);
		}
		abef = _mm_add_epi32(abef, abef_before);
		cdgh = _mm_add_epi32(cdgh, cdgh_before);
	}
	abcd = _mm_shuffle_epi32(abef, 0x1b);
	efgh = _mm_shuffle_epi32(cdgh, 0xb1);
	_mm_storeu_si128((__m128i *)state, _mm_blend_epi16(abcd, efgh, 0xf0));
	_mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(efgh, abcd, 8));
}
#elif defined(__aarch64__)
#include <arm_neon.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>

static bool has_instructions(void)
{
	return getauxval(AT_HWCAP) & HWCAP_SHA2;
}

__attribute__((target("sha2"))) static void compress(uint32_t state[8], const uint8_t *data, size_t blocks)
{
	uint32x4_t abcd = vld1q_u32(state), efgh = vld1q_u32(state + 4);

	for (; blocks; blocks--, data += BLOCK_SIZE) {
		const uint32x4_t abcd_before = abcd, efgh_before = efgh;
		uint32x4_t m[4], sum, last;

		for (int i = 0; i < 4; i++)
			m[i] = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(data + 16 * i)));
#pragma clang loop unroll(full)
		for (int i = 0; i < 16; i++) {
			sum = vaddq_u32(m[i & 3], vld1q_u32(round_constants + 4 * i));
			last = abcd;
			abcd = vsha256hq_u32(abcd, efgh, sum);
			efgh = vsha256h2q_u32(efgh, last, sum);
			m[i & 3] = vsha256su0q_u32(m[i & 3], m[(i + 1) & 3]);
			m[i & 3] = vsha256su1q_u32(m[i & 3], m[(i + 2) & 3], m[(i + 3) & 3]);
		}
		abcd = vaddq_u32(abcd, abcd_before);
		efgh = vaddq_u32(efgh, efgh_before);
	}
	vst1q_u32(state, abcd);
	vst1q_u32(state + 4, efgh);
}
#else
static bool has_instructions(void)
{
	return false;
}

static void compress(uint32_t state[8], const uint8_t *data, size_t blocks)
{
	(void)state;
	(void)data;
	(void)blocks;
}
#endif

/*
 * libsodium's state is the hash so far, the message's length in bits, and the bytes of an unfinished
 * block. It keeps padding and the end; should it ever mean something else, every digest is wrong and
 * every object refused.
 */
void sha256__update(crypto_hash_sha256_state *state, const uint8_t *data, size_t size)
{
	size_t begun = state->count / 8 % BLOCK_SIZE, head = begun ? BLOCK_SIZE - begun : 0, blocks;

	if (size < head + BLOCK_SIZE || !has_instructions()) {
		crypto_hash_sha256_update(state, data, size);
		return;
	}
	crypto_hash_sha256_update(state, data, head);
	blocks = (size - head) / BLOCK_SIZE;
	compress(state->state, data + head, blocks);
	state->count += (uint64_t)blocks * BLOCK_SIZE * 8;
	head += blocks * BLOCK_SIZE;
	crypto_hash_sha256_update(state, data + head, size - head);
}
