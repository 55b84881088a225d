/* test_kernels.c: layers and attention of every backend and precision against double.
 *
 * float32: 4e-6 of the sum of the products' sizes: one chain of 768 roundings.  bfloat16 keeps 8 bits of each factor, so its bound is
 * 2^-8 of that sum: what two roundings can do at worst, and a result's own.
 * Then the whole image tower on the untrained bundle: backends within 1e-4 of each other, bf16 within
 * a twentieth of the rows' size; and the same picture twice gives the same bits, everywhere.
 */
#include <assert.h>
#include <math.h>

#include "base/mem.h"

#include "model/bundle.h"
#include "model/kernels.h"

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
static void test_threads(const char *dir, const float *two)
{
	size_t n;
	CLEANUP(free) float *one = tower(dir, "avx2, one thread", KERNELS_F32, &n);

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
	ok(!kernels_can(KERNELS_BF16), "and does no bf16");
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
		kernels_set_threads(1);
		test_threads(dir, own);
		kernels_set_threads(2);
		(void)kernels_set_backend(KERNELS_ONEDNN);
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
