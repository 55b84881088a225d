/* test_model.c: the network against two references, tensor by tensor; and bundles that must be refused.
 *
 * (a) The untrained bundle of tools/bundle/, seed 1, made here, against vectors.safetensors, which
 *     tools/reference/model_vectors.py made from the same bundle in float64.
 * (b) With CARZEROD_SHARED (a folder with model/tiny: a small checkpoint and golden arrays that the
 *     original modules made from it): the checkpoint is imported here and every array compared.
 * (c) Damaged weights, manifests and vocabularies: each refused with an error that names the fault.
 *
 * Tolerances are those that a float32 implementation needs (reordered sums) and no more: features
 * 1e-4, logits 1e-3, attention shares 1e-5, the input exact.
 */
#include <assert.h>
#include <dirent.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <sys/stat.h>

#include "base/fdio.h"
#include "base/mem.h"
#include "base/str.h"

#include "model/bundle.h"
#include "model/half.h"
#include "model/import.h"
#include "model/kernels.h"
#include "model/prompts.h"
#include "tests/tap.h"
#include "tools/bundle/untrained.h"

#define TEXTS_MAX 32
#define IMAGES_MAX 8
#define DIR_MAX 512
#define FILE_MAX (64 * 1024 * 1024)

static char scratch[] = "/tmp/carzerod-test-model-XXXXXX"; /* removed at the end */

static const char *top(void)
{
	const char *dir = getenv("srcdir");

	return dir != NULL ? dir : ".";
}

static const char *at(const char *dir, const char *name)
{
	static char path[4][PATH_MAX];
	static unsigned turn;
	char *ret = path[turn++ % 4];

	(void)snprintf(ret, PATH_MAX, "%s/%s", dir, name);
	return ret;
}

static void remove_dir(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *entry;

	if (d == NULL)
		return;
	while ((entry = readdir(d)) != NULL)
		(void)remove(at(dir, entry->d_name)); /* "." and ".." refuse, rightly */
	(void)closedir(d);
	(void)rmdir(dir);
}

/* ---- kernels ---- */

static double worst(const float *got, const double *want, size_t n)
{
	double d = 0;

	for (size_t i = 0; i < n; i++)
		if (!(fabs((double)got[i] - want[i]) <= d)) /* NaN counts */
			d = fabs((double)got[i] - want[i]);
	return d;
}

static float wave(size_t i)
{
	return (float)((i * 2654435761u >> 8) % 2001) / 500.0f - 2.0f; /* -2 .. 2 */
}

static void test_gelu(void)
{
	enum { N = 4001 };
	static float x[N];
	static double want[N];
	double d = 0;

	for (size_t i = 0; i < N; i++) {
		x[i] = ((float)i - 2000) / 250; /* -8 .. 8 */
		want[i] = 0.5 * (double)x[i] * (1 + erf((double)x[i] / sqrt(2.0)));
	}
	gelu(x, N);
	for (size_t i = 0; i < N; i++)
		d = fmax(d, fabs((double)x[i] - want[i]) / fmax(1, fabs(want[i])));
	printf("# gelu on [-8, 8]: max difference %.2g\n", d);
	ok(d < 1e-6, "gelu is the erf form, within 1e-6");
	x[0] = 1e30f;
	x[1] = -1e30f;
	x[2] = NAN;
	gelu(x, 3);
	ok(x[0] == 1e30f && fabsf(x[1]) == 0 && isnan(x[2]), "gelu at the ends, and NaN stays NaN");
}

static void test_softmax(void)
{
	enum { N = 3, M = 37 }; /* no multiple of a vector */
	float x[N * M], count[M], many[2 * M];
	double want[N * M], sum;

	for (size_t r = 0; r < N; r++) {
		sum = 0;
		for (size_t i = 0; i < M; i++) {
			x[r * M + i] = 30 * wave(r * M + i) - (i == 5 ? 500 : 0);
			sum += exp((double)x[r * M + i]);
		}
		for (size_t i = 0; i < M; i++)
			want[r * M + i] = exp((double)x[r * M + i]) / sum;
	}
	softmax(x, NULL, N, M);
	ok(worst(x, want, N * M) < 1e-6, "softmax, within 1e-6 of double");

	for (size_t i = 0; i < M; i++) {
		count[i] = i == 3 ? 38 : 1;
		x[i] = many[i] = wave(i);
		many[M + i] = wave(3);
	}
	softmax(x, count, 1, M);
	softmax(many, NULL, 1, 2 * M); /* 37 more copies of column 3 */
	for (size_t i = 0; i < M; i++)
		want[i] = (double)many[i] * (i == 3 ? 38 : 1);
	ok(worst(x, want, M) < 1e-6, "softmax with a count equals as many equal columns");
}

static void test_layernorm(void)
{
	enum { N = 2, D = 45 };
	float x[N * D], w[D], b[D], y[N * D];
	double want[N * D];

	for (size_t i = 0; i < D; i++) {
		w[i] = wave(i + 7);
		b[i] = wave(i + 1000);
	}
	for (size_t r = 0; r < N; r++) {
		double mean = 0, square = 0;

		for (size_t i = 0; i < D; i++) {
			x[r * D + i] = 100 + wave(r * D + i); /* a mean that would cancel */
			mean += (double)x[r * D + i] / D;
		}
		for (size_t i = 0; i < D; i++)
			square += pow((double)x[r * D + i] - mean, 2) / D;
		for (size_t i = 0; i < D; i++)
			want[r * D + i] = ((double)x[r * D + i] - mean) / sqrt(square + 1e-6) * (double)w[i] +
					  (double)b[i];
	}
	layernorm(x, w, b, 1e-6f, y, N, D);
	ok(worst(y, want, N * D) < 1e-4, "layernorm, biased variance, within 1e-4 of double");
	layernorm(x, w, b, 1e-6f, x, N, D);
	ok(memcmp(x, y, sizeof(y)) == 0, "layernorm in place gives the same bits");
	memset(x, 0, sizeof(x));
	layernorm(x, w, b, 1e-5f, y, 1, D);
	ok(memcmp(y, b, sizeof(b)) == 0, "layernorm of a zero row is its bias, exactly");
}

static void test_linear(void)
{
	enum { N = 3, IN = 19, OUT = 11 };
	float x[N * IN], w[OUT * IN], b[OUT], y[N * OUT];
	double want[N * OUT];

	for (size_t i = 0; i < N * IN; i++)
		x[i] = wave(i);
	for (size_t i = 0; i < OUT * IN; i++)
		w[i] = wave(i + 99);
	for (size_t o = 0; o < OUT; o++)
		b[o] = wave(o + 999);
	for (size_t n = 0; n < N; n++)
		for (size_t o = 0; o < OUT; o++) {
			want[n * OUT + o] = (double)b[o];
			for (size_t i = 0; i < IN; i++)
				want[n * OUT + o] += (double)x[n * IN + i] * (double)w[o * IN + i];
		}
	linear(x, w, b, y, N, IN, OUT);
	ok(worst(y, want, N * OUT) < 1e-4, "linear");
	for (size_t i = 0; i < N * OUT; i++)
		want[i] *= 2;
	linear_add(x, w, b, y, N, IN, OUT);
	ok(worst(y, want, N * OUT) < 1e-4, "linear_add");
}

/* ---- a reference to compare with ---- */

struct reference {
	const char *name;
	struct weights *vectors; /* or NULL: then the golden folder */
	const char *dir;
	json_t *index; /* golden.json */
};

static float *wanted_vector(struct weights *vectors, const char *name, size_t n)
{
	const char *have;
	const size_t *shape;
	const float *p;
	size_t rank, i, j;

	for (i = 0; (have = weights_at(vectors, i, &shape, &rank)) != NULL; i++) {
		size_t got = 1;
		float *copy;

		if (strcmp(have, name) != 0)
			continue;
		for (j = 0; j < rank; j++)
			got *= shape[j];
		if (got != n || weights_get(vectors, name, shape, rank, &p, NULL) < 0)
			return NULL;
		copy = xcalloc(n, sizeof(float));
		memcpy(copy, p, n * sizeof(float));
		return copy;
	}
	return NULL;
}

/* The array `name` of n floats; NULL when the reference has none. */
static float *wanted(const struct reference *ref, const char *name, size_t n)
{
	json_t *entry, *dim;
	void *bytes = NULL;
	size_t got = 1, i;

	if (ref->vectors != NULL)
		return wanted_vector(ref->vectors, name, n);
	entry = json_object_get(json_object_get(ref->index, "arrays"), name);
	if (entry == NULL)
		return NULL;
	json_array_foreach(json_object_get(entry, "shape"), i, dim)
		got *= (size_t)json_integer_value(dim);
	if (got != n || read_path(at(ref->dir, json_string_value(json_object_get(entry, "file"))), FILE_MAX,
				  &bytes, &got, NULL) < 0)
		return NULL;
	return bytes;
}

static void compare(const struct reference *ref, const char *name, const float *got, size_t n,
		    double tolerance)
{
	CLEANUP(free) float *want = wanted(ref, name, n);
	double d = 0, largest = 0;

	if (want == NULL) {
		ok(false, "%s %s: no such array of %zu floats in the reference", ref->name, name, n);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		double e = fabs((double)got[i] - (double)want[i]);

		if (!(e <= d)) /* NaN counts */
			d = e;
		largest = fmax(largest, fabs((double)want[i]));
	}
	ok(d <= tolerance, "%s %s: max abs difference %.2g, tolerance %.0e, largest value %.3g", ref->name,
	   name, d, tolerance, largest);
}

/* ---- the network against a reference ---- */

struct texts {
	int32_t ids[TEXTS_MAX][128];
	bool continues[TEXTS_MAX][128];
	struct bert_text text[TEXTS_MAX];
	size_t n;
};

static void compare_text(const struct reference *ref, const struct bundle *b, const struct texts *texts,
			 struct prompt_words *words)
{
	size_t d = b->manifest.dims.dim, w = b->manifest.dims.word_num;
	CLEANUP(free) float *padded = xcalloc(texts->n * w, d * sizeof(float)); /* [n, W, D] */

	if (!ok(prompts_encode_ids(&b->bert, texts->text, texts->n, words) == 0, "%s: texts encode", ref->name))
		return;
	for (size_t p = 0; p < texts->n; p++)
		memcpy(padded + p * w * d, words->rows + words->first[p] * d,
		       (words->first[p + 1] - words->first[p]) * d * sizeof(float));
	compare(ref, "text_global", words->global, texts->n * d, 1e-4);
	compare(ref, "text_words", padded, texts->n * w * d, 1e-4);
}

static void compare_input(const struct reference *ref, const struct bundle *b, struct vit_scratch *s,
			  const uint8_t *square, const char *name)
{
	const struct dims *dims = &b->manifest.dims;
	size_t n = dims->image, p = dims->patch;
	CLEANUP(free) float *input = xcalloc(n * n, sizeof(float)); /* [image, image] */

	vit_patches(&b->vit, s, square);
	for (size_t y = 0; y < n; y++)
		for (size_t x = 0; x < n; x++)
			input[y * n + x] = s->patches[(y / p * dims->grid + x / p) * p * p + y % p * p + x % p];
	compare(ref, name, input, n * n, 0);
}

/* squares: [images, square, square] */
static void compare_images(const struct reference *ref, const struct bundle *b, const struct texts *texts,
			   const uint8_t *squares, size_t images, bool has_input)
{
	const struct dims *dims = &b->manifest.dims;
	size_t n = texts->n, d = dims->dim, patches = dims->tokens - 1;
	CLEANUP(free) float *i2t = xcalloc(images * n, sizeof(float));	  /* [images, n] */
	CLEANUP(free) float *t2i = xcalloc(images * n, sizeof(float));	  /* [images, n] */
	CLEANUP(free) float *logit = xcalloc(images * n, sizeof(float));  /* [images, n] */
	CLEANUP(free) float *maps = xcalloc(n * patches, sizeof(float)); /* [n, T-1] */
	struct prompt_words words = { .n = 0 };
	struct fusion_scratch fusion;
	struct fusion_text text;
	struct vit_scratch vit;
	char name[64];

	compare_text(ref, b, texts, &words);
	if (words.n == 0 || !ok(prompts_tables(&b->fusion, &words, &text) == 0, "%s: tables", ref->name))
		return;
	assert(vit_scratch_init(&vit, dims) == 0 && fusion_scratch_init(&fusion, dims) == 0);
	for (size_t i = 0; i < images; i++) {
		const uint8_t *square = squares + i * dims->square * dims->square;

		(void)snprintf(name, sizeof(name), "img%zu_input", i);
		if (has_input)
			compare_input(ref, b, &vit, square, name);
		vit_forward(&b->vit, &vit, square);
		(void)snprintf(name, sizeof(name), "img%zu_global", i);
		compare(ref, name, vit.x, d, 1e-4);
		(void)snprintf(name, sizeof(name), "img%zu_local", i);
		compare(ref, name, vit.x + d, patches * d, 1e-4);
		fusion_forward(&b->fusion, &fusion, &text, vit.x, i2t + i * n, t2i + i * n, maps);
		(void)snprintf(name, sizeof(name), "img%zu_map", i);
		compare(ref, name, maps, n * patches, 1e-5);
	}
	for (size_t i = 0; i < images * n; i++)
		logit[i] = (i2t[i] + t2i[i]) / 2;
	compare(ref, "i2t", i2t, images * n, 1e-3);
	compare(ref, "t2i", t2i, images * n, 1e-3);
	compare(ref, "logit", logit, images * n, 1e-3);
	vit_scratch_release(&vit);
	fusion_scratch_release(&fusion);
	fusion_text_release(&text);
	prompt_words_release(&words);
}

static void mark(struct texts *texts, const struct tokenizer *t)
{
	struct bert_text *text = &texts->text[texts->n];

	text->ids = texts->ids[texts->n];
	text->continues = texts->continues[texts->n];
	for (size_t i = 0; i < text->n; i++)
		texts->continues[texts->n][i] = tokenizer_continues(t, texts->ids[texts->n][i]);
	texts->n++;
}

/* A hash of the index, and a square with structure and grain: both as in model_vectors.py. */
static uint32_t noise(uint32_t i, uint32_t seed)
{
	uint32_t h = i * 2654435761u + seed;

	h ^= h >> 15;
	h *= 2246822519u;
	return h ^ h >> 13;
}

static void draw(uint8_t *square /* [side, side] */, uint32_t side, uint32_t seed)
{
	for (uint32_t y = 0; y < side; y++)
		for (uint32_t x = 0; x < side; x++)
			square[y * side + x] = (uint8_t)((x * (y + 11 * seed) >> 6 & 127) +
							 (noise(y * side + x, seed) >> 25));
}

/* The bundle at `dir` against vectors and prompts of model_vectors.py. */
static void test_vectors(const char *dir, const char *vectors, const char *prompts, const uint8_t *squares,
			 size_t images)
{
	struct reference ref = { .name = "ours" };
	CLEANUP(free) struct texts *texts = xcalloc(1, sizeof(*texts));
	CLEANUP(free) void *lines = NULL;
	struct bundle *b;
	struct err e = { "" };
	char *line, *rest;
	size_t n;

	if (!ok(bundle_open(dir, &b, &e) == 0, "the bundle opens %s", e.text))
		return;
	if (!ok(weights_open(vectors, &ref.vectors, &e) == 0 && read_path(prompts, 4096, &lines, &n, &e) == 0,
		"the vectors read %s", e.text))
		return;
	for (line = strtok_r(lines, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
		assert(texts->n < TEXTS_MAX);
		if (tokenizer_encode(b->tokenizer, line, texts->ids[texts->n], b->manifest.dims.word_num,
				     &texts->text[texts->n].n) < 0)
			return (void)ok(false, "tokenise %s", line);
		mark(texts, b->tokenizer);
	}
	ok(bundle_pack(b, KERNELS_F32, NULL, NULL, &e) == 0, "and packs: %s %s", kernels_core(), e.text);
	compare_images(&ref, b, texts, squares, images, false);
	weights_close(ref.vectors);
	bundle_close(b);
}

static void test_own_vectors(const char *dir)
{
	CLEANUP(free) uint8_t *squares = xcalloc(2, 256 * 256);
	char vectors[DIR_MAX], prompts[DIR_MAX];

	for (uint32_t i = 0; i < 2; i++)
		draw(squares + i * 256 * 256, 256, i);
	(void)snprintf(vectors, sizeof(vectors), "%s/tests/vectors/model/vectors.safetensors", top());
	(void)snprintf(prompts, sizeof(prompts), "%s/tests/vectors/model/prompts.txt", top());
	test_vectors(dir, vectors, prompts, squares, 2);
}

/* test_model BUNDLE VECTORS PROMPTS SQUARES: any bundle, as tests/long_full_size.sh does. */
static int test_other(char **argv)
{
	CLEANUP(free) void *squares = NULL;
	struct err e;
	size_t n;

	if (ok(read_path(argv[4], IMAGES_MAX * 256 * 256, &squares, &n, &e) == 0 && n > 0 && n % (256 * 256) == 0,
	       "%s holds squares", argv[4]))
		test_vectors(argv[1], argv[2], argv[3], squares, n / (256 * 256));
	return done();
}

/* Imports the checkpoint in `golden` into scratch/tiny and opens it. */
static struct bundle *import_tiny(const char *golden)
{
	struct import_request q = { .tool = "test_model" };
	CLEANUP(free) struct import_report *report = xcalloc(1, sizeof(*report));
	char file[4][DIR_MAX + 16];
	struct bundle *b = NULL;
	struct err e = { "" };

	(void)snprintf(file[0], sizeof(file[0]), "%s/model.ckpt", golden);
	(void)snprintf(file[1], sizeof(file[1]), "%s/vocab.txt", golden);
	(void)snprintf(file[2], sizeof(file[2]), "%s/model.json", golden);
	(void)snprintf(file[3], sizeof(file[3]), "%s/tiny", scratch);
	q.checkpoint = file[0];
	q.vocab = file[1];
	q.model_json = file[2];
	q.out = file[3];
	if (ok(import_bundle(&q, report, &e) == 0, "the checkpoint is imported %s", e.text))
		ok(bundle_open(q.out, &b, &e) == 0 && bundle_pack(b, KERNELS_F32, NULL, NULL, &e) == 0,
		   "the imported bundle opens %s", e.text);
	remove_dir(q.out); /* what is mapped stays */
	return b;
}

static void test_golden(void)
{
	const char *shared = getenv("CARZEROD_SHARED");
	struct reference ref = { .name = "golden" };
	CLEANUP(free) uint8_t *squares = xcalloc(4, 256 * 256);
	CLEANUP(free) struct texts *texts = xcalloc(1, sizeof(*texts));
	char golden[DIR_MAX], name[32];
	json_t *list, *id;
	struct bundle *b;
	struct err e = { "" };
	size_t p, i, n;

	if (shared == NULL) {
		skip("CARZEROD_SHARED does not name a folder with golden arrays of the original modules");
		return;
	}
	(void)snprintf(golden, sizeof(golden), "%s/model/tiny", shared);
	ref.dir = golden;
	ref.index = json_load_file(at(golden, "golden.json"), 0, NULL);
	b = import_tiny(golden);
	if (!ok(ref.index != NULL, "golden.json reads") || b == NULL)
		return;
	json_array_foreach(json_object_get(ref.index, "ids"), p, list) {
		json_array_foreach(list, i, id)
			texts->ids[p][i] = (int32_t)json_integer_value(id);
		texts->text[p].n = i;
		mark(texts, b->tokenizer);
	}
	for (i = 0; i < 4; i++) {
		CLEANUP(free) void *box = NULL;

		(void)snprintf(name, sizeof(name), "golden_img%zu_box.bin", i);
		if (!ok(read_path(at(golden, name), FILE_MAX, &box, &n, &e) == 0 && n == 256 * 256, "%s", name))
			return;
		memcpy(squares + i * n, box, n);
	}
	compare_images(&ref, b, texts, squares, 4, true);
	json_decref(ref.index);
	bundle_close(b);
}

/* ---- the public face ---- */

static const struct model_use pictures_use = { .precision = MODEL_F32 }, embeddings_use = { .embeddings = true };

static void test_face(const char *dir)
{
	static const char *const prompts[] = { "There is Pneumothorax.", "There is pleural effusion" };
	static const char *const one_word[] = { "Nodule" };
	const char *many[130];
	CLEANUP(free) uint8_t *square = xcalloc(256, 256);
	CLEANUP(free) float *maps = xcalloc(2 * 196, sizeof(float));
	struct model_run *run;
	struct model *m;
	struct err e = { "" };
	float a[130], b[130];
	double sum = 0, far = 0;

	draw(square, 256, 5);
	if (!ok(model_open(dir, &pictures_use, &m, &e) == 0, "model_open %s", e.text) ||
	    !ok(model_run_new(m, &run, &e) == 0, "model_run_new"))
		return;
	is_str(model_info(m)->family, "untrained-tiny", "family");
	is_int(model_info(m)->domain, MODEL_UNTRAINED, "domain");
	is_int(model_info(m)->map_side, 14, "map side");
	is_int(model_score(run, square, a, NULL), -EINVAL, "no score without prompts");
	is_int(model_set_prompts(m, one_word, 1, &e), -EBADMSG, "a one-word prompt is refused");
	ok(strstr(e.text, "There is Nodule") != NULL, "and the remedy is named: %s", e.text);
	is_int(model_set_prompts(m, one_word, 0, &e), -E2BIG, "no prompts at all");

	is_int(model_set_prompts(m, prompts, 2, &e), 0, "two prompts");
	is_int(model_score(run, square, a, maps), 0, "score");
	is_int(model_score(run, square, b, NULL), 0, "score again");
	ok(memcmp(a, b, 2 * sizeof(float)) == 0, "same picture, same bits, with and without maps");
	ok(a[0] != a[1], "different prompts, different logits");
	for (size_t i = 0; i < 196; i++)
		sum += (double)maps[i];
	ok(sum > 0.5 && sum < 1, "a map holds the patches' share of attention: %.3f", sum);

	for (size_t i = 0; i < 130; i++)
		many[i] = prompts[i % 2];
	is_int(model_set_prompts(m, many, 130, &e), 0, "130 prompts, more than go through together");
	is_int(model_score(run, square, b, NULL), 0, "score them");
	for (size_t i = 0; i < 130; i++)
		far = fmax(far, fabs((double)b[i] - (double)a[i % 2]));
	ok(far < 1e-4, "a prompt's logit does not depend on its company: %.2g", far);
	model_run_free(run);
	model_close(m);
}

/* ---- embeddings ---- */

static void test_form(void)
{
	static uint16_t all[65536], back[65536];
	static float wide[65536];
	size_t n = 0, wrong = 0;

	for (unsigned h = 0; h < 65536; h++)
		if ((h & 0x7c00) != 0x7c00)
			all[n++] = (uint16_t)h;
	is_int(half_to_float(all, wide, n), 0, "every finite half is a float");
	is_int(half_from_float(wide, back, n), 0, "and a half again");
	ok(memcmp(all, back, n * sizeof(all[0])) == 0, "the same bits");
	ok(wide[1] == ldexpf(1, -24) && wide[0x3c00] == 1 && wide[0x7bff] == 65504, "a subnormal, one, the largest");
	for (size_t i = 0; i + 1 < 0x7c00; i++) { /* positive ones, in order */
		float middle = (wide[i] + wide[i + 1]) / 2, x[3] = { nextafterf(middle, 0), middle, nextafterf(middle, 1e6f) };
		uint16_t h[3];

		wrong += half_from_float(x, h, 3) != 0 || h[0] != i || h[1] != (i & 1 ? i + 1 : i) || h[2] != i + 1;
	}
	is_int((intmax_t)wrong, 0, "between two the nearer one is taken, in the middle the even one");
	is_int(half_from_float((const float[]){ 65519.9f }, back, 1), 0, "65519.9 is 65504");
	is_int(half_from_float((const float[]){ -65520 }, back, 1), -ERANGE, "-65520 is too large");
	is_int(half_from_float((const float[]){ NAN }, back, 1), -ERANGE, "what is no number is refused");
	is_int(half_to_float((const uint16_t[]){ 0xfc00 }, wide, 1), -ERANGE, "an infinity is refused");
	is_int(half_to_float((const uint16_t[]){ 0x7e00 }, wide, 1), -ERANGE, "no number is refused");
}

#define KEPT 19 /* more than go through together */

static void test_embeddings(const char *dir)
{
	static const char *const prompts[] = { "There is Pneumothorax.", "There is pleural effusion", "There is a mass" };
	const char *many[130];
	CLEANUP(free) uint8_t *square = xcalloc(256, 256);
	CLEANUP(free) uint16_t *kept = NULL;
	const uint16_t *embedding[KEPT];
	float want[KEPT][3], got[KEPT][3], other[2][130]; /* rows follow one another: the face takes [n][prompts] */
	struct model_run *run, *again;
	struct model *m, *behind;
	struct err e = { "" };
	double far = 0;
	size_t size;

	if (!ok(model_open(dir, &pictures_use, &m, &e) == 0 &&
			model_set_prompts(m, prompts, 3, &e) == 0 && model_run_new(m, &run, &e) == 0,
		"a model for pictures %s", e.text) ||
	    !ok(model_open(dir, &embeddings_use, &behind, &e) == 0 &&
			model_run_new(behind, &again, &e) == 0,
		"a model for embeddings %s", e.text))
		return;
	is_int((intmax_t)model_info(m)->tokens, 197, "rows of an embedding");
	size = model_info(m)->tokens * model_info(m)->dim;
	kept = xcalloc(KEPT * size, sizeof(*kept));
	for (size_t i = 0; i < KEPT; i++) {
		draw(square, 256, (uint32_t)i);
		embedding[i] = kept + i * size;
		if (model_score(run, square, want[i], NULL) < 0 || model_embedding(run, kept + i * size) < 0)
			ok(false, "picture %zu is scored and kept", i);
	}
	is_int(model_score_embeddings(again, embedding, KEPT, got[0]), -EINVAL, "no score without prompts");
	is_int(model_set_prompts(behind, prompts, 3, &e), 0, "the same prompts");
	is_int(model_score_embeddings(again, embedding, KEPT, got[0]), 0, "all of them");
	for (size_t i = 0; i < KEPT * 3; i++)
		far = fmax(far, fabs((double)got[i / 3][i % 3] - (double)want[i / 3][i % 3]));
	ok(far < 1e-2, "the logits of the pictures, but for the rounding: %.2g", far);
	ok(got[0][0] != got[1][0] && got[17][1] != got[18][1], "each its own");

	for (size_t i = 0; i < 130; i++)
		many[i] = prompts[i % 3];
	is_int(model_set_prompts(behind, many, 130, &e), 0, "another list, of more prompts than go through together");
	is_int(model_score_embeddings(again, embedding + 3, 2, other[0]), 0, "two of them");
	far = 0;
	for (size_t i = 0; i < 2 * 130; i++)
		far = fmax(far, fabs((double)other[i / 130][i % 130] - (double)got[3 + i / 130][i % 130 % 3]));
	ok(far < 1e-4, "a logit does not depend on its company: %.2g", far);
	kept[4 * size + 7] = 0x7c00;
	is_int(model_score_embeddings(again, embedding + 3, 2, other[0]), -ERANGE, "one that holds an infinity is refused");
	model_run_free(run);
	model_run_free(again);
	model_close(m);
	model_close(behind);
}

/* ---- half precision ---- */

static void test_half(void)
{
	/* two tensors of 4: 1, -2, the smallest subnormal, infinity in F16; then the same in BF16 */
	static const char header[] = "{\"h\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[0,8]},"
				     "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,2],\"data_offsets\":[8,16]}}";
	static const uint16_t data[] = { 0x3c00, 0xc000, 0x0001, 0x7c00, 0x3f80, 0xc000, 0x0001, 0x7f80 };
	uint8_t file[8 + sizeof(header) - 1 + sizeof(data)] = { sizeof(header) - 1 };
	struct weights *w;
	struct err e = { "" };
	const float *p;

	memcpy(file + 8, header, sizeof(header) - 1);
	memcpy(file + 8 + sizeof(header) - 1, data, sizeof(data));
	if (!ok(weights_open_memory(file, sizeof(file), "half", &w, &e) == 0, "half precision opens %s", e.text))
		return;
	ok(weights_get(w, "h", (const size_t[]){ 4 }, 1, &p, &e) == 0 && p[0] == 1 && p[1] == -2 &&
		   p[2] == ldexpf(1, -24) && isinf(p[3]),
	   "F16 is widened, subnormals too");
	ok(weights_get(w, "b", (const size_t[]){ 2, 2 }, 2, &p, &e) == 0 && p[0] == 1 && p[1] == -2 &&
		   p[2] == ldexpf(1, -133) && isinf(p[3]),
	   "BF16 is widened");
	is_int(weights_used(w), 8, "elements are counted once");
	weights_close(w);
}

/* ---- bundles that must be refused ---- */

/* A weights file from a header and a number of zero bytes. */
static void *weights_file(const char *header, size_t data, size_t *ret_n)
{
	size_t n = strlen(header);
	uint8_t *p = xcalloc(8 + n + data, 1);

	for (size_t i = 0; i < 8; i++)
		p[i] = (uint8_t)(n >> (8 * i));
	memcpy(p + 8, header, n);
	*ret_n = 8 + n + data;
	return p;
}

#define T(dtype, shape, begin, end)                                                                \
	"{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"

static void test_bad_headers(void)
{
	static const struct {
		const char *what, *header;
		size_t data;
		const char *error;
	} cases[] = {
		{ "truncated data", "{\"a\":" T("F32", "[4]", "0", "16") "}", 15, "tensor a lies at bytes 0 to 16" },
		{ "trailing data", "{\"a\":" T("F32", "[4]", "0", "16") "}", 17, "1 bytes after the last tensor" },
		{ "gap", "{\"a\":" T("F32", "[1]", "4", "8") "}", 8, "4 bytes before tensor a" },
		{ "overlap",
		  "{\"a\":" T("F32", "[2]", "0", "8") ",\"b\":" T("F32", "[2]", "4", "12") "}", 12,
		  "tensor b begins at byte 4, inside tensor a that ends at 8" },
		{ "same place twice",
		  "{\"a\":" T("F32", "[2]", "0", "8") ",\"b\":" T("F32", "[2]", "0", "8") "}", 8, "inside tensor" },
		{ "end before begin", "{\"a\":" T("F32", "[0]", "8", "4") "}", 8, "tensor a lies at bytes 8 to 4" },
		{ "far away", "{\"a\":" T("F32", "[1]", "9223372036854775800", "9223372036854775804") "}", 8,
		  "tensor a lies at" },
		{ "offset over 63 bits", "{\"a\":" T("F32", "[1]", "0", "18446744073709551615") "}", 8, "header: " },
		{ "negative offset", "{\"a\":" T("F32", "[1]", "-4", "0") "}", 8, "data_offsets are not two sizes" },
		{ "shape and bytes differ", "{\"a\":" T("F32", "[3]", "0", "16") "}", 16,
		  "tensor a of shape [3] and type F32 cannot fill 16 bytes" },
		{ "shape overflows", "{\"a\":" T("F32", "[4294967296,4294967296,16]", "0", "0") "}", 0,
		  "dimension 1 of its shape is no size" },
		{ "bytes overflow", "{\"a\":" T("F64", "[4611686018427387904]", "0", "0") "}", 0, "cannot fill" },
		{ "negative dimension", "{\"a\":" T("F32", "[-1]", "0", "4") "}", 4, "is no size" },
		{ "real dimension", "{\"a\":" T("F32", "[1.0]", "0", "4") "}", 4, "is no size" },
		{ "too many dimensions", "{\"a\":" T("F32", "[1,1,1,1,1,1,1,1,1]", "0", "4") "}", 4, "9 dimensions" },
		{ "unknown type", "{\"a\":" T("F33", "[1]", "0", "4") "}", 4, "unknown dtype F33" },
		{ "entry without shape", "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "lacks" },
		{ "entry is no object", "{\"a\":1}", 4, "tensor a: header entry lacks" },
		{ "name twice",
		  "{\"a\":" T("F32", "[1]", "0", "4") ",\"a\":" T("F32", "[1]", "4", "8") "}", 8, "duplicate" },
		{ "not JSON", "{\"a\":", 4, "header: " },
		{ "not an object", "[]", 0, "not a JSON object" },
		{ "NUL in a name", "{\"a\\u0000b\":" T("F32", "[1]", "0", "4") "}", 4, "header: " },
		{ "no tensor but data", "{}", 4, "4 bytes after the last tensor" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct weights *w = NULL;
		struct err e = { "" };
		size_t n;
		CLEANUP(free) void *file = weights_file(cases[i].header, cases[i].data, &n);
		int r = weights_open_memory(file, n, "FILE", &w, &e);

		ok(r < 0 && strncmp(e.text, "FILE: ", 6) == 0 && strstr(e.text, cases[i].error) != NULL,
		   "%s: %s", cases[i].what, e.text);
		if (r == 0)
			weights_close(w);
	}
}

static void test_bad_lengths(void)
{
	uint8_t file[16] = { 9, 0, 0, 0, 0, 0, 0, 0, '{', '}' };
	struct weights *w;
	struct err e = { "" };

	is_int(weights_open_memory(file, 10, "FILE", &w, &e), -EBADMSG, "header longer than the file: %s", e.text);
	file[7] = 0xff;
	is_int(weights_open_memory(file, 10, "FILE", &w, &e), -E2BIG, "header of 2^63 bytes: %s", e.text);
	is_int(weights_open_memory(file, 7, "FILE", &w, &e), -EBADMSG, "no room for a length: %s", e.text);
	is_int(weights_open(scratch, &w, &e), -EBADMSG, "a directory: %s", e.text);
	is_int(weights_open(at(scratch, "nothing"), &w, &e), -ENOENT, "no file: %s", e.text);
}

/* A bundle of the same manifest and vocabulary whose weights' header has `from` replaced by `to`, and
 * whose manifest names the digest of the result. */
static bool damaged_bundle(const char *good, const char *bad, const char *from, const char *to)
{
	CLEANUP(free) char *weights = NULL;
	CLEANUP(free) char *manifest = NULL;
	CLEANUP(free) char *vocab = NULL;
	size_t n_w, n_m, n_v;
	uint8_t digest[DIGEST_SIZE];
	char hex[DIGEST_HEX_MAX], *hit;
	FILE *f;

	if (read_path(at(good, "weights.safetensors"), FILE_MAX, (void **)&weights, &n_w, NULL) < 0 ||
	    read_path(at(good, "model.json"), FILE_MAX, (void **)&manifest, &n_m, NULL) < 0 ||
	    read_path(at(good, "vocab.txt"), FILE_MAX, (void **)&vocab, &n_v, NULL) < 0)
		return false;
	hit = memmem(weights, n_w, from, strlen(from));
	if (hit == NULL || strlen(from) != strlen(to))
		return false;
	memcpy(hit, to, strlen(to));
	digest_of(weights, n_w, digest);
	str_hex(hex, digest, sizeof(digest));
	hit = strstr(manifest, "\"sha256\": \"");
	memcpy(hit + strlen("\"sha256\": \""), hex, strlen(hex));
	(void)mkdir(bad, 0777);
	f = fopen(at(bad, "weights.safetensors"), "w");
	(void)fwrite(weights, 1, n_w, f);
	(void)fclose(f);
	f = fopen(at(bad, "model.json"), "w");
	(void)fwrite(manifest, 1, n_m, f);
	(void)fclose(f);
	f = fopen(at(bad, "vocab.txt"), "w");
	(void)fwrite(vocab, 1, n_v, f);
	(void)fclose(f);
	return true;
}

static void test_bad_weights(const char *good)
{
	static const struct {
		const char *what, *from, *to, *error[3];
	} cases[] = {
		{ "wrong shape", "mlp_head.3.weight\":{\"dtype\":\"F32\",\"shape\":[48,96]",
		  "mlp_head.3.weight\":{\"dtype\":\"F32\",\"shape\":[96,48]",
		  { "fusion_module.mlp_head.3.weight", "[96, 48]", "[48, 96]" } },
		{ "wrong rank", "img_encoder.model.norm.bias\":{\"dtype\":\"F32\",\"shape\":[64]",
		  "img_encoder.model.norm.bias\":{\"dtype\":\"F32\",\"shape\":[[]]",
		  { "img_encoder.model.norm.bias", "dimension 0", "is no size" } },
		{ "wrong type", "cls_token\":{\"dtype\":\"F32\"", "cls_token\":{\"dtype\":\"I32\"",
		  { "img_encoder.model.cls_token", "has type I32", "expected F32, F16 or BF16" } },
		{ "missing tensor", "text_encoder.model.encoder.layer.3.output.dense.bias",
		  "text_encoder.model.encoder.layer.9.output.dense.bias",
		  { "layer.3.output.dense.bias", "is missing", "[64]" } },
		{ "second copy of decoder_norm", "\"fusion_module.decoder.layers.3.norm3.weight\"",
		  "\"fusion_module.decoder.norm.weight\"          ",
		  { "fusion_module.decoder_norm.weight", "differ", "one module under two names" } },
	};
	struct bundle *b;
	struct err e;
	char bad[DIR_MAX];

	(void)snprintf(bad, sizeof(bad), "%s/bad", scratch);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		e.text[0] = '\0';
		if (!ok(damaged_bundle(good, bad, cases[i].from, cases[i].to), "%s: made", cases[i].what))
			continue;
		ok(bundle_open(bad, &b, &e) < 0 && strstr(e.text, "weights.safetensors") != NULL &&
			   strstr(e.text, cases[i].error[0]) != NULL &&
			   strstr(e.text, cases[i].error[1]) != NULL && strstr(e.text, cases[i].error[2]) != NULL,
		   "%s: %s", cases[i].what, e.text);
	}
	if (ok(damaged_bundle(good, bad, "{", "{"), "an equal copy")) {
		is_int(bundle_open(bad, &b, &e), 0, "opens");
		bundle_close(b);
	}
	is_int(truncate(at(bad, "weights.safetensors"), 500000), 0, "cut the weights");
	ok(bundle_open(bad, &b, &e) == -EBADMSG && strstr(e.text, "truncated?") != NULL, "cut: %s", e.text);
	remove_dir(bad);
}

static void test_bad_manifests(const char *good)
{
	static const struct {
		const char *from, *to, *error;
	} cases[] = {
		{ "\"dim\": 64", "\"dim\": 65", "key vit_heads is 4, expected a divisor of dim" },
		{ "\"dim\": 64", "\"dim\": 0", "key dim is 0, expected a whole number from 1 to 4096" },
		{ "\"dim\": 64", "\"dim\": \"64\"", "key dim is \"64\", expected a whole number" },
		{ "\"dim\": 64", "\"dum\": 64", "key dim is missing" },
		{ "\"dim\": 64", "\"dim\": 128", "has shape" },
		{ "\"dim\": 64,", "\"dim\": 64, \"dim\": 64,", "duplicate" },
		{ "\"patch\": 16", "\"patch\": 15", "key patch is 15, expected a divisor of img" },
		{ "\"patch\": 16", "\"patch\": 32", "has shape" },
		{ "\"crop\": 224", "\"crop\": 208", "key crop is 208, expected the value of img" },
		{ "\"imsize\": 256", "\"imsize\": 255", "key imsize is 255" },
		{ "\"vocab\": 1370", "\"vocab\": 1371", "1370 pieces, model.json says vocab 1371: it is not the vocabulary" },
		{ "\"max_pos\": 112", "\"max_pos\": 96", "key word_num is 97, expected at most max_pos" },
		{ "\"last_n_layers\": 4", "\"last_n_layers\": 6", "at most bert_depth + 1" },
		{ "[96, 48, 32]", "[96, 48]", "key head is [96,48], expected a list of 3" },
		{ "\"bert\": 1e-12", "\"bert\": 0", "key eps.bert is 0, expected a number" },
		{ "\"bert\": 1e-12", "\"bret\": 1e-12", "key eps.bert is missing" },
		{ "\"std\": 0.2449", "\"std\": 0.0", "key std is 0.0" },
		{ "\"format\": 1", "\"format\": 2", "key format is 2, expected a whole number from 1 to 1" },
		{ "\"domain\": \"untrained\"", "\"domain\": \"human\"", "expected untrained, phantom or clinical" },
		{ "\"name\": \"untrained-tiny-1\"", "\"name\": \"a/b\"", "key name is \"a/b\", expected 1 to 63" },
		{ "\"sha256\": \"", "\"sha256\": \"0", "expected the SHA-256 of weights.safetensors" },
		{ "\"sha256\": \"", "\"sha512\": \"", "key sha256 is missing" },
		{ "}\n}\n", "}", "line 28" },
	};
	CLEANUP(free) char *manifest = NULL;
	char bad[DIR_MAX];
	struct bundle *b;
	struct err e;
	size_t n;

	(void)snprintf(bad, sizeof(bad), "%s/manifest", scratch);
	if (!ok(damaged_bundle(good, bad, "{", "{") &&
			read_path(at(good, "model.json"), FILE_MAX, (void **)&manifest, &n, NULL) == 0,
		"a copy"))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *hit = strstr(manifest, cases[i].from);
		FILE *f = fopen(at(bad, "model.json"), "w");

		if (!ok(hit != NULL, "model.json has %s", cases[i].from))
			continue;
		fprintf(f, "%.*s%s%s", (int)(hit - manifest), manifest, cases[i].to,
			hit + strlen(cases[i].from));
		(void)fclose(f);
		e.text[0] = '\0';
		ok(bundle_open(bad, &b, &e) < 0 && strstr(e.text, cases[i].error) != NULL, "%s: %s", cases[i].to,
		   e.text);
	}
	(void)remove_dir(bad);
}

static void test_wrong_digest(const char *good)
{
	char bad[DIR_MAX];
	struct bundle *b;
	struct err e = { "" };
	FILE *f;

	(void)snprintf(bad, sizeof(bad), "%s/digest", scratch);
	if (!ok(damaged_bundle(good, bad, "{", "{"), "a copy"))
		return;
	f = fopen(at(bad, "weights.safetensors"), "r+");
	(void)fseek(f, -1, SEEK_END);
	(void)fputc(1, f);
	(void)fclose(f);
	ok(bundle_open(bad, &b, &e) == -EBADMSG && strstr(e.text, "SHA-256 is ") != NULL &&
		   strstr(e.text, "model.json names ") != NULL,
	   "one changed byte: %s", e.text);
	remove_dir(bad);
}

int main(int argc, char **argv)
{
	char dir[DIR_MAX];
	struct err e = { "" };

	kernels_set_threads(1);
	if (argc == 5)
		return test_other(argv);
	if (mkdtemp(scratch) == NULL)
		plan_skip_all("no temporary directory");
	test_gelu();
	test_softmax();
	test_layernorm();
	test_linear();
	(void)snprintf(dir, sizeof(dir), "%s/untrained", scratch);
	if (ok(untrained_write(dir, at(top(), "tools/bundle/vocab.txt"), 1, &e) == 0, "the untrained bundle is written %s",
	       e.text)) {
		for (int backend = KERNELS_OPENBLAS; backend <= KERNELS_AVX2; backend++) {
			if (kernels_set_backend((enum kernels_backend)backend) < 0)
				continue; /* not built, or not for this CPU */
			kernels_set_threads(1);
			test_own_vectors(dir);
			test_face(dir);
			test_embeddings(dir);
			test_golden();
		}
		test_bad_weights(dir);
		test_bad_manifests(dir);
		test_wrong_digest(dir);
	}
	test_half();
	test_form();
	test_bad_headers();
	test_bad_lengths();
	remove_dir(dir);
	(void)rmdir(scratch);
	return done();
}
