/* kernels_avx2.h: what kernels_blas.c asks of our own code for CPUs with AVX2; for that file alone.
 *
 * It is built with oneDNN's, whose threads (OpenMP) it shares, and only on x86-64.  Elsewhere avx2_here()
 * is false and nothing else is called.
 */
#ifndef CARZEROD_MODEL_KERNELS_AVX2_H
#define CARZEROD_MODEL_KERNELS_AVX2_H

#include "model/kernels.h"

#if defined(WITH_ONEDNN) && defined(__x86_64__)

bool avx2_here(void); /* AVX2 and FMA */
bool avx2_best(void); /* and nothing wider, for which the libraries are the better choice */

/* The copy of a layer's weights in the order of the code, float or int8; NULL: no memory. */
struct kernels_panels *avx2_pack(const struct layer *l, size_t n, enum kernels_precision precision,
				 struct pool *pool);
void avx2_panels_free(struct kernels_panels *p); /* NULL allowed */
/* false: no memory, nothing is done. */
/* `count` layers of one shape and precision on the same x. */
bool avx2_layers(const struct layer *const *l, size_t count, const float *x, float *const *y, size_t n,
		 enum layer_end end);
bool avx2_attention(size_t n, size_t dim, size_t heads, const float *q, const float *k, const float *v,
		    float *out); /* all [n, dim] */

#else

static inline bool avx2_here(void)
{
	return false;
}

static inline bool avx2_best(void)
{
	return false;
}

static inline struct kernels_panels *avx2_pack(const struct layer *l, size_t n, enum kernels_precision precision,
					       struct pool *pool)
{
	(void)l, (void)n, (void)precision, (void)pool;
	return NULL;
}

static inline void avx2_panels_free(struct kernels_panels *p)
{
	(void)p;
}

static inline bool avx2_layers(const struct layer *const *l, size_t count, const float *x, float *const *y,
			       size_t n, enum layer_end end)
{
	(void)l, (void)count, (void)x, (void)y, (void)n, (void)end;
	return false;
}

static inline bool avx2_attention(size_t n, size_t dim, size_t heads, const float *q, const float *k,
				  const float *v, float *out)
{
	(void)n, (void)dim, (void)heads, (void)q, (void)k, (void)v, (void)out;
	return false;
}

#endif

#endif
