/* kernels_int8.h: float32 to 8 bits and what a product of 8 bits means; for the kernels alone.
 *
 *	weights	 w = scale[out] * q, q in -127 .. 127: one scale for each column of the result
 *	rows	 x = scale * (u - zero), u in 0 .. 255: scale and zero from the least and the largest of
 *		 this row of this picture; so nothing is calibrated, and no picture can leave the range
 *	product	 y = scale of the row * scale of the column * sum((u - zero) * q), summed in int32
 *
 * The sum is exact: 255 * 127 * DIMS_HIDDEN_MAX is a quarter of what an int32 holds.  Whoever computes it
 * (kernels_avx2.c with words, oneDNN with VNNI) gets the same integers; code that adds pairs of products
 * in 16 bits (vpmaddubsw), and saturates, is not used.
 */
#ifndef CARZEROD_MODEL_KERNELS_INT8_H
#define CARZEROD_MODEL_KERNELS_INT8_H

#include <stddef.h>
#include <stdint.h>

/* One column's weights; returns the scale. */
float int8_column(const float *w /* [n] */, int8_t *ret /* [n] */, size_t n);

/* One row: ret holds u - zero.  Returns the scale; a NaN where the row has one, or an infinity. */
float int8_row(const float *x /* [n] */, int16_t *ret /* [n] */, int *ret_zero, size_t n);

#endif
