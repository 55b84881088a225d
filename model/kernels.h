/* kernels.h: all arithmetic of the network, on plain float arrays.
 *
 * Row-major float32 throughout.  A weight is stored [out, in] as in the checkpoint, so a layer is
 * x times the transpose of w.  A leading dimension (ld...) is the distance between rows in floats and
 * lets one head of several be read in place.  Nothing here allocates, fails, or knows the network;
 * results do not depend on anything but the arguments, the machine and the thread count.
 *
 * The only door to BLAS: no other header or file names it.
 */
#ifndef CARZEROD_MODEL_KERNELS_H
#define CARZEROD_MODEL_KERNELS_H

#include <stdbool.h>
#include <stddef.h>

/* The number of threads that BLAS uses from now on, this one included.  Its own guess depends on the
 * machine; a fixed number gives the same bits every time.  May start threads: call it before a sandbox
 * closes.  n: 1 or more. */
void kernels_set_threads(unsigned n);

/* The code that BLAS chose for this CPU, for people: "SkylakeX".  Results of two cores may differ in
 * the last bits, and so may their speed, by half. */
const char *kernels_core(void);

/* y = x * transpose(w) + b */
void linear(const float *x,    /* [n, in] */
	    const float *w,    /* [out, in] */
	    const float *b,    /* [out] or NULL */
	    float *y,	       /* [n, out] */
	    size_t n, size_t in, size_t out);
/* y += x * transpose(w) + b: a layer that ends in a residual. */
void linear_add(const float *x, /* [n, in] */
		const float *w, /* [out, in] */
		const float *b, /* [out] or NULL */
		float *y,	/* [n, out] */
		size_t n, size_t in, size_t out);

/* c = alpha * a * transpose(b) + beta * c */
void matmul_nt(float alpha, const float *a, size_t lda, /* [n, k] */
	       const float *b, size_t ldb,		/* [m, k] */
	       float beta, float *c, size_t ldc,	/* [n, m] */
	       size_t n, size_t m, size_t k);
/* c = alpha * a * b + beta * c */
void matmul_nn(float alpha, const float *a, size_t lda, /* [n, k] */
	       const float *b, size_t ldb,		/* [k, m] */
	       float beta, float *c, size_t ldc,	/* [n, m] */
	       size_t n, size_t m, size_t k);

/* Each row minus its mean, over sqrt(biased variance + eps), times w, plus b.  y may be x. */
void layernorm(const float *x, /* [n, dim] */
	       const float *w, /* [dim] */
	       const float *b, /* [dim] */
	       float eps, float *y, /* [n, dim] */
	       size_t n, size_t dim);

void gelu(float *x, size_t n); /* in place: x * (1 + erf(x / sqrt 2)) / 2, never the tanh form */
void relu(float *x, size_t n); /* in place */

/* Softmax of each row in place.  count: [m] how many equal keys a column stands for, or NULL for 1
 * each; a column that stands for c keys weighs c times and its result is the sum of theirs. */
void softmax(float *x, /* [n, m] */
	     const float *count, size_t n, size_t m);

/* out = softmax(q * transpose(k) / sqrt(dim / heads)) * v, head by head: head h owns columns
 * [h * dim/heads, (h+1) * dim/heads) of q, k, v and out. */
void attention(const float *q, size_t ldq, /* [nq, dim] */
	       const float *k, size_t ldk, /* [nk, dim] */
	       const float *v, size_t ldv, /* [nk, dim] */
	       const float *count,	   /* [nk] or NULL, as in softmax */
	       float *out, size_t ldo,	   /* [nq, dim] */
	       float *scores,		   /* [nq, nk] scratch */
	       size_t nq, size_t nk, size_t dim, size_t heads);

#endif
