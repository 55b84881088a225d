/* kernels_int8.c: see kernels_int8.h. */
#include <math.h>

#include "model/kernels_int8.h"
#include "model/kernels_math.h"

#define LEAST 1e-30f /* a range below is nothing: its inverse would not be finite */
#define LANES 16

VECTOR_CODE
float int8_column(const float *w, int8_t *ret, size_t n)
{
	float most = 0, inverse;

	for (size_t i = 0; i < n; i++)
		most = fabsf(w[i]) > most ? fabsf(w[i]) : most;
	inverse = most > LEAST ? 127 / most : 0;
	for (size_t i = 0; i < n; i++)
		ret[i] = (int8_t)nearest_int(w[i] * inverse);
	return most > LEAST ? most / 127 : 1;
}

VECTOR_CODE
float int8_row(const float *restrict x, int16_t *restrict ret, int *ret_zero, size_t n)
{
	float low[LANES] = { 0 }, high[LANES] = { 0 }, bad[LANES] = { 0 };
	float scale, inverse;
	size_t i;
	int zero;

	/* 0 is in the range, so that it stays 0.  x * 0 is 0 but for what is no number: a comparison
	 * would lose it, and with it the caller's chance to see that the weights are broken. */
	for (i = 0; i + LANES <= n; i += LANES)
		for (size_t l = 0; l < LANES; l++) {
			low[l] = x[i + l] < low[l] ? x[i + l] : low[l];
			high[l] = x[i + l] > high[l] ? x[i + l] : high[l];
			bad[l] += x[i + l] * 0;
		}
	for (; i < n; i++) {
		low[0] = x[i] < low[0] ? x[i] : low[0];
		high[0] = x[i] > high[0] ? x[i] : high[0];
		bad[0] += x[i] * 0;
	}
	for (size_t l = 1; l < LANES; l++) {
		low[0] = low[l] < low[0] ? low[l] : low[0];
		high[0] = high[l] > high[0] ? high[l] : high[0];
		bad[0] += bad[l];
	}

	scale = (high[0] - low[0]) / 255;
	inverse = scale > LEAST ? 1 / scale : 0;
	zero = nearest_int(-low[0] * inverse);
	for (i = 0; i < n; i++) {
		int v = nearest_int(x[i] * inverse); /* a NaN becomes some number; the scale tells */

		v = v < -zero ? -zero : v > 255 - zero ? 255 - zero : v;
		ret[i] = (int16_t)v;
	}
	*ret_zero = zero;
	return (scale > LEAST ? scale : 1) + bad[0];
}
