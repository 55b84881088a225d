/* kernels_avx2.c: dense layers and attention in our own code, for CPUs with AVX2 and nothing wider.
 *
 * There oneDNN 2.6 and OpenBLAS copy the weights into their order for every picture and reach 0.56 of
 * the core's peak over the image tower (SPEED.md).  Here they are copied once:
 *
 *	panel        16 columns of the result: [in, 16], what one step of the inner loop reads
 *	rows         6 rows of x: [in, 6], copied before each product, all rows by all threads
 *	tile         6 x 16 sums in twelve registers, over DEEP of `in` at a time
 *	group        GROUP panels that one thread does for all rows, DEEP after DEEP: so rows stay in the
 *	             second-level cache and a panel in the first
 *
 * While a panel is multiplied the next one is fetched from memory, a line every few steps: a picture
 * reads 343 MB of weights once, and would otherwise wait for each.  Bias, GELU, ReLU and the residual
 * are done on the tile before it is stored.  Attention takes six queries of one head through scores,
 * softmax and mixture; no more than their scores ever exist.
 *
 * Threads take groups (heads) as they come, but a result is computed in one order whoever does it:
 * the same arguments give the same bits with any number of threads.
 */
#include "model/kernels_avx2.h"

#if defined(WITH_ONEDNN) && defined(__x86_64__)

#include <immintrin.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/mem.h"

#include "model/kernels_math.h"
#include "model/kernels_onednn.h"

#define ROWS 6	    /* of a tile */
#define COLUMNS 16  /* of a tile and a panel: two vectors */
#define DEEP 384    /* of a row and a panel at a time: 9 + 24 KB */
#define GROUP 4	    /* panels */
#define FETCH 32    /* steps for one line of the next panel: enough for all of it in 33 tiles of 198 rows */
#define LINE 64	    /* bytes */

#ifdef __clang__
#define AVX2 __attribute__((target("avx2,fma")))
#else
#define AVX2 __attribute__((target("avx2,fma"), optimize("O3", "no-trapping-math"))) /* as in kernels_blas.c */
#endif
#define AVX2_INLINE AVX2 static inline __attribute__((always_inline))

bool avx2_here(void)
{
	return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

bool avx2_best(void)
{
	return avx2_here() && !__builtin_cpu_supports("avx512f");
}

static size_t parts(size_t n, size_t of)
{
	return (n + of - 1) / of;
}

/* ---- memory that every product uses in turn ---- */

/* At least n floats, or NULL; a product is asked for by one thread, so one of them is enough. */
static float *scratch(size_t n)
{
	static float *memory;
	static size_t size;
	const size_t huge = (size_t)2 << 20;

	if (n > size) {
		size_t bytes = parts(n * sizeof(float), huge) * huge;

		free(memory);
		memory = aligned_alloc(huge, bytes);
		size = memory != NULL ? bytes / sizeof(float) : 0;
		if (memory != NULL)
			(void)madvise(memory, bytes, MADV_HUGEPAGE); /* a wish */
	}
	return memory;
}

/* ---- rows ---- */

/* Up to six rows as [k, 6]; what is missing is zero. */
AVX2 static void pack_rows(const float *x /* [n, ldx] */, size_t ldx, size_t n, size_t k, float *ret /* [k, 6] */)
{
	size_t p = 0;

	if (n == ROWS) {
		for (; p + 4 <= k; p += 4, ret += 4 * ROWS) {
			__m128 a = _mm_loadu_ps(x + p), b = _mm_loadu_ps(x + ldx + p);
			__m128 c = _mm_loadu_ps(x + 2 * ldx + p), d = _mm_loadu_ps(x + 3 * ldx + p);
			__m128 e = _mm_loadu_ps(x + 4 * ldx + p), f = _mm_loadu_ps(x + 5 * ldx + p);
			__m128 low = _mm_unpacklo_ps(e, f), high = _mm_unpackhi_ps(e, f); /* e0 f0 e1 f1, e2 f2 e3 f3 */

			_MM_TRANSPOSE4_PS(a, b, c, d);
			_mm_storeu_ps(ret, a);
			_mm_storel_pi((__m64 *)(void *)(ret + 4), low);
			_mm_storeu_ps(ret + 6, b);
			_mm_storeh_pi((__m64 *)(void *)(ret + 10), low);
			_mm_storeu_ps(ret + 12, c);
			_mm_storel_pi((__m64 *)(void *)(ret + 16), high);
			_mm_storeu_ps(ret + 18, d);
			_mm_storeh_pi((__m64 *)(void *)(ret + 22), high);
		}
	}
	for (; p < k; p++, ret += ROWS)
		for (size_t r = 0; r < ROWS; r++)
			ret[r] = r < n ? x[r * ldx + p] : 0;
}

/* ---- the tile ---- */

struct tile {
	__m256 sum[ROWS][2];
};

/* t += rows * panel over k steps; `next` is fetched meanwhile, a line every FETCH steps. */
AVX2_INLINE void tile_multiply(struct tile *t, const float *rows /* [k, 6] */, const float *panel /* [k, 16] */,
			       size_t k, const char *next)
{
	size_t p = 0;

#define STEP(p)                                                                                    \
	do {                                                                                       \
		__m256 left = _mm256_load_ps(panel + (p) * COLUMNS);                               \
		__m256 right = _mm256_load_ps(panel + (p) * COLUMNS + 8);                          \
		_Pragma("GCC unroll 6") for (int r = 0; r < ROWS; r++)                             \
		{                                                                                  \
			__m256 x = _mm256_broadcast_ss(rows + (p) * ROWS + r);                     \
			t->sum[r][0] = _mm256_fmadd_ps(x, left, t->sum[r][0]);                     \
			t->sum[r][1] = _mm256_fmadd_ps(x, right, t->sum[r][1]);                    \
		}                                                                                  \
	} while (0)

	for (; p + FETCH <= k; p += FETCH, next += LINE) {
		_mm_prefetch(next, _MM_HINT_T1);
		_Pragma("GCC unroll 4") for (size_t i = 0; i < FETCH; i++)
			STEP(p + i);
	}
	for (; p < k; p++)
		STEP(p);
#undef STEP
}

/* 16 of y, or the `columns` that there are. */
AVX2_INLINE void load_row(const float *y, size_t columns, __m256 ret[2])
{
	float part[COLUMNS] = { 0 };

	if (columns < COLUMNS) {
		memcpy(part, y, columns * sizeof(*y));
		y = part;
	}
	ret[0] = _mm256_loadu_ps(y);
	ret[1] = _mm256_loadu_ps(y + 8);
}

AVX2_INLINE void store_row(float *y, size_t columns, const __m256 row[2])
{
	float part[COLUMNS];
	float *to = columns < COLUMNS ? part : y;

	_mm256_storeu_ps(to, row[0]);
	_mm256_storeu_ps(to + 8, row[1]);
	if (columns < COLUMNS)
		memcpy(y, part, columns * sizeof(*y));
}

AVX2 static void gelu_row(__m256 row[2])
{
	float x[COLUMNS];

	_mm256_storeu_ps(x, row[0]);
	_mm256_storeu_ps(x + 8, row[1]);
	for (size_t i = 0; i < COLUMNS; i++)
		x[i] = gelu_of(x[i]);
	row[0] = _mm256_loadu_ps(x);
	row[1] = _mm256_loadu_ps(x + 8);
}

/* ---- layers ---- */

struct kernels_panels {
	const float *w; /* [parts(out, 16), in, 16] */
	const float *b; /* [parts(out, 16), 16], zero where there is none */
};

struct kernels_panels *avx2_pack(const struct layer *l, size_t n, struct pool *pool)
{
	size_t panels = parts(l->out, COLUMNS);
	float *w = pool_take(pool, panels * COLUMNS * l->in * sizeof(float), COLUMNS);
	float *b = pool_take(pool, panels * COLUMNS * sizeof(float), COLUMNS);
	struct kernels_panels *ret;

	if (w == NULL || b == NULL || scratch(parts(n, ROWS) * ROWS * l->in) == NULL)
		return NULL;
	for (size_t o = 0; o < panels * COLUMNS && !pool_filled(pool); o++) {
		float *to = w + o / COLUMNS * COLUMNS * l->in + o % COLUMNS; /* [in] at a distance of 16 */

		b[o] = o < l->out && l->b != NULL ? l->b[o] : 0;
		for (size_t i = 0; i < l->in; i++)
			to[i * COLUMNS] = o < l->out ? l->w[o * l->in + i] : 0;
	}
	ret = xcalloc(1, sizeof(*ret));
	*ret = (struct kernels_panels){ .w = w, .b = b };
	return ret;
}

void avx2_panels_free(struct kernels_panels *p)
{
	free(p); /* the rest is the pool's */
}

/* One tile of a layer from step `from` on, k steps. */
AVX2_INLINE void layer_tile(const float *rows, const float *panel, const float *b /* [16] */, float *y,
			    size_t ldy, size_t n, size_t columns, size_t k, bool first, bool last,
			    enum layer_end end, const char *next)
{
	struct tile t;

	/* Before the last part y holds sums; a residual was there before. */
	_Pragma("GCC unroll 6") for (size_t r = 0; r < ROWS; r++) {
		t.sum[r][0] = t.sum[r][1] = _mm256_setzero_ps();
		if ((!first || end == LAYER_ADD) && r < n)
			load_row(y + r * ldy, columns, t.sum[r]);
	}
	tile_multiply(&t, rows, panel, k, next);
	_Pragma("GCC unroll 6") for (size_t r = 0; r < ROWS; r++) {
		if (last) {
			t.sum[r][0] = _mm256_add_ps(t.sum[r][0], _mm256_loadu_ps(b));
			t.sum[r][1] = _mm256_add_ps(t.sum[r][1], _mm256_loadu_ps(b + 8));
		}
		if (last && end == LAYER_GELU)
			gelu_row(t.sum[r]);
		if (last && end == LAYER_RELU) {
			t.sum[r][0] = _mm256_max_ps(t.sum[r][0], _mm256_setzero_ps());
			t.sum[r][1] = _mm256_max_ps(t.sum[r][1], _mm256_setzero_ps());
		}
		if (r < n)
			store_row(y + r * ldy, columns, t.sum[r]);
	}
}

struct layer_work {
	const struct layer *l;
	const float *rows; /* [parts(n, 6), in, 6] */
	float *y;	   /* [n, out] */
	size_t n;
	enum layer_end end;
	size_t ahead; /* panels to the next one that this thread probably does */
};

AVX2 static void layer_group(const struct layer_work *t, size_t group)
{
	size_t in = t->l->in, out = t->l->out, tiles = parts(t->n, ROWS);
	size_t panels = parts(out, COLUMNS), from = group * GROUP;
	size_t to = from + GROUP < panels ? from + GROUP : panels;

	for (size_t k = 0; k < in; k += DEEP) {
		size_t deep = in - k < DEEP ? in - k : DEEP;

		for (size_t j = from; j < to; j++) {
			const float *panel = t->l->panels->w + (j * in + k) * COLUMNS; /* [deep, 16] */
			size_t columns = out - j * COLUMNS < COLUMNS ? out - j * COLUMNS : COLUMNS;
			size_t then = j + 1 < to ? j + 1 : k + DEEP < in ? from : from + t->ahead;
			const float *next = t->l->panels->w +
					    (then * in + (j + 1 < to ? k : k + DEEP < in ? k + DEEP : 0)) * COLUMNS;

			for (size_t i = 0; i < tiles; i++)
				layer_tile(t->rows + (i * in + k) * ROWS, panel, t->l->panels->b + j * COLUMNS,
					   t->y + i * ROWS * out + j * COLUMNS, out,
					   t->n - i * ROWS < ROWS ? t->n - i * ROWS : ROWS, columns, deep, k == 0,
					   k + DEEP >= in, t->end,
					   (const char *)next + i * (deep / FETCH) * LINE);
		}
	}
}

bool avx2_layer(const struct layer *l, const float *x, float *y, size_t n, enum layer_end end)
{
	size_t tiles = parts(n, ROWS), groups = parts(parts(l->out, COLUMNS), GROUP), in = l->in;
	float *rows = scratch(tiles * ROWS * in);
	struct layer_work work = { .l = l, .rows = rows, .y = y, .n = n, .end = end };

	if (rows == NULL)
		return false;
#pragma omp parallel
	{
#pragma omp single
		work.ahead = GROUP * (size_t)omp_get_num_threads();
#pragma omp for schedule(static)
		for (size_t i = 0; i < tiles; i++)
			pack_rows(x + i * ROWS * in, in, n - i * ROWS < ROWS ? n - i * ROWS : ROWS, in,
				  rows + i * ROWS * in);
#pragma omp for schedule(dynamic, 1) nowait
		for (size_t g = 0; g < groups; g++)
			layer_group(&work, g);
	}
	return true;
}

/* ---- attention ---- */

struct attention_work {
	size_t n, dim, heads, width;
	const float *q, *k, *v; /* [n, dim] */
	float *out;		/* [n, dim] */
};

/* Floats of scratch of one thread. */
static size_t attention_room(size_t n, size_t width)
{
	size_t keys = parts(n, COLUMNS) * COLUMNS, columns = parts(width, COLUMNS) * COLUMNS;

	return parts(keys * width + n * columns + ROWS * width + 2 * ROWS * keys, COLUMNS) * COLUMNS;
}

/* Softmax of factor * x over m of each row; the first element's distance from a row to the next is ldx. */
AVX2 static void shares(float *x, size_t ldx, size_t n, size_t m, float factor)
{
	for (size_t i = 0; i < n; i++) {
		float *row = x + i * ldx; /* [m] */
		float most[COLUMNS], sum[COLUMNS] = { 0 };
		size_t j;

		for (size_t l = 0; l < COLUMNS; l++)
			most[l] = row[0];
		for (j = 0; j + COLUMNS <= m; j += COLUMNS)
			for (size_t l = 0; l < COLUMNS; l++)
				most[l] = row[j + l] > most[l] ? row[j + l] : most[l];
		for (; j < m; j++)
			most[0] = row[j] > most[0] ? row[j] : most[0];
		for (size_t l = 1; l < COLUMNS; l++)
			most[0] = most[l] > most[0] ? most[l] : most[0];
		for (j = 0; j < m; j++)
			row[j] = exp_of((row[j] - most[0]) * factor);
		for (j = 0; j + COLUMNS <= m; j += COLUMNS)
			for (size_t l = 0; l < COLUMNS; l++)
				sum[l] += row[j + l];
		for (; j < m; j++)
			sum[j % COLUMNS] += row[j];
		for (size_t step = COLUMNS / 2; step > 0; step /= 2)
			for (size_t l = 0; l < step; l++)
				sum[l] += sum[l + step];
		for (j = 0; j < m; j++)
			row[j] *= 1 / sum[0];
	}
}

/* rows [k, 6] times panels [parts(m, 16), k, 16] -> y [n, ldy], m columns. */
AVX2 static void product(const float *rows, const float *panels, size_t k, float *y, size_t ldy, size_t n, size_t m)
{
	for (size_t j = 0; j < m; j += COLUMNS, panels += k * COLUMNS) {
		struct tile t;

		_Pragma("GCC unroll 6") for (size_t r = 0; r < ROWS; r++)
			t.sum[r][0] = t.sum[r][1] = _mm256_setzero_ps();
		tile_multiply(&t, rows, panels, k, (const char *)(panels + k * COLUMNS));
		_Pragma("GCC unroll 6") for (size_t r = 0; r < ROWS; r++)
			if (r < n)
				store_row(y + r * ldy + j, m - j < COLUMNS ? m - j : COLUMNS, t.sum[r]);
	}
}

AVX2 static void attention_head(const struct attention_work *t, size_t h, float *room)
{
	size_t n = t->n, d = t->dim, width = t->width, keys = parts(n, COLUMNS) * COLUMNS;
	float *k = room;						       /* [keys / 16, width, 16] */
	float *v = k + keys * width;					       /* [width / 16, n, 16] */
	float *rows = v + n * parts(width, COLUMNS) * COLUMNS;		       /* [width, 6] */
	float *scores = rows + ROWS * width, *turned = scores + ROWS * keys;   /* [6, keys], [n, 6] */

	memset(k, 0, (size_t)((char *)rows - (char *)k));
	for (size_t i = 0; i < n; i++) {
		const float *ki = t->k + i * d + h * width, *vi = t->v + i * d + h * width; /* [width] */

		for (size_t c = 0; c < width; c++)
			k[i / COLUMNS * COLUMNS * width + c * COLUMNS + i % COLUMNS] = ki[c];
		for (size_t c = 0; c < width; c++)
			v[(c / COLUMNS * n + i) * COLUMNS + c % COLUMNS] = vi[c];
	}
	for (size_t i = 0; i < n; i += ROWS) {
		size_t m = n - i < ROWS ? n - i : ROWS;

		pack_rows(t->q + i * d + h * width, d, m, width, rows);
		product(rows, k, width, scores, keys, ROWS, keys);
		shares(scores, keys, m, n, 1 / sqrtf((float)width));
		pack_rows(scores, keys, m, n, turned);
		product(turned, v, n, t->out + i * d + h * width, d, m, width);
	}
}

bool avx2_attention(size_t n, size_t dim, size_t heads, const float *q, const float *k, const float *v, float *out)
{
	const struct attention_work work = { .n = n, .dim = dim, .heads = heads, .width = dim / heads,
					     .q = q, .k = k, .v = v, .out = out };
	size_t room = attention_room(n, work.width);
	float *memory = scratch(room * (size_t)omp_get_max_threads());

	if (memory == NULL)
		return false;
#pragma omp parallel for schedule(dynamic, 1)
	for (size_t h = 0; h < heads; h++)
		attention_head(&work, h, memory + room * (size_t)omp_get_thread_num());
	return true;
}

#endif
