/* test_kernels.c: layers and attention of every backend and precision against double.
 *
 * float32: 4e-6 of the sum of the products' sizes: one chain of 768 roundings.  bfloat16 keeps 8 bits of each factor, so its bound is
 * 2^-8 of that sum: what two roundings can do at worst, and a result's own.
 * int8 is held against what kernels_int8.h says it means, in 64-bit integers, with rows and weights at the ends of
 * their range, where code that adds in 16 bits saturates.
 * Then the whole image tower on the untrained bundle: backends within 1e-4 of each other, bf16 and int8
 * within a twentieth of the rows' size; and the same picture twice gives the same bits, everywhere.
 */
#include <assert.h>
#include <math.h>

#include "base/mem.h"

#include "model/bundle.h"
#include "model/kernels.h"
#include "model/kernels_int8.h"
#include "model/kernels_onednn.h"

#include "tests/tap.h"
#include "tools/bundle/untrained.h"

static float wave(size_t i)
{
	return (float)((i * 2654435761u >> 8) % 2001) / 1000.0f - 1.0f; /* -1 .. 1 */
}

static void fill(float *x, size_t n, size_t seed)
{
	for (size_t i = 0; i < n; i++)
		x[i] = wave(i + seed);
}

static float widen(uint16_t h)
{
	uint32_t bits = (uint32_t)h << 16;
	float f;

	memcpy(&f, &bits, sizeof(f));
	return f;
}

static uint16_t narrow(float f)
{
	uint32_t bits;

	memcpy(&bits, &f, sizeof(bits));
	return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* Element i of rows of a precision. */
static double element(const void *x, size_t i, enum kernels_precision precision)
{
	return precision == KERNELS_BF16 ? (double)widen(((const uint16_t *)x)[i]) : (double)((const float *)x)[i];
}

static void *rows(const float *x, size_t n, enum kernels_precision precision)
{
	float *ret = xcalloc(n, sizeof(float));

	for (size_t i = 0; i < n; i++)
		if (precision == KERNELS_BF16)
			((uint16_t *)(void *)ret)[i] = narrow(x[i]);
		else
			ret[i] = x[i];
	return ret;
}

static void test_layer(const char *who, size_t n, size_t in, size_t out, enum layer_end end,
		       enum kernels_precision precision)
{
	CLEANUP(free) float *x = xcalloc(n * in, sizeof(float));
	CLEANUP(free) float *w = xcalloc(out * in, sizeof(float));
	CLEANUP(free) float *b = xcalloc(out, sizeof(float));
	CLEANUP(free) float *y = xcalloc(n * out, sizeof(float));
	CLEANUP(free) void *given = NULL;
	struct pool *pool = pool_new();
	struct layer l = layer_of(w, end == LAYER_PLAIN ? NULL : b, in, out);
	double far = 0, worst = 0;

	fill(x, n * in, 1);
	fill(w, out * in, 77);
	fill(b, out, 999);
	fill(y, n * out, 5);
	given = rows(x, n * in, precision);
	if (!ok(layer_pack(&l, n, precision, pool) == 0, "%s packs", who))
		return;
	layer_run(&l, given, y, n, end);
	for (size_t i = 0; i < n; i++)
		for (size_t o = 0; o < out; o++) {
			double want = l.b != NULL ? (double)b[o] : 0, size = fabs(want) + 1, got;

			for (size_t k = 0; k < in; k++) {
				want += (double)x[i * in + k] * (double)w[o * in + k];
				size += fabs((double)x[i * in + k] * (double)w[o * in + k]);
			}
			if (end == LAYER_ADD)
				want += (double)wave(i * out + o + 5);
			if (end == LAYER_RELU)
				want = fmax(want, 0);
			if (end == LAYER_GELU)
				want *= 0.5 * (1 + erf(want / sqrt(2)));
			got = element(y, i * out + o, end == LAYER_ADD ? KERNELS_F32 : precision);
			far = fmax(far, fabs(got - want));
			worst = fmax(worst, fabs(got - want) / (size * (precision == KERNELS_BF16 ? 1.0 / 256 : 4e-6)));
		}
	ok(worst <= 1, "%s: %zu rows, %zu -> %zu, end %d: max abs difference %.2g", who, n, in, out, (int)end, far);
	layer_release(&l);
	pool_free(pool);
}

#ifdef WITH_ONEDNN /* comes with int8 */
/* Rows and weights with which every pair of products leaves 16 bits. */
static void fill_extreme(float *x, size_t n, size_t in)
{
	for (size_t i = 0; i < n * in; i++)
		x[i] = i % in == 0 ? -0.01f : 1 - 0.1f * (float)(i % 7 == 3);
}

/* As many as a pair of products in 16 bits can hold: what oneDNN may be given without VNNI.  The one large
 * weight of a column meets the least of the row, 0 in 8 bits. */
static void fill_mild(float *x, float *w, size_t n, size_t out, size_t in)
{
	for (size_t i = 0; i < n * in; i++)
		x[i] = i % in == 0 ? -1.5f : wave(i);
	for (size_t i = 0; i < out * in; i++)
		w[i] = i % in == 0 ? 2.1f : wave(i + 77);
}

enum fill { WAVES, EXTREME, MILD };

/* `run` does the layer; NULL: layer_pack() and layer_run(). */
static void test_int8(const char *who, size_t n, size_t in, size_t out, enum layer_end end, enum fill how,
		      bool (*run)(struct layer *l, const float *x, float *y, size_t n, enum layer_end end))
{
	CLEANUP(free) float *x = xcalloc(n * in, sizeof(float));
	CLEANUP(free) float *w = xcalloc(out * in, sizeof(float));
	CLEANUP(free) float *b = xcalloc(out, sizeof(float));
	CLEANUP(free) float *y = xcalloc(n * out, sizeof(float));
	CLEANUP(free) int16_t *row = xcalloc(in, sizeof(int16_t));
	CLEANUP(free) int8_t *column = xcalloc(in * out, 1);
	CLEANUP(free) float *scale = xcalloc(out, sizeof(float));
	struct pool *pool = pool_new();
	struct layer l = layer_of(w, end == LAYER_PLAIN ? NULL : b, in, out);
	double worst = 0;
	int zero;

	fill(x, n * in, 1);
	fill(w, out * in, 77);
	fill(b, out, 999);
	fill(y, n * out, 5);
	if (how == EXTREME) {
		fill_extreme(x, n, in);
		fill_extreme(w, out, in);
	}
	if (how == MILD)
		fill_mild(x, w, n, out, in);
	for (size_t o = 0; o < out; o++)
		scale[o] = int8_column(w + o * in, column + o * in, in);
	if (run != NULL)
		ok(run(&l, x, y, n, end), "%s runs", who);
	else if (ok(layer_pack(&l, n, KERNELS_INT8, pool) == 0, "%s packs", who))
		layer_run(&l, x, y, n, end);
	for (size_t i = 0; i < n; i++) {
		double row_scale = (double)int8_row(x + i * in, row, &zero, in);

		for (size_t o = 0; o < out; o++) {
			int64_t sum = 0;
			double want, size;

			for (size_t k = 0; k < in; k++)
				sum += (int64_t)row[k] * column[o * in + k];
			want = (double)sum * row_scale * (double)scale[o] + (l.b != NULL ? (double)b[o] : 0);
			size = 1 + fabs(want);
			if (end == LAYER_ADD)
				want += (double)wave(i * out + o + 5);
			if (end == LAYER_RELU)
				want = fmax(want, 0);
			if (end == LAYER_GELU)
				want *= 0.5 * (1 + erf(want / sqrt(2)));
			worst = fmax(worst, fabs((double)y[i * out + o] - want) / size);
		}
	}
	ok(worst < 1e-6, "%s: %zu rows, %zu -> %zu, end %d: the exact sums, relative difference %.2g", who, n, in, out,
	   (int)end, worst);
	layer_release(&l);
	pool_free(pool);
}

/* oneDNN's way, also where kernels_can() does not let it: MILD rows are exact without VNNI too. */
static bool onednn_int8(struct layer *l, const float *x, float *y, size_t n, enum layer_end end)
{
	struct pool *pool = pool_new();
	bool good;

	l->precision = KERNELS_INT8;
	l->packed = onednn_pack(l, n, KERNELS_INT8, pool);
	good = l->packed != NULL && onednn_layer(l, x, y, n, end);
	layer_release(l);
	pool_free(pool);
	return good;
}

static void test_int8_layers(const char *who)
{
	for (int end = LAYER_PLAIN; end <= LAYER_ADD; end++) {
		test_int8(who, 197, 64, 256, (enum layer_end)end, WAVES, NULL);
		test_int8(who, 7, 1540, 80, (enum layer_end)end, EXTREME, NULL); /* three times DEEP_PAIRS, and 4 */
		test_int8(who, 1, 101, 33, (enum layer_end)end, EXTREME, NULL);	 /* odd */
		test_int8("onednn int8", 33, 768, 96, (enum layer_end)end, MILD, onednn_int8);
	}
}

static void test_int8_rounding(void)
{
	static const float odd[] = { 0, 0, 0, 0 }, one[] = { 3, 3, 3, 3 }, both[] = { -1, 2, 0.5f, 0 };
	float broken[40] = { 0 };
	int16_t v[40];
	int8_t q[4];
	float scale;
	int zero;

	is_int((long long)int8_row(odd, v, &zero, 4), 1, "a row of zeros has scale 1");
	ok(v[0] == 0 && v[3] == 0, "and stays zeros");
	scale = int8_row(one, v, &zero, 4);
	ok(zero == 0 && v[0] == 255 && fabsf(scale * 255 - 3) < 1e-6f, "a constant row is exact");
	scale = int8_row(both, v, &zero, 4);
	ok(zero == 85 && v[0] == -85 && v[1] == 170 && v[3] == 0, "-1 .. 2 uses the whole range, 0 stays 0: zero %d", zero);
	ok(fabsf((float)v[2] * scale - 0.5f) <= scale / 2 * 1.0001f, "between: within half a step");
	scale = int8_column(both, q, 4);
	ok(q[0] == -64 && q[1] == 127 && q[3] == 0 && fabsf(scale * 127 - 2) < 1e-6f, "a column is symmetric");
	is_int((long long)int8_column(odd, q, 4), 1, "a column of zeros has scale 1");
	for (size_t i = 0; i < ARRAY_SIZE(broken); i += 13) {
		broken[i] = NAN;
		ok(isnan(int8_row(broken, v, &zero, 40)), "a NaN at %zu is told", i);
		broken[i] = INFINITY;
		ok(!isfinite(int8_row(broken, v, &zero, 40)), "and an infinity");
		broken[i] = 0;
	}
}

#endif

static void test_attention(const char *who, size_t n, size_t dim, size_t heads, enum kernels_precision precision)
{
	size_t width = dim / heads;
	CLEANUP(free) float *x = xcalloc(3 * n * dim, sizeof(float)); /* q, k, v: [n, dim] each */
	CLEANUP(free) float *out = xcalloc(n * dim, sizeof(float));
	CLEANUP(free) float *scratch = xcalloc(self_attention_scratch(n, heads), sizeof(float));
	CLEANUP(free) double *share = xcalloc(n, sizeof(double));
	struct self_attention a;
	const float *q = x, *k = x + n * dim, *v = x + 2 * n * dim;
	void *given[3];
	double far = 0;

	fill(x, 3 * n * dim, 3);
	for (size_t i = 0; i < 3; i++)
		given[i] = rows(x + i * n * dim, n * dim, precision);
	if (!ok(self_attention_init(&a, n, dim, heads, precision) == 0, "%s attention", who))
		return;
	self_attention_run(&a, given[0], given[1], given[2], out, scratch);
	for (size_t h = 0; h < heads; h++)
		for (size_t i = 0; i < n; i++) {
			double sum = 0;

			for (size_t j = 0; j < n; j++) {
				double s = 0;

				for (size_t c = h * width; c < (h + 1) * width; c++)
					s += (double)q[i * dim + c] * (double)k[j * dim + c];
				sum += share[j] = exp(s / sqrt((double)width));
			}
			for (size_t c = h * width; c < (h + 1) * width; c++) {
				double want = 0;

				for (size_t j = 0; j < n; j++)
					want += share[j] / sum * (double)v[j * dim + c];
				far = fmax(far, fabs(element(out, i * dim + c, precision) - want));
			}
		}
	ok(far < (precision == KERNELS_BF16 ? 0.02 : 1e-5), "%s: attention of %zu rows, %zu heads: max abs difference %.2g",
	   who, n, heads, far);
	for (size_t i = 0; i < 3; i++)
		free(given[i]);
	self_attention_release(&a);
}

/* Queries with keys of their own against attention() on each. */
static void test_apart(const char *who)
{
	enum { N = 5, DIM = 96, HEADS = 4, PERIOD = 3, KEYS = 20 };
	static const size_t first[PERIOD + 1] = { 0, 3, 4, KEYS };
	float q[N * DIM], k[KEYS * DIM], v[KEYS * DIM], count[KEYS], got[N * DIM], want[DIM], scores[KEYS];
	double far = 0;

	fill(q, N * DIM, 3);
	fill(k, KEYS * DIM, 4000);
	fill(v, KEYS * DIM, 9000);
	for (size_t i = 0; i < KEYS; i++)
		count[i] = i % 4 == 3 ? 90 : 1;
	attention_apart(q, k, v, count, first, PERIOD, got, N, DIM, HEADS);
	for (size_t i = 0; i < N; i++) {
		size_t at = first[i % PERIOD];

		attention(q + i * DIM, DIM, k + at * DIM, DIM, v + at * DIM, DIM, count + at, want, DIM, scores, 1,
			  first[i % PERIOD + 1] - at, DIM, HEADS);
		for (size_t j = 0; j < DIM; j++)
			far = fmax(far, fabs((double)got[i * DIM + j] - (double)want[j]));
	}
	ok(far < 1e-6, "%s: queries with keys of their own: max abs difference %.2g", who, far);
}

static void test_backend(const char *who, enum kernels_precision precision)
{
	for (int end = LAYER_PLAIN; end <= LAYER_ADD; end++) {
		test_layer(who, 197, 64, 256, (enum layer_end)end, precision);
		test_layer(who, 1, 100, 33, (enum layer_end)end, precision); /* no multiple of a vector */
		test_layer(who, 28, 768, 256, (enum layer_end)end, precision);
	}
	test_layer(who, 5, 48, 1, LAYER_PLAIN, precision);
	test_attention(who, 197, 64, 4, precision);
	test_attention(who, 50, 192, 3, precision);
	test_apart(who);
}

/* The tower's rows [T, D] of one picture; NULL when the precision cannot be had. */
static float *tower(const char *dir, const char *who, enum kernels_precision precision, size_t *ret_n)
{
	CLEANUP(free) uint8_t *square = xcalloc(256, 256);
	struct vit_scratch s;
	struct bundle *b;
	struct err e = { "" };
	float *ret;

	for (size_t i = 0; i < 256 * 256; i++)
		square[i] = (uint8_t)(i * (i >> 8) >> 5);
	if (!ok(bundle_open(dir, &b, &e) == 0 && bundle_pack(b, precision, NULL, NULL, &e) == 0, "%s: packed %s", who, e.text))
		return NULL;
	assert(vit_scratch_init(&s, &b->manifest.dims) == 0);
	*ret_n = b->manifest.dims.tokens * b->manifest.dims.dim;
	ret = xcalloc(*ret_n, sizeof(float));
	vit_forward(&b->vit, &s, square);
	memcpy(ret, s.x, *ret_n * sizeof(float));
	vit_forward(&b->vit, &s, square);
	ok(memcmp(ret, s.x, *ret_n * sizeof(float)) == 0, "%s: same picture, same bits", who);
	vit_scratch_release(&s);
	bundle_close(b);
	return ret;
}

static void compare(const char *who, const float *a, const float *b, size_t n, double tolerance)
{
	double far = 0, mean = 0;

	for (size_t i = 0; i < n; i++) {
		double d = fabs((double)a[i] - (double)b[i]);

		far = d <= far ? far : d; /* NaN counts */
		mean += d / (double)n;
	}
	ok(far <= tolerance, "%s: image tower, max difference %.2g, mean %.2g", who, far, mean);
}

/* kernels_avx2.c promises the same bits with any number of threads. */
static void test_threads(const char *dir, enum kernels_precision precision, const float *two)
{
	size_t n;
	CLEANUP(free) float *one = NULL;

	kernels_set_threads(1);
	one = tower(dir, "avx2, one thread", precision, &n);
	kernels_set_threads(2);

	ok(memcmp(one, two, n * sizeof(float)) == 0, "one thread gives the bits of two");
}

static void remove_bundle(const char *dir)
{
	static const char *const files[] = { "weights.safetensors", "model.json", "vocab.txt" };
	char path[128];

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", dir, files[i]);
		(void)remove(path);
	}
	(void)rmdir(dir);
}

int main(void)
{
	const char *top = getenv("srcdir");
	char scratch[] = "/tmp/carzerod-test-kernels-XXXXXX", dir[64], vocab[4096];
	CLEANUP(free) float *blas = NULL;
	CLEANUP(free) float *dnn = NULL;
	CLEANUP(free) float *own = NULL;
	CLEANUP(free) float *eight = NULL;
	CLEANUP(free) float *half = NULL;
	struct err e = { "" };
	size_t n;

	if (mkdtemp(scratch) == NULL)
		plan_skip_all("no temporary directory");
	(void)snprintf(dir, sizeof(dir), "%s/untrained", scratch);
	(void)snprintf(vocab, sizeof(vocab), "%s/tools/bundle/vocab.txt", top != NULL ? top : ".");
	if (!ok(untrained_write(dir, vocab, 1, &e) == 0, "the untrained bundle is written %s", e.text))
		return done();

	is_int(kernels_set_backend(KERNELS_OPENBLAS), 0, "OpenBLAS is always there");
	kernels_set_threads(2);
	ok(!kernels_can(KERNELS_BF16) && !kernels_can(KERNELS_INT8), "and does no bf16, no int8");
#ifdef WITH_ONEDNN
	test_int8_rounding();
#endif
	test_backend("openblas", KERNELS_F32);
	blas = tower(dir, "openblas", KERNELS_F32, &n);

	if (kernels_set_backend(KERNELS_ONEDNN) == 0) {
		kernels_set_threads(2);
		printf("# %s\n", kernels_core());
		test_backend("onednn", KERNELS_F32);
		dnn = tower(dir, "onednn", KERNELS_F32, &n);
		compare("onednn f32 to openblas f32", dnn, blas, n, 1e-4);
	} else {
		skip("built without oneDNN");
	}
	if (kernels_set_backend(KERNELS_AVX2) == 0) {
		test_backend("avx2", KERNELS_F32);
		own = tower(dir, "avx2", KERNELS_F32, &n);
		compare("avx2 f32 to openblas f32", own, blas, n, 1e-4);
		test_threads(dir, KERNELS_F32, own);
#ifdef WITH_ONEDNN
		test_int8_layers("avx2 int8");
#endif
		eight = tower(dir, "avx2 int8", KERNELS_INT8, &n);
		compare("avx2 int8 to openblas f32", eight, blas, n, 0.05);
		test_threads(dir, KERNELS_INT8, eight);
		(void)kernels_set_backend(KERNELS_ONEDNN);
#ifdef WITH_ONEDNN
		test_int8("int8, whoever does it", 28, 768, 96, LAYER_ADD, EXTREME, NULL);
#endif
	} else {
		skip("no AVX2");
	}
	if (kernels_can(KERNELS_BF16)) {
		test_backend("onednn bf16", KERNELS_BF16);
		half = tower(dir, "onednn bf16", KERNELS_BF16, &n);
		compare("onednn bf16 to openblas f32", half, blas, n, 0.05);
	} else {
		struct self_attention a;

		is_int(self_attention_init(&a, 4, 8, 2, KERNELS_BF16), -ENOTSUP, "no bf16 on this CPU: refused");
	}
	is_int((long long)kernels_fallbacks(), 0, "nothing fell back to OpenBLAS");

	remove_bundle(dir);
	(void)rmdir(scratch);
	return done();
}
