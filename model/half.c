/* half.c: see half.h.  No branch in the loops, so that the compiler makes vectors of them: an embedding
 * of 197 x 768 numbers is widened for every picture that is scored again.
 */
#include <errno.h>
#include <string.h>

#include "model/half.h"

#define SIGN 0x8000u
#define HALF_INFINITY 0x7c00u
#define LIMIT 0x477ff000u     /* 65520: the least float that rounds to infinity */
#define SUBNORMAL 0x38800000u /* 2^-14: the least normal half */

static uint32_t bits_of(float x)
{
	uint32_t u;

	memcpy(&u, &x, sizeof(u));
	return u;
}

static float float_of(uint32_t u)
{
	float x;

	memcpy(&x, &u, sizeof(x));
	return x;
}

/* a: bits of a magnitude below LIMIT.  In a sum with 0.5 the last bit of the float is the last bit of a subnormal half:
 * the adder rounds.  A normal one changes its exponent's bias and is rounded by an addition that may carry into it. */
static uint32_t narrow(uint32_t a)
{
	uint32_t small = bits_of(float_of(a) + 0.5f) - bits_of(0.5f);
	uint32_t normal = (a - (112u << 23) + 0xfff + (a >> 13 & 1)) >> 13;

	return a < SUBNORMAL ? small : normal;
}

int half_from_float(const float *x, uint16_t *ret, size_t n)
{
	uint32_t largest = 0;

	for (size_t i = 0; i < n; i++) {
		uint32_t u = bits_of(x[i]), a = u & 0x7fffffffu;

		largest = a > largest ? a : largest;
		ret[i] = (uint16_t)((u >> 16 & SIGN) | narrow(a));
	}
	return largest < LIMIT ? 0 : -ERANGE;
}

int half_to_float(const uint16_t *x, float *ret, size_t n)
{
	uint32_t largest = 0;

	for (size_t i = 0; i < n; i++) {
		uint32_t a = x[i] & 0x7fffu;
		float magnitude = float_of(a << 13) * 0x1p112f; /* the exponent's bias, subnormals too */

		largest = a > largest ? a : largest;
		ret[i] = float_of(bits_of(magnitude) | (uint32_t)(x[i] & SIGN) << 16);
	}
	return largest < HALF_INFINITY ? 0 : -ERANGE;
}
