/* kernels_blas.c: the arithmetic of kernels.h on CBLAS (OpenBLAS) and plain loops, and the choice
 * between it, oneDNN (kernels_onednn.c) and our own code (kernels_avx2.c).
 *
 * Matrix products go to a library.  The rest (layer norm, GELU, softmax) are loops that the compiler
 * turns into vector code: on x86-64 each is compiled three times and the loader picks the widest that
 * the CPU has.  Sums run in a fixed number of lanes, so their order never depends on that choice.
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
#include "model/kernels_avx2.h"
#include "model/kernels_math.h"
#include "model/kernels_onednn.h"

#define ROW_MAX 4096 /* floats: the widest row to be normed, DIMS_DIM_MAX of manifest.h */
#define LANES 16 /* partial sums; one AVX-512 register, and a fixed order on every machine */

/* ---- the choice ---- */

static bool chosen; /* by kernels_set_backend() */
static enum kernels_backend choice;
static unsigned long fallbacks;
static unsigned threads; /* 0: the libraries' own choice */

/* Counts a no of what is not OpenBLAS. */
static bool done(bool yes)
{
	fallbacks += !yes;
	return yes;
}

static bool is_here(enum kernels_backend backend)
{
	switch (backend) {
	case KERNELS_OPENBLAS: return true;
	case KERNELS_ONEDNN: return onednn_has(KERNELS_F32);
	case KERNELS_AVX2: return onednn_has(KERNELS_F32) && avx2_here();
	}
	return false;
}

static enum kernels_backend backend_now(void)
{
	if (!chosen)
		choice = is_here(KERNELS_AVX2) && avx2_best() ? KERNELS_AVX2
			 : is_here(KERNELS_ONEDNN)	      ? KERNELS_ONEDNN
							      : KERNELS_OPENBLAS;
	chosen = true;
	return choice;
}

/* Also where layers are our own: plain products and threads. */
static bool use_onednn(void)
{
	return backend_now() != KERNELS_OPENBLAS;
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
	if (!is_here(backend))
		return -ENOTSUP;
	choice = backend;
	chosen = true;
	return 0;
}

void kernels_set_threads(unsigned n)
{
	threads = n;
	openblas_set_num_threads(n > INT_MAX ? INT_MAX : (int)n);
	onednn_set_threads(n);
}

const char *kernels_core(void)
{
	static char text[64];

	if (backend_now() == KERNELS_ONEDNN)
		return onednn_core();
	if (backend_now() == KERNELS_AVX2)
		return "carzerod avx2";
	(void)snprintf(text, sizeof(text), "OpenBLAS %s", openblas_get_corename());
	return text;
}

/* int8 without VNNI is ours in any case: what oneDNN does there saturates (kernels_int8.h). */
static bool own_layers(enum kernels_precision precision)
{
	return (backend_now() == KERNELS_AVX2 && precision == KERNELS_F32) ||
	       (precision == KERNELS_INT8 && avx2_here() && use_onednn() &&
		(backend_now() == KERNELS_AVX2 || !onednn_has(precision)));
}

bool kernels_can(enum kernels_precision precision)
{
	return precision == KERNELS_F32 || own_layers(precision) || (use_onednn() && onednn_has(precision));
}

unsigned long kernels_fallbacks(void)
{
	return fallbacks;
}

bool kernels_pack(void)
{
	return use_onednn();
}

unsigned kernels_threads(void)
{
	return threads;
}

const char *kernels_identity(void)
{
	static char text[512];
	char core[64];

	(void)snprintf(core, sizeof(core), "%s", kernels_core());
	(void)snprintf(text, sizeof(text), "%s; %s; %s %s", core, onednn_core(), openblas_get_config(),
		       openblas_get_corename());
	return text;
}

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
	    done(onednn_matmul(true, alpha, a, lda, b, ldb, beta, c, ldc, n, m, k)))
		return;
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, blas_int(n), blas_int(m), blas_int(k), alpha,
		    a, blas_int(lda), b, blas_int(ldb), beta, c, blas_int(ldc));
}

void matmul_nn(float alpha, const float *a, size_t lda, const float *b, size_t ldb, float beta,
	       float *c, size_t ldc, size_t n, size_t m, size_t k)
{
	if (use_onednn() &&
	    done(onednn_matmul(false, alpha, a, lda, b, ldb, beta, c, ldc, n, m, k)))
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

	if (t->precision != KERNELS_BF16) {
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

	assert(precision != KERNELS_BF16 || dim <= ROW_MAX);
	each(n, layernorm_part, &work);
}

void layernorm(const float *x, const float *w, const float *b, float eps, float *y, size_t n, size_t dim)
{
	layernorm_to(x, w, b, eps, y, n, dim, KERNELS_F32);
}

VECTOR_CODE
void gelu(float *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		x[i] = gelu_of(x[i]);
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

/* A few keys are too few for a library: calling it would cost more than the products. */
struct apart_work {
	const float *q, *k, *v, *count; /* [n, dim], [rows, dim], [rows, dim], [rows] */
	const size_t *first;		/* [period + 1] */
	float *out;			/* [n, dim] */
	size_t period, dim, heads;
};

VECTOR_CODE
static void dots(const float *restrict q /* [n] */, const float *restrict k /* [keys, ldk] */, size_t ldk,
		 float *restrict ret /* [keys] */, size_t keys, size_t n)
{
	for (size_t i = 0; i < keys; i++) {
		const float *row = k + i * ldk; /* [n] */
		float sum[LANES] = { 0 };
		size_t j;

		for (j = 0; j + LANES <= n; j += LANES)
			for (size_t l = 0; l < LANES; l++)
				sum[l] += q[j + l] * row[j + l];
		for (; j < n; j++)
			sum[j % LANES] += q[j] * row[j];
		ret[i] = lanes_sum(sum);
	}
}

VECTOR_CODE
static void weighted_sum(const float *restrict share /* [keys] */, const float *restrict v /* [keys, ldv] */, size_t ldv,
			 float *restrict ret /* [n] */, size_t keys, size_t n)
{
	for (size_t j = 0; j < n; j++)
		ret[j] = 0;
	for (size_t i = 0; i < keys; i++)
		for (size_t j = 0; j < n; j++)
			ret[j] += share[i] * v[i * ldv + j];
}

static void apart_part(void *arg, size_t from, size_t to)
{
	const struct apart_work *t = arg;
	size_t d = t->dim, width = d / t->heads;
	float scores[KERNELS_APART_MAX];

	for (size_t i = from; i < to; i++) {
		size_t at = t->first[i % t->period], keys = t->first[i % t->period + 1] - at;

		assert(keys <= KERNELS_APART_MAX);
		for (size_t h = 0; h < t->heads; h++) {
			size_t column = h * width;

			dots(t->q + i * d + column, t->k + at * d + column, d, scores, keys, width);
			softmax_rows(scores, t->count + at, 1 / sqrtf((float)width), 1, keys);
			weighted_sum(scores, t->v + at * d + column, d, t->out + i * d + column, keys, width);
		}
	}
}

void attention_apart(const float *q, const float *k, const float *v, const float *count, const size_t *first,
		     size_t period, float *out, size_t n, size_t dim, size_t heads)
{
	struct apart_work work = { .q = q, .k = k, .v = v, .count = count, .first = first, .out = out,
				   .period = period, .dim = dim, .heads = heads };

	each(n, apart_part, &work);
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
	if (!kernels_can(precision) || precision == KERNELS_INT8)
		return -ENOTSUP;
	a->own = backend_now() == KERNELS_AVX2 && precision == KERNELS_F32;
	if (a->own)
		return 0;
	if (use_onednn())
		a->packed = onednn_attention_new(n, dim, heads, precision);
	if (use_onednn() && !done(a->packed != NULL) && precision != KERNELS_F32)
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

	if (a->own && done(avx2_attention(a->n, a->dim, a->heads, q, k, v, out)))
		return;
	if (a->packed != NULL && done(onednn_scores(a->packed, q, k, scratch))) {
		each(rows, shares_part, &work);
		if (done(onednn_mix(a->packed, narrowed ? (const void *)work.shares : scratch, v, out)))
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

int layer_pack(struct layer *l, size_t n, enum kernels_precision precision, struct pool *pool)
{
	if (!kernels_can(precision))
		return -ENOTSUP;
	l->precision = precision;
	if (own_layers(precision)) {
		l->panels = avx2_pack(l, n, precision, pool);
		return l->panels != NULL ? 0 : -ENOMEM;
	}
	if (use_onednn() && l->b != NULL && !pool_keep(pool, &l->b, l->out))
		return -ENOMEM;
	if (use_onednn())
		l->packed = onednn_pack(l, n, precision, pool);
	if (use_onednn() && !done(l->packed != NULL) && precision != KERNELS_F32)
		return -ENOTSUP;
	return 0;
}

void layer_release(struct layer *l)
{
	onednn_packed_free(l->packed);
	avx2_panels_free(l->panels);
	l->packed = NULL;
	l->panels = NULL;
}

void layer_run(const struct layer *l, const void *x, void *y, size_t n, enum layer_end end)
{
	float *at = y; /* with panels it is */

	if (l->panels != NULL && done(avx2_layers(&l, 1, x, &at, n, end)))
		return;
	if (l->packed != NULL && done(onednn_layer(l, x, y, n, end)))
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

void layer_run_three(const struct layer *const l[3], const void *x, void *const y[3], size_t n)
{
	float *const at[] = { y[0], y[1], y[2] };

	if (l[0]->panels != NULL && l[1]->panels != NULL && l[2]->panels != NULL &&
	    l[0]->precision == l[1]->precision && l[1]->precision == l[2]->precision &&
	    done(avx2_layers(l, 3, x, at, n, LAYER_PLAIN)))
		return;
	for (size_t i = 0; i < 3; i++)
		layer_run(l[i], x, y[i], n, LAYER_PLAIN);
}
