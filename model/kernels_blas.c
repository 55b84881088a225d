/* kernels_blas.c: the arithmetic of kernels.h on CBLAS (OpenBLAS) and plain loops, and the choice
 * between it and oneDNN (kernels_onednn.c).
 *
 * Matrix products go to a library.  The rest (layer norm, GELU, softmax) are loops that the compiler
 * turns into vector code: on x86-64 each is compiled three times and the loader picks the widest that
 * the CPU has.  Sums run in a fixed number of lanes, so their order never depends on that choice.
 *
 * exp and erf are polynomials of our own (below), because a libm call per element would cost as much
 * as a third of the network: 5.6 M exp and 7.3 M erf an image.  They are within 2 ulp of the true
 * values (tests/test_model.c measures it against libm in double), which is what the reference's own
 * vector library promises.
 */
#include <assert.h>
#include <cblas.h>
#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

#include "model/kernels.h"
#include "model/kernels_onednn.h"

/* gcc only vectorises freely at -O3; clang does at -O2 and has no such attribute. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define VECTOR_CODE                                                                                \
	__attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"), optimize("O3", "no-trapping-math")))
#else
#define VECTOR_CODE
#endif

#define ROW_MAX 4096 /* floats: the widest row to be normed, DIMS_DIM_MAX of manifest.h */
#define LANES 16 /* partial sums; one AVX-512 register, and a fixed order on every machine */

/* ---- the choice ---- */

static bool with_onednn = true; /* what was not built says no to everything */
static unsigned long fallbacks;

/* Counts a no of oneDNN. */
static bool done_by_onednn(bool yes)
{
	fallbacks += !yes;
	return yes;
}

static bool use_onednn(void)
{
	return with_onednn && onednn_has(KERNELS_F32);
}

void kernels_wait_asleep(char **argv)
{
	char path[PATH_MAX]; /* the link itself would name the process "exe" in ps */
	ssize_t n;

	if (!onednn_has(KERNELS_F32) || getenv("OMP_WAIT_POLICY") != NULL)
		return;
	n = readlink("/proc/self/exe", path, sizeof(path) - 1);
	if (n <= 0 || setenv("OMP_WAIT_POLICY", "passive", 0) < 0)
		return;
	path[n] = '\0';
	(void)execv(path, argv); /* where that fails, waiting spins */
}

int kernels_set_backend(enum kernels_backend backend)
{
	if (backend == KERNELS_ONEDNN && !onednn_has(KERNELS_F32))
		return -ENOTSUP;
	with_onednn = backend == KERNELS_ONEDNN;
	return 0;
}

void kernels_set_threads(unsigned n)
{
	openblas_set_num_threads(n > INT_MAX ? INT_MAX : (int)n);
	onednn_set_threads(n);
}

const char *kernels_core(void)
{
	static char text[64];

	if (use_onednn())
		return onednn_core();
	(void)snprintf(text, sizeof(text), "OpenBLAS %s", openblas_get_corename());
	return text;
}

bool kernels_can(enum kernels_precision precision)
{
	return precision == KERNELS_F32 || (use_onednn() && onednn_has(precision));
}

unsigned long kernels_fallbacks(void)
{
	return fallbacks;
}

#ifndef WITH_ONEDNN
struct kernels_pool *kernels_pool_new(void)
{
	return xcalloc(1, sizeof(struct kernels_pool)); /* nothing is ever packed */
}

void kernels_pool_free(struct kernels_pool *pool)
{
	free(pool);
}
#endif

/* f(arg, from, to) on all of 0 .. n: rows that do not know of each other. */
static void each(size_t n, void (*f)(void *arg, size_t from, size_t to), void *arg)
{
	if (use_onednn() && n > 1)
		onednn_each(n, f, arg);
	else
		f(arg, 0, n);
}

/* ---- plain products ---- */

/* BLAS takes int; every dimension here is bounded by the limits of model/manifest.h. */
static int blas_int(size_t n)
{
	assert(n <= INT_MAX);
	return (int)n;
}

void matmul_nt(float alpha, const float *a, size_t lda, const float *b, size_t ldb, float beta,
	       float *c, size_t ldc, size_t n, size_t m, size_t k)
{
	if (use_onednn() &&
	    done_by_onednn(onednn_matmul(true, alpha, a, lda, b, ldb, beta, c, ldc, n, m, k)))
		return;
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, blas_int(n), blas_int(m), blas_int(k), alpha,
		    a, blas_int(lda), b, blas_int(ldb), beta, c, blas_int(ldc));
}

void matmul_nn(float alpha, const float *a, size_t lda, const float *b, size_t ldb, float beta,
	       float *c, size_t ldc, size_t n, size_t m, size_t k)
{
	if (use_onednn() &&
	    done_by_onednn(onednn_matmul(false, alpha, a, lda, b, ldb, beta, c, ldc, n, m, k)))
		return;
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, blas_int(n), blas_int(m), blas_int(k),
		    alpha, a, blas_int(lda), b, blas_int(ldb), beta, c, blas_int(ldc));
}

void linear(const float *x, const float *w, const float *b, float *y, size_t n, size_t in, size_t out)
{
	if (b != NULL)
		for (size_t i = 0; i < n; i++)
			memcpy(y + i * out, b, out * sizeof(*y));
	matmul_nt(1, x, in, w, in, b != NULL ? 1 : 0, y, out, n, out, in);
}

VECTOR_CODE
static void add_to_rows(float *restrict y /* [n, dim] */, const float *restrict b /* [dim] */, size_t n,
			size_t dim)
{
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < dim; j++)
			y[i * dim + j] += b[j];
}

void linear_add(const float *x, const float *w, const float *b, float *y, size_t n, size_t in, size_t out)
{
	if (b != NULL)
		add_to_rows(y, b, n, out);
	matmul_nt(1, x, in, w, in, 1, y, out, n, out, in);
}

/* Adds up the lanes in pairs. */
static inline float lanes_sum(float *lane /* [LANES] */)
{
	for (size_t step = LANES / 2; step > 0; step /= 2)
		for (size_t j = 0; j < step; j++)
			lane[j] += lane[j + step];
	return lane[0];
}

/* ---- rows ---- */

/* float32 to bfloat16, to the nearest, ties to even; a NaN stays one. */
VECTOR_CODE
static void narrow(const float *restrict x, uint16_t *restrict y, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t bits, rounded;

		memcpy(&bits, &x[i], sizeof(bits));
		rounded = bits + 0x7fff + (bits >> 16 & 1);
		y[i] = (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? (bits >> 16 | 0x40) : rounded >> 16);
	}
}

VECTOR_CODE
static void layernorm_rows(const float *x, const float *w, const float *b, float eps, float *y, size_t n,
			   size_t dim)
{
	for (size_t i = 0; i < n; i++) {
		const float *in = x + i * dim; /* [dim] */
		float *out = y + i * dim;      /* [dim] */
		float sum[LANES] = { 0 }, square[LANES] = { 0 };
		float mean, scale;
		size_t j;

		for (j = 0; j + LANES <= dim; j += LANES)
			for (size_t l = 0; l < LANES; l++)
				sum[l] += in[j + l];
		for (; j < dim; j++)
			sum[j % LANES] += in[j];
		mean = lanes_sum(sum) / (float)dim;

		/* Two passes: the mean of squares minus the square of the mean would cancel. */
		for (j = 0; j + LANES <= dim; j += LANES)
			for (size_t l = 0; l < LANES; l++)
				square[l] += (in[j + l] - mean) * (in[j + l] - mean);
		for (; j < dim; j++)
			square[j % LANES] += (in[j] - mean) * (in[j] - mean);
		scale = 1 / sqrtf(lanes_sum(square) / (float)dim + eps);

		for (j = 0; j < dim; j++)
			out[j] = (in[j] - mean) * scale * w[j] + b[j];
	}
}

struct layernorm_work {
	const float *x, *w, *b; /* [n, dim], [dim], [dim] */
	float eps;
	void *y; /* [n, dim] */
	size_t dim;
	enum kernels_precision precision;
};

static void layernorm_part(void *arg, size_t from, size_t to)
{
	const struct layernorm_work *t = arg;
	float row[ROW_MAX];

	if (t->precision == KERNELS_F32) {
		layernorm_rows(t->x + from * t->dim, t->w, t->b, t->eps, (float *)t->y + from * t->dim,
			       to - from, t->dim);
		return;
	}
	for (size_t i = from; i < to; i++) {
		layernorm_rows(t->x + i * t->dim, t->w, t->b, t->eps, row, 1, t->dim);
		narrow(row, (uint16_t *)t->y + i * t->dim, t->dim);
	}
}

void layernorm_to(const float *x, const float *w, const float *b, float eps, void *y, size_t n, size_t dim,
		  enum kernels_precision precision)
{
	struct layernorm_work work = { .x = x, .w = w, .b = b, .eps = eps, .y = y, .dim = dim,
				       .precision = precision };

	assert(precision == KERNELS_F32 || dim <= ROW_MAX);
	each(n, layernorm_part, &work);
}

void layernorm(const float *x, const float *w, const float *b, float eps, float *y, size_t n, size_t dim)
{
	layernorm_to(x, w, b, eps, y, n, dim, KERNELS_F32);
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

VECTOR_CODE
void gelu(float *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		x[i] = x[i] * 0.5f * (1 + erf_of(x[i] * 0.707106781f));
}

VECTOR_CODE
void relu(float *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		x[i] = x[i] > 0 ? x[i] : 0;
}

/* Softmax of factor * x, factor > 0. */
VECTOR_CODE
static void softmax_rows(float *x, const float *count, float factor, size_t n, size_t m)
{
	for (size_t i = 0; i < n; i++) {
		float *row = x + i * m; /* [m] */
		float most[LANES], sum[LANES] = { 0 };
		float scale;
		size_t j;

		/* Taking the largest away changes nothing and keeps exp in range. */
		for (size_t l = 0; l < LANES; l++)
			most[l] = row[0];
		for (j = 0; j + LANES <= m; j += LANES)
			for (size_t l = 0; l < LANES; l++)
				most[l] = row[j + l] > most[l] ? row[j + l] : most[l];
		for (; j < m; j++)
			most[0] = row[j] > most[0] ? row[j] : most[0];
		for (size_t l = 1; l < LANES; l++)
			most[0] = most[l] > most[0] ? most[l] : most[0];
		scale = most[0];

		for (j = 0; j < m; j++)
			row[j] = exp_of((row[j] - scale) * factor);
		if (count != NULL)
			for (j = 0; j < m; j++)
				row[j] *= count[j];

		for (j = 0; j + LANES <= m; j += LANES)
			for (size_t l = 0; l < LANES; l++)
				sum[l] += row[j + l];
		for (; j < m; j++)
			sum[j % LANES] += row[j];
		scale = 1 / lanes_sum(sum);
		for (j = 0; j < m; j++)
			row[j] *= scale;
	}
}

void softmax(float *x, const float *count, size_t n, size_t m)
{
	softmax_rows(x, count, 1, n, m);
}

void attention(const float *q, size_t ldq, const float *k, size_t ldk, const float *v, size_t ldv,
	       const float *count, float *out, size_t ldo, float *scores, size_t nq, size_t nk, size_t dim,
	       size_t heads)
{
	size_t width = dim / heads;
	float scale = 1 / sqrtf((float)width);

	for (size_t h = 0; h < heads; h++) {
		size_t at = h * width; /* this head's first column */

		matmul_nt(scale, q + at, ldq, k + at, ldk, 0, scores, nk, nq, nk, width);
		softmax(scores, count, nq, nk);
		matmul_nn(1, scores, nk, v + at, ldv, 0, out + at, ldo, nq, width, nk);
	}
}

struct shares_work {
	float *x;	  /* [n, m] scores; with float32 the shares too */
	uint16_t *shares; /* [n, m] bfloat16, or NULL */
	float factor;
	size_t m;
};

static void shares_part(void *arg, size_t from, size_t to)
{
	const struct shares_work *t = arg;

	for (size_t i = from; i < to; i++) {
		softmax_rows(t->x + i * t->m, NULL, t->factor, 1, t->m);
		if (t->shares != NULL)
			narrow(t->x + i * t->m, t->shares + i * t->m, t->m);
	}
}

int self_attention_init(struct self_attention *a, size_t n, size_t dim, size_t heads,
			enum kernels_precision precision)
{
	*a = (struct self_attention){ .n = n, .dim = dim, .heads = heads, .precision = precision };
	if (!kernels_can(precision))
		return -ENOTSUP;
	if (use_onednn())
		a->packed = onednn_attention_new(n, dim, heads, precision);
	if (use_onednn() && !done_by_onednn(a->packed != NULL) && precision != KERNELS_F32)
		return -ENOTSUP;
	return 0;
}

void self_attention_release(struct self_attention *a)
{
	onednn_attention_free(a->packed);
	a->packed = NULL;
}

size_t self_attention_scratch(size_t n, size_t heads)
{
	return heads * n * n + heads * (n * n + 1) / 2; /* scores, and the shares in bfloat16 */
}

void self_attention_run(const struct self_attention *a, const void *q, const void *k, const void *v,
			void *out, float *scratch)
{
	size_t rows = a->heads * a->n;
	bool narrowed = a->precision == KERNELS_BF16;
	struct shares_work work = { .x = scratch, .m = a->n,
				    .shares = narrowed ? (uint16_t *)(void *)(scratch + rows * a->n) : NULL,
				    .factor = 1 / sqrtf((float)(a->dim / a->heads)) };

	if (a->packed != NULL && done_by_onednn(onednn_scores(a->packed, q, k, scratch))) {
		each(rows, shares_part, &work);
		if (done_by_onednn(onednn_mix(a->packed, narrowed ? (const void *)work.shares : scratch, v, out)))
			return;
	}
	if (!narrowed)
		attention(q, a->dim, k, a->dim, v, a->dim, NULL, out, a->dim, scratch, a->n, a->n, a->dim,
			  a->heads);
}

/* ---- layers ---- */

struct layer layer_of(const float *w, const float *b, size_t in, size_t out)
{
	return (struct layer){ .w = w, .b = b, .in = in, .out = out };
}

int layer_pack(struct layer *l, size_t n, enum kernels_precision precision, struct kernels_pool *pool)
{
	if (!kernels_can(precision))
		return -ENOTSUP;
	l->precision = precision;
	if (use_onednn())
		l->packed = onednn_pack(l, n, precision, pool);
	if (use_onednn() && !done_by_onednn(l->packed != NULL) && precision != KERNELS_F32)
		return -ENOTSUP;
	return 0;
}

void layer_release(struct layer *l)
{
	onednn_packed_free(l->packed);
	l->packed = NULL;
}

void layer_run(const struct layer *l, const void *x, void *y, size_t n, enum layer_end end)
{
	if (l->packed != NULL && done_by_onednn(onednn_layer(l, x, y, n, end)))
		return;
	if (l->precision != KERNELS_F32)
		return; /* there is no other way; kernels_fallbacks() tells */
	if (end == LAYER_ADD) {
		linear_add(x, l->w, l->b, y, n, l->in, l->out);
		return;
	}
	linear(x, l->w, l->b, y, n, l->in, l->out);
	if (end == LAYER_GELU)
		gelu(y, n * l->out);
	else if (end == LAYER_RELU)
		relu(y, n * l->out);
}
