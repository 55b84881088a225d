/* kernels_onednn.h: what kernels_blas.c asks of oneDNN; for that file alone.
 *
 * Every function may say no (false, NULL); the caller then does the work with OpenBLAS.  Without oneDNN
 * (--without-onednn) all of them do.
 */
#ifndef CARZEROD_MODEL_KERNELS_ONEDNN_H
#define CARZEROD_MODEL_KERNELS_ONEDNN_H

#include "base/mem.h"

#include "model/kernels.h"

#ifdef WITH_ONEDNN

bool onednn_has(enum kernels_precision precision); /* with full speed on this CPU */
void onednn_set_threads(unsigned n);
const char *onednn_core(void);

/* f(arg, from, to) on parts of 0 .. n, in the threads that oneDNN has anyway. */
void onednn_each(size_t n, void (*f)(void *arg, size_t from, size_t to), void *arg);

/* c = alpha * a * op(b) + beta * c; op is the transpose or nothing. */
bool onednn_matmul(bool transpose, float alpha, const float *a, size_t lda, /* [n, k] */
		   const float *b, size_t ldb,				     /* [m, k] or [k, m] */
		   float beta, float *c, size_t ldc,			     /* [n, m] */
		   size_t n, size_t m, size_t k);

struct kernels_packed *onednn_pack(const struct layer *l, size_t n, enum kernels_precision precision,
				   struct pool *pool);
void onednn_packed_free(struct kernels_packed *p);
bool onednn_layer(const struct layer *l, const void *x, void *y, size_t n, enum layer_end end);

/* The two products of self-attention: scores [heads, n, n] = q * transpose(k) without the scale, float;
 * out [n, dim] = shares [heads, n, n] * v; the rest rows of the precision. */
struct kernels_packed_attention *onednn_attention_new(size_t n, size_t dim, size_t heads,
						      enum kernels_precision precision);
void onednn_attention_free(struct kernels_packed_attention *a);
bool onednn_scores(struct kernels_packed_attention *a, const void *q, const void *k, float *scores);
bool onednn_mix(struct kernels_packed_attention *a, const void *shares, const void *v, void *out);

#else

static inline bool onednn_has(enum kernels_precision precision)
{
	(void)precision;
	return false;
}

static inline void onednn_set_threads(unsigned n)
{
	(void)n;
}

static inline const char *onednn_core(void)
{
	return "";
}

static inline void onednn_each(size_t n, void (*f)(void *arg, size_t from, size_t to), void *arg)
{
	f(arg, 0, n);
}

static inline bool onednn_matmul(bool transpose, float alpha, const float *a, size_t lda, const float *b,
				 size_t ldb, float beta, float *c, size_t ldc, size_t n, size_t m, size_t k)
{
	(void)transpose, (void)alpha, (void)a, (void)lda, (void)b, (void)ldb, (void)beta, (void)c, (void)ldc;
	(void)n, (void)m, (void)k;
	return false;
}

static inline struct kernels_packed *onednn_pack(const struct layer *l, size_t n,
						 enum kernels_precision precision, struct pool *pool)
{
	(void)l, (void)n, (void)precision, (void)pool;
	return NULL;
}

static inline void onednn_packed_free(struct kernels_packed *p)
{
	(void)p;
}

static inline bool onednn_layer(const struct layer *l, const void *x, void *y, size_t n, enum layer_end end)
{
	(void)l, (void)x, (void)y, (void)n, (void)end;
	return false;
}

static inline struct kernels_packed_attention *onednn_attention_new(size_t n, size_t dim, size_t heads,
								    enum kernels_precision precision)
{
	(void)n, (void)dim, (void)heads, (void)precision;
	return NULL;
}

static inline void onednn_attention_free(struct kernels_packed_attention *a)
{
	(void)a;
}

static inline bool onednn_scores(struct kernels_packed_attention *a, const void *q, const void *k,
				 float *scores)
{
	(void)a, (void)q, (void)k, (void)scores;
	return false;
}

static inline bool onednn_mix(struct kernels_packed_attention *a, const void *shares, const void *v, void *out)
{
	(void)a, (void)shares, (void)v, (void)out;
	return false;
}

#endif

#endif
