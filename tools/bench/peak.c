/* peak.c: what one core of this machine multiplies and adds at best, registers only: the bound that
 * every other figure of ./run bench is a fraction of.  Prints "f32 G", "bf16 G" and "int8 G", 10^9 operations a
 * second, a product and its sum counted as two; CPU time, the best of some repeats.
 *
 * AVX-512 where the CPU has it, else AVX2; bf16 only with AVX512_BF16; int8 with VNNI, or as words with AVX2.
 */
#include <immintrin.h>
#include <stdio.h>
#include <time.h>

#define REPEATS 12
#define ROUNDS 4000000L
#define CHAINS 12 /* independent sums: more than latency times units */

static volatile float sink; /* keeps the loops from being optimised away */

static double cpu(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

__attribute__((target("avx512f"), optimize("O3", "unroll-all-loops"))) static void f32_512(void)
{
	__m512 x[CHAINS], m = _mm512_set1_ps(1.0001f), a = _mm512_set1_ps(1e-6f);

	for (int i = 0; i < CHAINS; i++)
		x[i] = _mm512_set1_ps((float)i);
	for (long n = 0; n < ROUNDS; n++)
		for (int i = 0; i < CHAINS; i++)
			x[i] = _mm512_fmadd_ps(x[i], m, a);
	for (int i = 0; i < CHAINS; i++)
		sink = _mm512_reduce_add_ps(x[i]);
}

__attribute__((target("avx2,fma"), optimize("O3", "unroll-all-loops"))) static void f32_256(void)
{
	__m256 x[CHAINS], m = _mm256_set1_ps(1.0001f), a = _mm256_set1_ps(1e-6f);

	for (int i = 0; i < CHAINS; i++)
		x[i] = _mm256_set1_ps((float)i);
	for (long n = 0; n < ROUNDS; n++)
		for (int i = 0; i < CHAINS; i++)
			x[i] = _mm256_fmadd_ps(x[i], m, a);
	for (int i = 0; i < CHAINS; i++)
		sink = _mm256_cvtss_f32(x[i]);
}

__attribute__((target("avx512f,avx512bw,avx512bf16"), optimize("O3", "unroll-all-loops"))) static void bf16_512(void)
{
	__m512 x[CHAINS];
	__m512bh m = (__m512bh)_mm512_set1_epi16(0x3f80), a = (__m512bh)_mm512_set1_epi16(0x3f81);

	for (int i = 0; i < CHAINS; i++)
		x[i] = _mm512_set1_ps((float)i);
	for (long n = 0; n < ROUNDS; n++)
		for (int i = 0; i < CHAINS; i++)
			x[i] = _mm512_dpbf16_ps(x[i], m, a);
	for (int i = 0; i < CHAINS; i++)
		sink = _mm512_reduce_add_ps(x[i]);
}

__attribute__((target("avx512f,avx512bw,avx512vnni"), optimize("O3", "unroll-all-loops"))) static void int8_512(void)
{
	__m512i x[CHAINS], m = _mm512_set1_epi8(3), a = _mm512_set1_epi8(1);

	for (int i = 0; i < CHAINS; i++)
		x[i] = _mm512_set1_epi32(i);
	for (long n = 0; n < ROUNDS; n++)
		for (int i = 0; i < CHAINS; i++)
			x[i] = _mm512_dpbusd_epi32(x[i], m, a);
	for (int i = 0; i < CHAINS; i++)
		sink = (float)_mm512_reduce_add_epi32(x[i]);
}

/* Without VNNI: products of words, exact (model/kernels_int8.h).  They have to differ from chain to chain, or
 * one would do for all. */
__attribute__((target("avx2"), optimize("O3", "unroll-all-loops"))) static void int8_256(void)
{
	__m256i x[CHAINS], m = _mm256_set1_epi16(3);

	for (int i = 0; i < CHAINS; i++)
		x[i] = _mm256_set1_epi32(i);
	for (long n = 0; n < ROUNDS; n++)
		for (int i = 0; i < CHAINS; i++)
			x[i] = _mm256_add_epi32(x[i], _mm256_madd_epi16(x[i], m));
	for (int i = 0; i < CHAINS; i++)
		sink = (float)_mm256_extract_epi32(x[i], 0);
}

static void measure(const char *name, void (*loop)(void), double operations)
{
	double best = 0;

	for (int r = 0; r < REPEATS; r++) {
		double t = cpu(), g;

		loop();
		g = operations * CHAINS * (double)ROUNDS / (cpu() - t) * 1e-9;
		best = g > best ? g : best;
	}
	printf("%s %.1f\n", name, best);
}

int main(void)
{
	if (__builtin_cpu_supports("avx512f"))
		measure("f32", f32_512, 32);
	else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
		measure("f32", f32_256, 16);
	if (__builtin_cpu_supports("avx512bf16"))
		measure("bf16", bf16_512, 64);
	if (__builtin_cpu_supports("avx512vnni"))
		measure("int8", int8_512, 128);
	else if (__builtin_cpu_supports("avx2"))
		measure("int8", int8_256, 32);
	return 0;
}
