/* infer.c: carzerod-infer: squares of grey levels in, logits and attention maps out.
 *
 * It opens the bundle and the findings list, encodes the prompts once, scores a blank square so that
 * every buffer and thread exists, locks itself down, and then only reads squares and writes
 * numbers.  What it packs and encodes at the start lies in the cache folder that its last argument names,
 * where the next one finds it and all workers share its pages; without one it does everything itself.  It never sees DICOM, a name, the network or a folder; the keeper kills it when a
 * deadline passes.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/fdio.h"
#include "base/log.h"
#include "base/mem.h"

#include "store/embedding.h"

#include "model/kernels.h"
#include "model/model.h"

#include "daemon/begin.h"
#include "daemon/config.h"
#include "daemon/findings.h"
#include "daemon/ipc.h"
#include "daemon/sandbox.h"

#define INFER_FILES 64

static const enum model_precision model_precision[] = {
	[PRECISION_F32] = MODEL_F32, [PRECISION_BF16] = MODEL_BF16, [PRECISION_INT8] = MODEL_INT8,
};

static int64_t now_us(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static void set_prompts(struct model *model, const struct findings *list)
{
	const char **prompts = xcalloc(list->n, sizeof(*prompts));
	struct err e;
	size_t i;

	for (i = 0; i < list->n; i++)
		prompts[i] = list->finding[i].prompt;
	if (model_set_prompts(model, prompts, list->n, &e) < 0)
		fatal(FATAL_CONFIG, "%s", e.text);
	free(prompts);
}

static void introduce(const struct model_info *info, const struct findings *list)
{
	union ipc_message m;

	ipc_begin(&m, IPC_MODEL, 0);
	(void)str_copy(m.model.name, sizeof(m.model.name), info->name);
	(void)str_copy(m.model.family, sizeof(m.model.family), info->family);
	m.model.domain = info->domain;
	m.model.n_findings = (uint32_t)list->n;
	m.model.side = (uint32_t)info->image_size;
	m.model.crop = (uint32_t)info->crop;
	m.model.map_side = (uint32_t)info->map_side;
	memcpy(m.model.weights, info->digest, DIGEST_SIZE);
	memcpy(m.model.findings, list->digest, DIGEST_SIZE);
	if (ipc_send(IPC_FD, &m, NULL, 0) < 0)
		_exit(0);
}

/* A logit that is no number is a fault of ours or of the weights; it must never reach a report. */
static int check_logits(const float *logit, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++) {
		if (!isfinite(logit[i]))
			return -ERANGE;
	}
	return 0;
}

/* What the picture is to the findings, for lists to come.  It costs no score when it cannot be kept. */
static int keep(const struct config *config, const struct model_run *run, const struct model_info *info,
		const struct ipc_score *of, uint16_t *values /* scratch */, int fd)
{
	struct embedding e = { .object = of->object, .rows = (uint32_t)info->tokens, .columns = (uint32_t)info->dim };
	int r;

	memcpy(e.digest, of->digest, DIGEST_SIZE);
	memcpy(e.weights, info->digest, DIGEST_SIZE);
	(void)str_copy(e.recipe, sizeof(e.recipe), recipe_name(config->recipe));
	(void)str_copy(e.precision, sizeof(e.precision), precision_name(config->precision));
	(void)str_copy(e.version, sizeof(e.version), PACKAGE_VERSION);
	r = model_embedding(run, values);
	if (r == 0)
		r = embedding_write(fd, &e, values);
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	if (r < 0)
		log_warning("an embedding is not kept: %s", strerror(-r));
	return r;
}

static void run(const struct config *config, struct model_run *run, const struct model_info *info, size_t n_findings)
	__attribute__((noreturn));
static void run(const struct config *config, struct model_run *run, const struct model_info *info, size_t n_findings)
{
	size_t n_square = info->image_size * info->image_size;
	size_t n_maps = n_findings * info->map_side * info->map_side;
	uint8_t *square = xcalloc(1, n_square);
	float *maps = xcalloc(n_maps, sizeof(*maps));
	uint16_t *values = xcalloc(info->tokens * info->dim, sizeof(*values));
	int fds[IPC_FDS_MAX];

	for (;;) {
		union ipc_message m, answer;
		size_t n_fds = 0;
		int64_t start;
		int r = ipc_receive(IPC_FD, IPC_KEEPER, &m, fds, &n_fds);

		if (r == 0)
			_exit(0);
		if (r < 0 || m.h.type != IPC_SCORE)
			fatal(FATAL_SOFTWARE, "channel: %s", r < 0 ? strerror(-r) : "not for us");
		start = now_us();
		ipc_begin(&answer, IPC_SCORED, m.h.token);
		failpoint("infer.score");
		r = pread_full(fds[0], square, n_square, 0);
		if (r == 0)
			r = model_score(run, square, answer.scored.logit, maps);
		if (r == 0)
			r = check_logits(answer.scored.logit, n_findings);
		if (r == 0)
			r = write_full(fds[1], maps, n_maps * sizeof(*maps));
		answer.scored.microseconds = (uint32_t)(now_us() - start);
		if (r == 0 && n_fds == 3)
			answer.scored.kept = keep(config, run, info, &m.score, values, fds[2]) == 0;
		while (n_fds > 0)
			(void)close(fds[--n_fds]);
		failpoint("infer.scored");
		answer.scored.result = r;
		answer.scored.n = (uint32_t)n_findings;
		if (ipc_send(IPC_FD, &answer, NULL, 0) < 0)
			_exit(0);
	}
}

/* The argument of the keeper that started us, whose state_dir need not be the one of a configuration on trial. */
static struct model_use use_of(const struct config *c, int argc, char **argv)
{
	return (struct model_use){
		.precision = model_precision[c->precision],
		.cache = optind < argc ? argv[optind] : NULL,
		.spare = c->min_free_bytes + c->min_free_bytes / 32 + c->ballast_bytes, /* the upper of disk.c's two marks */
	};
}

int main(int argc, char **argv)
{
	struct model_use use;
	struct config *config;
	struct findings *list;
	struct model *model;
	struct model_run *scratch;
	uint8_t *blank;
	float *logits;
	struct err e;

	config = begin_helper("carzerod-infer", argc, argv, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)prctl(PR_SET_DUMPABLE, 0);
	kernels_set_threads(config->threads);
	use = use_of(config, argc, argv);
	if (findings_load(config->findings, &list, NULL, NULL, &e) < 0 ||
	    model_open(config->model, &use, &model, &e) < 0)
		fatal(FATAL_CONFIG, "%s", e.text);
	if (model_info(model)->map_side > IPC_MAP_SIDE_MAX)
		fatal(FATAL_CONFIG, "%s: attention maps of %zu x %zu fields, at most %d are taken", config->model,
		      model_info(model)->map_side, model_info(model)->map_side, IPC_MAP_SIDE_MAX);
	if (model_info(model)->tokens > EMBEDDING_ROWS_MAX || model_info(model)->dim > EMBEDDING_COLUMNS_MAX)
		fatal(FATAL_CONFIG, "%s: embeddings of %zu x %zu numbers, at most %d x %d are kept", config->model,
		      model_info(model)->tokens, model_info(model)->dim, EMBEDDING_ROWS_MAX, EMBEDDING_COLUMNS_MAX);
	set_prompts(model, list);
	if (model_run_new(model, &scratch, &e) < 0)
		fatal(FATAL_CONFIG, "%s", e.text);
	blank = xcalloc(model_info(model)->image_size, model_info(model)->image_size);
	logits = xcalloc(list->n, sizeof(*logits));
	if (model_score(scratch, blank, logits, NULL) < 0)
		fatal(FATAL_SOFTWARE, "the model does not run");
	if (check_logits(logits, list->n) < 0)
		fatal(FATAL_CONFIG, "%s: a blank square gives a logit that is no number: wrong weights", config->model);
	log_info("scoring core=\"%s\" precision=%s threads=%u fallbacks=%lu cache=\"%s\"", kernels_core(),
		 precision_name(config->precision), config->threads, kernels_fallbacks(), model_cache_note(model));
	free(blank);
	free(logits);
	if (sandbox_limit(0, 0, INFER_FILES, 0, &e) < 0 || sandbox_enter(SANDBOX_INFER, &e) < 0)
		fatal(FATAL_OS, "%s", e.text);
	introduce(model_info(model), list);
	run(config, scratch, model_info(model), list->n);
}
