/* kernels_math.h: exp and erf as polynomials, and rounding, for the kernels' loops alone.
 *
 * A libm call per element would cost as much as a third of the network: 5.6 M exp and 7.3 M erf an
 * image.  Written for one element; the compiler makes vectors of the loop around it.  Within 2 ulp of
 * the true values (tests/test_model.c measures it against libm in double), which is what the reference's
 * own vector library promises.
 */
#ifndef CARZEROD_MODEL_KERNELS_MATH_H
#define CARZEROD_MODEL_KERNELS_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* gcc only vectorises freely at -O3; clang does at -O2 and has no such attribute.  On x86-64 a function is
 * compiled three times and the loader picks the widest that the CPU has. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define VECTOR_CODE                                                                                \
	__attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"), optimize("O3", "no-trapping-math")))
#else
#define VECTOR_CODE
#endif

/* Half to even, |x| < 2^22: adding 1.5 * 2^23 leaves the integer in the low bits. */
static inline __attribute__((always_inline)) int nearest_int(float x)
{
	float shifted = x + 12582912.0f;
	int32_t bits;

	memcpy(&bits, &shifted, sizeof(bits));
	return bits - 0x4b400000;
}

/* e^x for x <= 88.  Below -87 the result stays at e^-87, which is nothing in float32 terms.
 * x = n ln 2 + r with |r| <= ln 2 / 2; e^r = 1 + r + r^2 p(r), p a minimax fit (relative error 3e-9).
 * Adding 1.5 * 2^23 rounds to an integer and leaves n in the low bits, ready to become an exponent. */
static inline __attribute__((always_inline)) float exp_of(float x)
{
	const float round = 12582912.0f; /* 1.5 * 2^23 */
	float shifted, n, r, p, power;
	uint32_t bits;

	x = x < -87.0f ? -87.0f : x;
	shifted = x * 1.44269504f + round;
	n = shifted - round;
	r = (x - n * 0.693359375f) - n * -2.12194440e-4f; /* ln 2 in two parts, the first exact */
	p = 1.38146020e-3f;
	p = p * r + 8.36871520e-3f;
	p = p * r + 4.16683879e-2f;
	p = p * r + 1.66665206e-1f;
	p = p * r + 4.99999934e-1f;
	memcpy(&bits, &shifted, sizeof(bits));
	bits = (bits << 23) + (127u << 23);
	memcpy(&power, &bits, sizeof(power));
	return (1 + (r + r * r * p)) * power;
}

/* erf(x).  |x| < 1: x + x p(x^2); else 1 - e^(-t q(t)), t = |x|; both p and q minimax fits with
 * relative error under 3e-9.  From 4 on, erf is 1 in float32. */
static inline __attribute__((always_inline)) float erf_of(float x)
{
	float t = fabsf(x), s = x * x, p, q, small, large;

	p = 7.85386119e-5f;
	p = p * s - 8.01019358e-4f;
	p = p * s + 5.18832768e-3f;
	p = p * s - 2.68538119e-2f;
	p = p * s + 1.12835851e-1f;
	p = p * s - 3.76126258e-1f;
	p = p * s + 1.28379166e-1f;
	small = x + x * p;

	t = t > 4.0f ? 4.0f : t;
	q = -2.10642478e-4f;
	q = q * t + 3.18694075e-3f;
	q = q * t - 2.27984443e-2f;
	q = q * t + 1.05116111e-1f;
	q = q * t + 6.35831499e-1f;
	q = q * t + 1.12848003f;
	large = copysignf(1 - exp_of(-t * q), x);

	return t < 1.0f ? small : large;
}

static inline __attribute__((always_inline)) float gelu_of(float x)
{
	return x * 0.5f * (1 + erf_of(x * 0.707106781f));
}

#endif
