/* rescore.c: what a kept embedding saves: the same pictures scored from their squares and from fp16, in turns.
 *
 *	rescore BUNDLE THREADS avx2|onednn|openblas PROMPTS PICTURES ROUNDS [FILE ...]
 *
 * Each FILE is a raw square (image_size x image_size bytes); without one squares are noise.  A line a round: wall and CPU
 * ms a picture from pixels and from embeddings (read from memory; reading and checking files is in tests/long_rescore.sh), and
 * their ratio.  At the end the distance of the logits.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/fdio.h"
#include "base/mem.h"

#include "model/kernels.h"
#include "model/model.h"

static double now(clockid_t clock)
{
	struct timespec t;

	(void)clock_gettime(clock, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int fail(const char *text)
{
	fprintf(stderr, "rescore: %s\n", text);
	return 1;
}

/* Prompts that are all different, some longer than others, as a list has them. */
static void set_prompts(struct model *m, size_t n)
{
	static const char *const parts[] = { "left", "right", "upper", "lower", "middle", "diffuse", "focal", "bilateral" };
	static const char *const things[] = { "pneumothorax", "pleural effusion", "consolidation", "mass", "lung nodule", "edema",
					      "fibrosis", "cardiomegaly" };
	const char **text = xcalloc(n, sizeof(*text));
	struct err e;

	for (size_t i = 0; i < n; i++) {
		char *t;

		if (asprintf(&t, "There is %s %s %s", parts[i / 8 % 8], things[i % 8], i >= 64 ? parts[i / 64 % 8] : "") < 0)
			exit(fail("memory"));
		text[i] = t; /* as long as the program */
	}
	if (model_set_prompts(m, text, n, &e) < 0)
		exit(fail(e.text));
	free(text);
}

static void square_of(uint8_t *square, size_t side, size_t i, int argc, char **argv)
{
	CLEANUP(free) void *bytes = NULL;
	struct err e;
	size_t n;

	if (argc <= 7) {
		for (size_t p = 0; p < side * side; p++)
			square[p] = (uint8_t)((uint32_t)(p + i * 977) * 2654435761u >> 24);
		return;
	}
	if (read_path(argv[7 + i % ((size_t)argc - 7)], side * side, &bytes, &n, &e) < 0)
		exit(fail(e.text));
	if (n != side * side)
		exit(fail("a square of another size"));
	memcpy(square, bytes, n);
}

int main(int argc, char **argv)
{
	static const struct model_use pictures_use = { .precision = MODEL_F32 }, embeddings_use = { .embeddings = true };
	struct model_run *run, *again;
	struct model *m, *behind;
	size_t n, pictures, rounds, side, size;
	double most = 0, sum = 0;
	struct err e;

	kernels_wait_asleep(argv);
	if (argc < 7)
		return fail("BUNDLE THREADS avx2|onednn|openblas PROMPTS PICTURES ROUNDS [FILE ...]");
	n = strtoul(argv[4], NULL, 10);
	pictures = strtoul(argv[5], NULL, 10);
	rounds = strtoul(argv[6], NULL, 10);
	if (n < 1 || n > 192 || pictures < 1 || pictures > 1000)
		return fail("1 to 192 prompts, 1 to 1000 pictures");
	if (kernels_set_backend(strcmp(argv[3], "onednn") == 0 ? KERNELS_ONEDNN
				: strcmp(argv[3], "avx2") == 0 ? KERNELS_AVX2
								: KERNELS_OPENBLAS) < 0)
		return fail("no such kernels here");
	kernels_set_threads((unsigned)strtoul(argv[2], NULL, 10));
	if (model_open(argv[1], &pictures_use, &m, &e) < 0 || model_open(argv[1], &embeddings_use, &behind, &e) < 0)
		return fail(e.text);
	set_prompts(m, n);
	set_prompts(behind, n);
	if (model_run_new(m, &run, &e) < 0 || model_run_new(behind, &again, &e) < 0)
		return fail(e.text);
	side = model_info(m)->image_size;
	size = model_info(m)->tokens * model_info(m)->dim;

	CLEANUP(free) uint8_t *square = xcalloc(pictures, side * side);
	CLEANUP(free) uint16_t *kept = xcalloc(pictures, size * sizeof(*kept));
	CLEANUP(free) const uint16_t **embedding = xcalloc(pictures, sizeof(*embedding));
	CLEANUP(free) float *from_pixels = xcalloc(pictures * n, sizeof(float));
	CLEANUP(free) float *from_kept = xcalloc(pictures * n, sizeof(float));

	for (size_t i = 0; i < pictures; i++) {
		square_of(square + i * side * side, side, i, argc, argv);
		embedding[i] = kept + i * size;
		if (model_score(run, square + i * side * side, from_pixels + i * n, NULL) < 0 ||
		    model_embedding(run, kept + i * size) < 0)
			return fail("a picture cannot be scored or kept");
	}
	printf("%s, %zu pictures, %zu prompts, %zu bytes an embedding\n", kernels_core(), pictures, n, size * sizeof(*kept));
	for (size_t round = 0; round < rounds; round++) {
		double start = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID), pixels, kept_cpu;

		for (size_t i = 0; i < pictures; i++)
			(void)model_score(run, square + i * side * side, from_pixels + i * n, NULL);
		pixels = now(CLOCK_MONOTONIC) - start;
		kept_cpu = now(CLOCK_PROCESS_CPUTIME_ID);
		cpu = kept_cpu - cpu;
		start = now(CLOCK_MONOTONIC);
		if (model_score_embeddings(again, embedding, pictures, from_kept) < 0)
			return fail("embeddings cannot be scored");
		start = now(CLOCK_MONOTONIC) - start;
		kept_cpu = now(CLOCK_PROCESS_CPUTIME_ID) - kept_cpu;
		printf("%.1f ms (CPU %.1f) from pixels, %.2f ms (CPU %.2f) from embeddings: %.1f times (CPU %.1f)\n",
		       pixels * 1e3 / (double)pictures, cpu * 1e3 / (double)pictures, start * 1e3 / (double)pictures,
		       kept_cpu * 1e3 / (double)pictures, pixels / start, cpu / kept_cpu);
		(void)fflush(stdout);
	}
	for (size_t i = 0; i < pictures * n; i++) {
		double far = fabs((double)from_pixels[i] - (double)from_kept[i]);

		most = far > most ? far : most;
		sum += far;
	}
	printf("logits differ by at most %.2g, by %.2g in the mean\n", most, sum / (double)(pictures * n));
	model_run_free(run);
	model_run_free(again);
	model_close(m);
	model_close(behind);
	return 0;
}
