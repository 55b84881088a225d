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
 * int8 (kernels_int8.h) goes the same way with pairs of words where float has an element: vpmaddwd adds two
 * exact products into 32 bits, twice the products of an FMA.
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

#include "model/kernels_int8.h"
#include "model/kernels_math.h"
#include "model/kernels_onednn.h"

#define ROWS 6	    /* of a tile */
#define COLUMNS 16  /* of a tile and a panel: two vectors */
#define DEEP 384    /* of a row and a panel at a time: 9 + 24 KB */
#define GROUP 4	    /* panels; their int8 sums, 50 KB of 198 rows, stay in the second-level cache too */
#define FETCH 32    /* steps for one line of the next panel: enough for all of it in 33 tiles of 198 rows */
#define DEEP_PAIRS 384 /* the same of int8, which goes by pairs: 9 + 24 KB */
#define FETCH_PAIRS 64
#define PAIRS_ORDER 32 /* of an int8 block in a pool: 16 columns by 2 */
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

/* At least n bytes, or NULL; a product is asked for by one thread, so one of them is enough. */
static void *scratch(size_t n)
{
	static void *memory;
	static size_t size;
	const size_t huge = (size_t)2 << 20;

	if (n > size) {
		size_t bytes = parts(n, huge) * huge;

		free(memory);
		memory = aligned_alloc(huge, bytes);
		size = memory != NULL ? bytes : 0;
		if (memory != NULL)
			(void)madvise(memory, bytes, MADV_HUGEPAGE); /* a wish */
	}
	return memory;
}

/* ---- rows ---- */

/* Up to six rows as [k, 6]; what is missing is zero.  Four bytes are moved, whatever they mean. */
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
			if (r < n)
				memcpy(&ret[r], &x[r * ldx + p], sizeof(*ret));
			else
				ret[r] = 0;
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
	const float *w;	    /* [parts(out, 16), in, 16], or NULL: int8 */
	const int8_t *q;    /* [parts(out, 16), pairs, 16, 2] with pairs = parts(in, 2) */
	const float *scale; /* [parts(out, 16), 16] of q */
	const float *b;	    /* [parts(out, 16), 16], zero where there is none */
};

static bool pack_f32(const struct layer *l, size_t panels, struct pool *pool, struct kernels_panels *ret)
{
	float *w = pool_take(pool, panels * COLUMNS * l->in * sizeof(float), COLUMNS);

	if (w == NULL)
		return false;
	for (size_t o = 0; o < panels * COLUMNS && !pool_filled(pool); o++) {
		float *to = w + o / COLUMNS * COLUMNS * l->in + o % COLUMNS; /* [in] at a distance of 16 */

		for (size_t i = 0; i < l->in; i++)
			to[i * COLUMNS] = o < l->out ? l->w[o * l->in + i] : 0;
	}
	ret->w = w;
	return true;
}

static bool pack_int8(const struct layer *l, size_t panels, struct pool *pool, struct kernels_panels *ret)
{
	size_t pairs = parts(l->in, 2);
	int8_t *q = pool_take(pool, panels * COLUMNS * pairs * 2, PAIRS_ORDER);
	float *scale = pool_take(pool, panels * COLUMNS * sizeof(float), PAIRS_ORDER);
	CLEANUP(free) int8_t *column = xcalloc(l->in, 1);

	if (q == NULL || scale == NULL)
		return false;
	if (!pool_filled(pool))
		memset(q, 0, panels * COLUMNS * pairs * 2);
	for (size_t o = 0; o < panels * COLUMNS && !pool_filled(pool); o++) {
		int8_t *to = q + o / COLUMNS * COLUMNS * pairs * 2 + o % COLUMNS * 2;

		scale[o] = o < l->out ? int8_column(l->w + o * l->in, column, l->in) : 0;
		for (size_t i = 0; o < l->out && i < l->in; i++)
			to[i / 2 * COLUMNS * 2 + i % 2] = column[i];
	}
	ret->q = q;
	ret->scale = scale;
	return true;
}

/* What is outside a tile's sums when it ends. */
struct tile_end {
	const float *b;	    /* [16] */
	float *y;	    /* the tile's first element */
	size_t ldy, n, columns;
	enum layer_end end;
};

/* Row r of a tile, whose bias and residual are in already. */
AVX2_INLINE void end_row(const struct tile_end *e, size_t r, __m256 row[2])
{
	if (e->end == LAYER_GELU)
		gelu_row(row);
	if (e->end == LAYER_RELU) {
		row[0] = _mm256_max_ps(row[0], _mm256_setzero_ps());
		row[1] = _mm256_max_ps(row[1], _mm256_setzero_ps());
	}
	store_row(e->y + r * e->ldy, e->columns, row);
}

/* One tile of a float layer, k steps of it. */
AVX2_INLINE void tile_f32(const float *rows, const float *panel, size_t k, bool first, bool last,
			  const struct tile_end *e, const char *next)
{
	struct tile t;

	/* Before the last part y holds sums; a residual was there before. */
	_Pragma("GCC unroll 6") for (size_t r = 0; r < ROWS; r++) {
		__m256 row[2] = { _mm256_setzero_ps(), _mm256_setzero_ps() };

		if ((!first || e->end == LAYER_ADD) && r < e->n)
			load_row(e->y + r * e->ldy, e->columns, row);
		t.sum[r][0] = row[0];
		t.sum[r][1] = row[1];
	}
	tile_multiply(&t, rows, panel, k, next);
	_Pragma("GCC unroll 6") for (size_t r = 0; r < ROWS; r++) {
		__m256 row[2] = { t.sum[r][0], t.sum[r][1] };

		if (r >= e->n)
			continue;
		if (!last) {
			store_row(e->y + r * e->ldy, e->columns, row);
			continue;
		}
		row[0] = _mm256_add_ps(row[0], _mm256_loadu_ps(e->b));
		row[1] = _mm256_add_ps(row[1], _mm256_loadu_ps(e->b + 8));
		end_row(e, r, row);
	}
}

/* One tile of an int8 layer, k pairs of it.  sums: what came of the pairs before, unless first. */
AVX2_INLINE void tile_int8(const int32_t *rows /* [k, 6] pairs */, const int16_t *panel /* [k, 16, 2] */, size_t k,
			   __m256i *sums /* [6, 2] */, bool first, bool last, const float *row_scale /* [6] */,
			   const float *scale /* [16] */, const struct tile_end *e, const char *next)
{
	__m256i sum[ROWS][2];
	size_t p = 0;

	_Pragma("GCC unroll 6") for (size_t r = 0; r < ROWS; r++) {
		sum[r][0] = first ? _mm256_setzero_si256() : sums[r * 2];
		sum[r][1] = first ? _mm256_setzero_si256() : sums[r * 2 + 1];
	}
#define STEP(p)                                                                                         \
	do {                                                                                            \
		const __m256i *at = (const __m256i *)(const void *)(panel + (p) * COLUMNS * 2);         \
		__m256i left = _mm256_load_si256(at), right = _mm256_load_si256(at + 1);                \
		_Pragma("GCC unroll 6") for (int r = 0; r < ROWS; r++)                                  \
		{                                                                                       \
			__m256i x = _mm256_set1_epi32(rows[(p) * ROWS + r]);                            \
			sum[r][0] = _mm256_add_epi32(sum[r][0], _mm256_madd_epi16(x, left));            \
			sum[r][1] = _mm256_add_epi32(sum[r][1], _mm256_madd_epi16(x, right));           \
		}                                                                                       \
	} while (0)

	for (; p + FETCH_PAIRS <= k; p += FETCH_PAIRS, next += LINE) {
		_mm_prefetch(next, _MM_HINT_T1);
		_Pragma("GCC unroll 4") for (size_t i = 0; i < FETCH_PAIRS; i++)
			STEP(p + i);
	}
	for (; p < k; p++)
		STEP(p);
#undef STEP
	_Pragma("GCC unroll 6") for (size_t r = 0; r < ROWS; r++) {
		__m256 row[2], x = _mm256_broadcast_ss(row_scale + r), before[2];

		if (!last) {
			sums[r * 2] = sum[r][0];
			sums[r * 2 + 1] = sum[r][1];
		}
		if (!last || r >= e->n)
			continue;
		for (size_t i = 0; i < 2; i++)
			row[i] = _mm256_fmadd_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sum[r][i]), x),
						 _mm256_loadu_ps(scale + 8 * i), _mm256_loadu_ps(e->b + 8 * i));
		if (e->end == LAYER_ADD) {
			load_row(e->y + r * e->ldy, e->columns, before);
			row[0] = _mm256_add_ps(row[0], before[0]);
			row[1] = _mm256_add_ps(row[1], before[1]);
		}
		end_row(e, r, row);
	}
}

struct layer_work {
	const struct layer *const *l; /* [count], all of one shape */
	float *const *y;	      /* [count] of [n, out] */
	size_t n, in, out, tiles, panels;
	enum layer_end end;
	const float *rows;	/* [tiles, in, 6] */
	int32_t *pairs;		/* int8 instead: [tiles, parts(in, 2), 6] */
	float *row_scale;	/* and [tiles, 6] */
	uint8_t *own;		/* and what each thread needs, */
	size_t own_bytes;	/* this much */
	size_t ahead;		/* panels to the next group that a thread probably does */
};

static struct tile_end tile_end_of(const struct layer_work *t, size_t layer, size_t tile, size_t panel)
{
	return (struct tile_end){
		.b = t->l[layer]->panels->b + panel * COLUMNS,
		.y = t->y[layer] + tile * ROWS * t->out + panel * COLUMNS,
		.ldy = t->out,
		.n = t->n - tile * ROWS < ROWS ? t->n - tile * ROWS : ROWS,
		.columns = t->out - panel * COLUMNS < COLUMNS ? t->out - panel * COLUMNS : COLUMNS,
		.end = t->end,
	};
}

AVX2 static void group_f32(const struct layer_work *t, size_t layer, size_t from, size_t to)
{
	const float *w = t->l[layer]->panels->w;
	size_t in = t->in;

	for (size_t k = 0; k < in; k += DEEP) {
		size_t deep = in - k < DEEP ? in - k : DEEP;

		for (size_t j = from; j < to; j++) {
			size_t then = j + 1 < to ? j + 1 : k + DEEP < in ? from : from + t->ahead;
			size_t there = j + 1 < to ? k : k + DEEP < in ? k + DEEP : 0;
			const char *next = (const char *)(w + (then * in + there) * COLUMNS);

			for (size_t i = 0; i < t->tiles; i++) {
				struct tile_end e = tile_end_of(t, layer, i, j);

				tile_f32(t->rows + (i * in + k) * ROWS, w + (j * in + k) * COLUMNS, deep, k == 0,
					 k + DEEP >= in, &e, next + i * (deep / FETCH) * LINE);
			}
		}
	}
}

/* Words of the panel's bytes: the multiplication wants them, and they are used 33 times. */
AVX2 static void widen(const int8_t *q, int16_t *ret, size_t n /* a multiple of 32 */)
{
	for (size_t i = 0; i < n; i += 16)
		_mm256_store_si256((__m256i *)(void *)(ret + i),
				   _mm256_cvtepi8_epi16(_mm_load_si128((const __m128i *)(const void *)(q + i))));
}

AVX2 static void group_int8(const struct layer_work *t, size_t layer, size_t from, size_t to, void *own)
{
	const struct kernels_panels *w = t->l[layer]->panels;
	size_t pairs = parts(t->in, 2);
	int16_t *panel = own;						      /* [DEEP_PAIRS, 16, 2] */
	__m256i *sums = (__m256i *)(void *)(panel + DEEP_PAIRS * COLUMNS * 2); /* [GROUP, tiles, 6, 2] */

	for (size_t k = 0; k < pairs; k += DEEP_PAIRS) {
		size_t deep = pairs - k < DEEP_PAIRS ? pairs - k : DEEP_PAIRS;
		bool last = k + DEEP_PAIRS >= pairs;

		for (size_t j = from; j < to; j++) {
			size_t then = j + 1 < to ? j + 1 : !last ? from : from + t->ahead;
			size_t there = j + 1 < to ? k : !last ? k + DEEP_PAIRS : 0;
			const char *next = (const char *)(w->q + (then * pairs + there) * COLUMNS * 2);

			widen(w->q + (j * pairs + k) * COLUMNS * 2, panel, deep * COLUMNS * 2);
			for (size_t i = 0; i < t->tiles; i++) {
				struct tile_end e = tile_end_of(t, layer, i, j);

				tile_int8(t->pairs + (i * pairs + k) * ROWS, panel, deep,
					  sums + ((j - from) * t->tiles + i) * ROWS * 2, k == 0, last,
					  t->row_scale + i * ROWS, w->scale + j * COLUMNS, &e,
					  next + i * (deep / FETCH_PAIRS) * LINE);
			}
		}
	}
}

/* Tile i of x in 8 bits (kernels_int8.h). */
static void quantise(const struct layer_work *t, const float *x, size_t i, void *own)
{
	size_t pairs = parts(t->in, 2), n = t->n - i * ROWS < ROWS ? t->n - i * ROWS : ROWS;
	int16_t *row = own; /* [6, pairs * 2] */
	int ignored;

	for (size_t r = 0; r < ROWS; r++) {
		row[(r + 1) * pairs * 2 - 1] = 0; /* where `in` is odd */
		t->row_scale[i * ROWS + r] =
			r < n ? int8_row(x + (i * ROWS + r) * t->in, row + r * pairs * 2, &ignored, t->in) : 0;
	}
	pack_rows(own, pairs, n, pairs, (float *)(void *)(t->pairs + i * pairs * ROWS));
}

/* Rounded up to a cache line. */
static size_t lines(size_t bytes)
{
	return parts(bytes, LINE) * LINE;
}

/* Bytes of scratch for a product; sets the places in it when there is one. */
static size_t layer_room(struct layer_work *t, bool int8, uint8_t *memory)
{
	size_t pairs = parts(t->in, 2), threads = (size_t)omp_get_max_threads(), at = 0;
	size_t rows = ROWS * pairs * 2 * sizeof(int16_t); /* [6, pairs, 2] of one tile in quantise() */
	size_t group = DEEP_PAIRS * COLUMNS * 2 * sizeof(int16_t) + GROUP * t->tiles * ROWS * COLUMNS * sizeof(int32_t);

	if (!int8) {
		t->rows = (float *)(void *)memory;
		return t->tiles * ROWS * t->in * sizeof(float);
	}
	t->pairs = (int32_t *)(void *)memory;
	at += lines(t->tiles * ROWS * pairs * sizeof(int32_t));
	t->row_scale = memory == NULL ? NULL : (float *)(void *)(memory + at);
	at += lines(t->tiles * ROWS * sizeof(float));
	t->own = memory == NULL ? NULL : memory + at;
	t->own_bytes = lines(rows > group ? rows : group);
	return at + threads * t->own_bytes;
}

static struct layer_work work_of(const struct layer *l, size_t n)
{
	return (struct layer_work){ .n = n, .in = l->in, .out = l->out, .tiles = parts(n, ROWS),
				    .panels = parts(l->out, COLUMNS) };
}

struct kernels_panels *avx2_pack(const struct layer *l, size_t n, enum kernels_precision precision,
				 struct pool *pool)
{
	struct layer_work work = work_of(l, n);
	float *b = pool_take(pool, work.panels * COLUMNS * sizeof(float), COLUMNS);
	struct kernels_panels panels = { .b = b }, *ret;
	bool int8 = precision == KERNELS_INT8;

	if (b == NULL || scratch(layer_room(&work, int8, NULL)) == NULL ||
	    !(int8 ? pack_int8 : pack_f32)(l, work.panels, pool, &panels))
		return NULL;
	for (size_t o = 0; o < work.panels * COLUMNS && !pool_filled(pool); o++)
		b[o] = o < l->out && l->b != NULL ? l->b[o] : 0;
	ret = xcalloc(1, sizeof(*ret));
	*ret = panels;
	return ret;
}

void avx2_panels_free(struct kernels_panels *p)
{
	free(p); /* the rest is the pool's */
}

bool avx2_layers(const struct layer *const *l, size_t count, const float *x, float *const *y, size_t n,
		 enum layer_end end)
{
	struct layer_work work = work_of(l[0], n);
	size_t groups = parts(work.panels, GROUP), in = work.in;
	bool int8 = l[0]->precision == KERNELS_INT8;
	void *memory = scratch(layer_room(&work, int8, NULL));

	if (memory == NULL)
		return false;
	(void)layer_room(&work, int8, memory);
	work.l = l;
	work.y = y;
	work.end = end;

#pragma omp parallel
	{
		uint8_t *own = work.own + (size_t)omp_get_thread_num() * work.own_bytes;

#pragma omp single
		work.ahead = GROUP * (size_t)omp_get_num_threads();
#pragma omp for schedule(static)
		for (size_t i = 0; i < work.tiles; i++)
			if (int8)
				quantise(&work, x, i, own);
			else
				pack_rows(x + i * ROWS * in, in, n - i * ROWS < ROWS ? n - i * ROWS : ROWS, in,
					  (float *)memory + i * ROWS * in);
#pragma omp for schedule(dynamic, 1) nowait
		for (size_t g = 0; g < count * groups; g++) {
			size_t from = g % groups * GROUP;
			size_t to = from + GROUP < work.panels ? from + GROUP : work.panels;

			if (int8)
				group_int8(&work, g / groups, from, to, own);
			else
				group_f32(&work, g / groups, from, to);
		}
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
	float *memory = scratch(room * sizeof(float) * (size_t)omp_get_max_threads());

	if (memory == NULL)
		return false;
#pragma omp parallel for schedule(dynamic, 1)
	for (size_t h = 0; h < heads; h++)
		attention_head(&work, h, memory + room * (size_t)omp_get_thread_num());
	return true;
}

#endif
