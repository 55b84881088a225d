/* kernels.h: all arithmetic of the network.
 *
 * Row-major float32 unless a comment says "rows of the precision": those are float, or bfloat16 (2
 * bytes) where a layer was made ready for KERNELS_BF16.  A layer of KERNELS_INT8 takes and gives float
 * and has 8 bits inside (kernels_int8.h).  A weight is stored [out, in] as in the
 * checkpoint, so a layer is x times the transpose of w.  A leading dimension (ld...) is the distance
 * between rows in floats and lets one head of several be read in place.  Results do not depend on
 * anything but the arguments, the machine, the backend and the thread count.
 *
 * Three backends: OpenBLAS is always there and works on the weights as they lie in the file; oneDNN,
 * where it was built in, works on a copy in the order its code wants (layer_pack()), and does bf16; the
 * code of kernels_avx2.c, which comes with oneDNN, does layers and attention on a copy of its own and leaves the rest
 * to it.  A layer that one of them cannot do is done by OpenBLAS, counted by kernels_fallbacks().
 *
 * kernels_blas.c and kernels_onednn.c are the only doors to the libraries: no other file names them.
 */
#ifndef CARZEROD_MODEL_KERNELS_H
#define CARZEROD_MODEL_KERNELS_H

#include <stdbool.h>
#include <stddef.h>

#include "model/pool.h"

#define KERNELS_APART_MAX 4100 /* DIMS_POSITIONS_MAX of manifest.h, and two */

enum kernels_backend { KERNELS_OPENBLAS, KERNELS_ONEDNN, KERNELS_AVX2 };
enum kernels_precision { KERNELS_F32, KERNELS_BF16, KERNELS_INT8 };

/* First thing in a main(): the libraries' threads shall sleep while they wait, not spin.  Spinning gains
 * little on an idle machine and loses a factor of five on a busy one (SPEED.md).  OpenMP reads that from
 * the environment before main(), so the program starts itself again, once; a program that is started
 * with OMP_WAIT_POLICY, as carzerod-infer is by its keeper, goes on. */
void kernels_wait_asleep(char **argv);

/* Chooses the backend from now on; without a call the fastest here: AVX2 on a CPU with nothing wider, else
 * oneDNN, else OpenBLAS.  -ENOTSUP: not built, or not for this CPU.  Not while a layer is packed. */
int kernels_set_backend(enum kernels_backend backend);

/* The number of threads that the libraries use from now on, this one included.  Their own guess
 * depends on the machine; a fixed number gives the same bits every time.  May start threads: call it
 * before a sandbox closes.  n: 1 or more. */
void kernels_set_threads(unsigned n);

/* Backend, version and the code that it chose for this CPU, for people: "oneDNN 2.6.3
 * avx512_core_bf16".  Results of two cores may differ in the last bits, and so may their speed. */
const char *kernels_core(void);

/* Whether layers of this precision can be packed here: bf16 needs oneDNN and a CPU with bf16; int8 needs
 * VNNI and oneDNN, or AVX2 and our own code, which the backend AVX2 takes in any case. */
bool kernels_can(enum kernels_precision precision);

/* Whether layer_pack() copies at all here, and the number of threads, on which an order may depend. */
bool kernels_pack(void);
unsigned kernels_threads(void);
/* All code that results may come from, for digests: the choice, the libraries and what they chose. */
const char *kernels_identity(void);

/* How many times so far oneDNN was asked and could not: 0 on a healthy machine. */
unsigned long kernels_fallbacks(void);

/* ---- layers: y = x * transpose(w) + b, and what follows it ---- */

struct kernels_packed;

struct layer {
	const float *w; /* [out, in] */
	const float *b; /* [out] or NULL */
	size_t in, out;
	enum kernels_precision precision; /* of x, and of y except with LAYER_ADD */
	struct kernels_packed *packed;	  /* own: the copy in oneDNN's order */
	struct kernels_panels *panels;	  /* own: the copy in the order of kernels_avx2.c; neither: w is used */
};

enum layer_end {
	LAYER_PLAIN,
	LAYER_GELU,
	LAYER_RELU,
	LAYER_ADD, /* y += ...: a residual; y is float in every precision */
};

/* Not packed: OpenBLAS on w, float32.  w and b must outlive the struct. */
struct layer layer_of(const float *w, /* [out, in] */
		      const float *b, /* [out] or NULL */
		      size_t in, size_t out);
/* Copies w in the order that suits n rows at a time, and b, into a new pool, or takes both from a filled one;
 * the pool must outlive the layer.  float32 that oneDNN cannot do stays unpacked and is no error; -ENOTSUP
 * when another precision cannot be had, -ENOMEM. */
int layer_pack(struct layer *l, size_t n, enum kernels_precision precision, struct pool *pool);
void layer_release(struct layer *l); /* also of a zeroed one */

void layer_run(const struct layer *l, const void *x, /* [n, in] rows of the precision */
	       void *y,				     /* [n, out] */
	       size_t n, enum layer_end end);
/* Three layers of one shape on the same x: what is done to x first is done once. */
void layer_run_three(const struct layer *const l[3], const void *x, void *const y[3], size_t n);

/* ---- attention of rows on themselves, all heads at once ---- */

struct self_attention {
	size_t n, dim, heads;
	enum kernels_precision precision;
	bool own;				 /* kernels_avx2.c's */
	struct kernels_packed_attention *packed; /* own, or NULL: attention() */
};

/* As layer_pack(): float32 always succeeds; there is no int8. */
int self_attention_init(struct self_attention *a, size_t n, size_t dim, size_t heads,
			enum kernels_precision precision);
void self_attention_release(struct self_attention *a); /* also of a zeroed one */
/* Floats of scratch that self_attention_run() wants in any precision. */
size_t self_attention_scratch(size_t n, size_t heads);
void self_attention_run(const struct self_attention *a, const void *q, const void *k, const void *v,
			void *out,	/* all four [n, dim] rows of the precision */
			float *scratch);

/* ---- plain products ---- */

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

/* ---- rows ---- */

/* Each row minus its mean, over sqrt(biased variance + eps), times w, plus b.  y may be x. */
void layernorm(const float *x, /* [n, dim] */
	       const float *w, /* [dim] */
	       const float *b, /* [dim] */
	       float eps, float *y, /* [n, dim] */
	       size_t n, size_t dim);
/* The same; y: rows of the precision. */
void layernorm_to(const float *x, const float *w, const float *b, float eps, void *y, size_t n, size_t dim,
		  enum kernels_precision precision);

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

/* The same for n queries that each have a few keys of their own: query i meets rows first[i % period] ..
 * first[i % period + 1] of k and v, at most KERNELS_APART_MAX.  The result of a query depends on nothing else. */
void attention_apart(const float *q,			 /* [n, dim] */
		     const float *k, const float *v,	 /* [rows, dim] */
		     const float *count,		 /* [rows] as in softmax */
		     const size_t *first, size_t period, /* [period + 1] */
		     float *out,			 /* [n, dim] */
		     size_t n, size_t dim, size_t heads);

#endif
