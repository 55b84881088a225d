/* score.c: our contender in ./run bench: one picture for each line of stdin, its wall and CPU seconds on
 * stdout.
 *
 *	score BUNDLE THREADS best|openblas|onednn|avx2 f32|bf16|int8 PROMPTS
 *	score BUNDLE THREADS best|openblas|onednn|avx2 f32|bf16|int8 PROMPTS FILE ...
 *
 * The second form scores raw squares (image_size x image_size bytes) and prints each one's logits with
 * 9 digits instead: for the distance between precisions.  CARZEROD_CACHE=FOLDER: the packed weights are those of
 * that cache, as a node's workers have them.  The first line of output, "ready TEXT", says
 * what code runs.  The time is that of model_score(): image tower, fusion and head; the text tables are
 * made before.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/fdio.h"
#include "base/mem.h"

#include "model/kernels.h"
#include "model/model.h"

static const char *const prompts[] = {
	"There is Atelectasis", "There is Cardiomegaly", "There is Pleural Effusion",
	"There is Pulmonary Infiltration", "There is Pulmonary Mass", "There is Lung Nodule",
	"There is Pneumonia", "There is Pneumothorax", "There is Pulmonary Consolidation",
	"There is Pulmonary Edema", "There is Pulmonary Emphysema", "There is Fibrosis",
	"There is Pleural Thickening", "There is Hernia",
};

static double now(clockid_t clock)
{
	struct timespec t;

	(void)clock_gettime(clock, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int fail(const char *text)
{
	fprintf(stderr, "score: %s\n", text);
	return 1;
}

static int score_files(struct model_run *run, size_t side, size_t n, char **files, float *logits /* [n] */)
{
	for (; *files != NULL; files++) {
		CLEANUP(free) void *square = NULL;
		struct err e;
		size_t bytes;

		if (read_path(*files, side * side, &square, &bytes, &e) < 0)
			return fail(e.text);
		if (bytes != side * side || model_score(run, square, logits, NULL) < 0)
			return fail(*files);
		printf("%s", *files);
		for (size_t i = 0; i < n; i++)
			printf("\t%.9g", (double)logits[i]);
		putchar('\n');
	}
	return 0;
}

static int score_lines(struct model_run *run, size_t side, float *logits)
{
	CLEANUP(free) uint8_t *square = xcalloc(side, side);
	char line[16];

	for (size_t i = 0; i < side * side; i++)
		square[i] = (uint8_t)((uint32_t)i * 2654435761u >> 24);
	while (fgets(line, sizeof(line), stdin) != NULL) {
		double wall = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);

		if (model_score(run, square, logits, NULL) < 0)
			return fail("model_score");
		printf("%.6f %.6f\n", now(CLOCK_MONOTONIC) - wall, now(CLOCK_PROCESS_CPUTIME_ID) - cpu);
		(void)fflush(stdout);
	}
	return 0;
}

int main(int argc, char **argv)
{
	const char *text[MODEL_PROMPTS_MAX];
	float logits[MODEL_PROMPTS_MAX];
	struct model_use use = { .cache = getenv("CARZEROD_CACHE") };
	struct model_run *run;
	struct model *m;
	struct err e;
	size_t n, side;
	int code;

	kernels_wait_asleep(argv);
	if (argc < 6)
		return fail("BUNDLE THREADS best|openblas|onednn|avx2 f32|bf16|int8 PROMPTS [FILE ...]");
	n = strtoul(argv[5], NULL, 10);
	if (n < 1 || n > MODEL_PROMPTS_MAX)
		return fail("PROMPTS");
	for (size_t i = 0; i < n; i++)
		text[i] = prompts[i % ARRAY_SIZE(prompts)];
	if (strcmp(argv[3], "best") != 0 &&
	    kernels_set_backend(strcmp(argv[3], "onednn") == 0 ? KERNELS_ONEDNN
				: strcmp(argv[3], "avx2") == 0 ? KERNELS_AVX2
								: KERNELS_OPENBLAS) < 0)
		return fail("built without it, or not for this CPU");
	kernels_set_threads((unsigned)strtoul(argv[2], NULL, 10));
	use.precision = strcmp(argv[4], "bf16") == 0 ? MODEL_BF16 : strcmp(argv[4], "int8") == 0 ? MODEL_INT8 : MODEL_F32;
	if (model_open(argv[1], &use, &m, &e) < 0 ||
	    model_set_prompts(m, text, n, &e) < 0 || model_run_new(m, &run, &e) < 0)
		return fail(e.text);
	side = model_info(m)->image_size;
	printf("ready %s\n", kernels_core());
	(void)fflush(stdout);
	code = argc > 6 ? score_files(run, side, n, argv + 6, logits) : score_lines(run, side, logits);
	if (kernels_fallbacks() > 0)
		fprintf(stderr, "score: %lu products fell back to OpenBLAS\n", kernels_fallbacks());
	model_run_free(run);
	model_close(m);
	return code;
}
