/* analysis.c: instances, from claim to outcome.
 *
 * A claim counts the attempt before a worker sees the object, so an image that kills its worker
 * cannot loop: after limits.attempts it is quarantined, kept, and reported as not analysed.
 * The square travels as a sealed memory file: what the decoder wrote is what the model reads, and the
 * decoder cannot change it afterwards.
 */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/fdio.h"
#include "base/log.h"
#include "base/mem.h"

#include "model/model.h"

#include "dicom/image.h"

#include "daemon/keeper.h"
#include "daemon/maps.h"
#include "daemon/sandbox.h"

#define RETRY_BASE_MS 1000
#define RETRY_CAP_MS 60000
#define GRACE_MS 5000 /* beyond the worker's own deadline, before the keeper kills */
/* A claim that survives this many deaths of the whole node is taken for the cause of them. */
#define SUSPECT_MS 600000
#define RECOVERED_ATTEMPTS_MAX 10

static int64_t image_time_ms(const struct keeper *k)
{
	return (int64_t)k->config->limits.image_seconds * 1000 + GRACE_MS;
}

static int64_t infer_time_ms(const struct keeper *k)
{
	return (int64_t)k->config->limits.infer_seconds * 1000;
}

static bool alone(const struct keeper *k)
{
	size_t i;

	for (i = 0; i < KEEPER_JOBS_MAX; i++) {
		if (k->job[i].stage != JOB_FREE)
			return false;
	}
	return true;
}

static struct job *job_slot(struct keeper *k)
{
	size_t i, n = k->config->workers + KEEPER_DECODE_AHEAD;

	if (k->n_suspects > 0 && !alone(k))
		return NULL;

	for (i = 0; i < n; i++) {
		if (k->job[i].stage == JOB_FREE)
			return &k->job[i];
	}
	return NULL;
}

static struct job *job_find(struct keeper *k, uint64_t ticket, enum job_stage stage)
{
	size_t i;

	for (i = 0; i < KEEPER_JOBS_MAX; i++) {
		if (k->job[i].stage == stage && k->job[i].ticket == ticket)
			return &k->job[i];
	}
	return NULL;
}

static void job_end(struct keeper *k, struct job *j)
{
	if (j->embedding != 0)
		(void)spool_remove(k->spool, SPOOL_INCOMING, j->embedding); /* else at the next start */
	j->embedding = 0;
	if (j->square >= 0)
		(void)close(j->square);
	if (j->maps >= 0)
		(void)close(j->maps);
	j->square = j->maps = -1;
	j->stage = JOB_FREE;
}

/* An attempt failed: once more, or quarantine. */
static void failed(struct keeper *k, struct job *j, const char *why)
{
	char key[64];
	bool last = j->in.attempt >= k->config->limits.attempts;
	int64_t due = k->now + keeper_backoff_ms(RETRY_BASE_MS, RETRY_CAP_MS, j->in.attempt - 1);

	keeper_event(k, j->in.study, EVENT_OBJECT, "object %lld, attempt %u of %u failed: %s%s", (long long)j->in.id,
		     j->in.attempt, k->config->limits.attempts, why, last ? "; quarantined" : "");
	if (last) {
		log_error("object=%lld quarantined after %u attempts: %s; kept, see carzeroctl show", (long long)j->in.id,
			  j->in.attempt, why);
		keeper_must(k, store_quarantine_instance(k->store, &j->in, k->now, why), "quarantine an object");
		recovery_cleared(k, j->in.id);
		k->quarantined++;
		figures_failed(k, &j->in);
		(void)snprintf(key, sizeof(key), "object=%lld quarantined", (long long)j->in.id);
		notices_raise(k, NOTIFY_SET_ASIDE, NULL, key, "object %lld of study %lld cannot be analysed: %s",
			      (long long)j->in.id, (long long)j->in.study, why);
	} else {
		log_warning("object=%lld attempt %u failed: %s; tried again", (long long)j->in.id, j->in.attempt, why);
		keeper_must(k, store_retry_instance(k->store, &j->in, due, why, false), "retry an object");
	}
	job_end(k, j);
}

/* Interrupted through no fault of the image: the attempt does not count. */
static void give_back(struct keeper *k, struct job *j, const char *why)
{
	keeper_must(k, store_retry_instance(k->store, &j->in, k->now + RETRY_BASE_MS, why, true), "give an object back");
	job_end(k, j);
}

static void settle(struct keeper *k, struct job *j, enum instance_outcome outcome, const char *why,
		   const struct score *scores, size_t n)
{
	j->in.outcome = outcome;
	(void)str_copy(j->in.why, sizeof(j->in.why), why);
	(void)str_copy(j->in.recipe, sizeof(j->in.recipe), recipe_name(k->config->recipe));
	(void)str_copy(j->in.precision, sizeof(j->in.precision), precision_name(k->config->precision));
	(void)str_copy(j->in.version, sizeof(j->in.version), PACKAGE_VERSION);
	memcpy(j->in.weights, k->model.weights, DIGEST_SIZE);
	memcpy(j->in.findings, k->findings->digest, DIGEST_SIZE);
	j->in.settled = k->now;
	keeper_must(k, store_settle_instance(k->store, &j->in, scores, n), "settle an object");
	recovery_cleared(k, j->in.id);
	failpoint("analysis.settled");
	job_end(k, j);
}

static bool claim(struct keeper *k, struct job *j)
{
	int r = store_claim_instance(k->store, k->now, k->now + image_time_ms(k) + infer_time_ms(k), &j->in);

	if (r == -ENOENT) {
		if (k->n_suspects > 0 && alone(k) && k->boot > SUSPECT_MS + k->started)
			k->n_suspects = 0; /* purged, or waiting for a retry: no reason to go slowly for ever */
		return false;
	}
	if (!keeper_must(k, r, "claim an object"))
		return false;
	failpoint("analysis.claimed");
	return true;
}

static void start_decode(struct keeper *k, struct job *j)
{
	union ipc_message m;
	int fds[2];

	j->square = fd_memory("carzerod-square");
	if (j->square < 0)
		fatal(FATAL_TEMPORARY, "memory file: %s", strerror(-j->square));
	j->stage = JOB_DECODE;
	fds[0] = spool_read(k->spool, SPOOL_OBJECTS, j->in.file);
	if (fds[0] < 0) {
		failed(k, j, "the stored file is missing or cannot be opened");
		return;
	}
	fds[1] = dup(j->square);
	if (fds[1] < 0)
		fatal(FATAL_TEMPORARY, "dup: %s", strerror(errno));
	j->ticket = ++k->ticket;
	ipc_begin(&m, IPC_DECODE, j->ticket);
	memcpy(m.decode.digest, j->in.digest, DIGEST_SIZE);
	m.decode.side = k->model.side;
	j->since = figures_now();
	j->deadline = k->boot + image_time_ms(k);
	keeper_post(k, &k->image, k->image.sock, &m, fds, 2);
}

static bool worker_free(const struct keeper *k, size_t worker)
{
	size_t i;

	if (!k->infer[worker].ready)
		return false;
	for (i = 0; i < KEEPER_JOBS_MAX; i++) {
		if (k->job[i].stage == JOB_SCORE && k->job[i].worker == worker)
			return false;
	}
	return true;
}

static bool goes_before(const struct instance *a, const struct instance *b)
{
	bool a_slow = a->lane != LANE_NORMAL, b_slow = b->lane != LANE_NORMAL;

	return a_slow != b_slow ? b_slow : a->id < b->id;
}

/* Of the normal lane, if there is one.  Those of the slow lane do not starve: there are not many jobs, and at the latest
 * when it is theirs in all of them, one is scored. */
static struct job *oldest_waiting(struct keeper *k)
{
	struct job *oldest = NULL;
	size_t i;

	for (i = 0; i < KEEPER_JOBS_MAX; i++) {
		struct job *j = &k->job[i];

		if (j->stage == JOB_WAIT && (oldest == NULL || goes_before(&j->in, &oldest->in)))
			oldest = j;
	}
	return oldest;
}

/* A file for its embedding; -1: it is not kept.  What may fill a disk that is nearly full is not worth it. */
static int embedding_file(struct keeper *k, struct job *j)
{
	int fd;

	if (!k->config->keep_embeddings || k->disk_low)
		return -1;
	fd = spool_create(k->spool, &j->embedding);
	if (fd < 0)
		log_warning("object=%lld: its embedding is not kept: %s", (long long)j->in.id, strerror(-fd));
	return fd;
}

static void start_score(struct keeper *k, struct job *j, size_t worker)
{
	union ipc_message m;
	int fds[3];

	j->maps = fd_memory("carzerod-maps");
	if (j->maps < 0)
		fatal(FATAL_TEMPORARY, "memory file: %s", strerror(-j->maps));
	fds[0] = dup(j->square);
	fds[1] = dup(j->maps);
	if (fds[0] < 0 || fds[1] < 0)
		fatal(FATAL_TEMPORARY, "dup: %s", strerror(errno));
	j->ticket = ++k->ticket;
	ipc_begin(&m, IPC_SCORE, j->ticket);
	m.score.object = j->in.file;
	memcpy(m.score.digest, j->in.digest, DIGEST_SIZE);
	fds[2] = embedding_file(k, j);
	j->stage = JOB_SCORE;
	j->worker = worker;
	j->deadline = k->boot + infer_time_ms(k);
	keeper_post(k, &k->infer[worker], k->infer[worker].sock, &m, fds, fds[2] >= 0 ? 3 : 2);
}

void analysis_dispatch(struct keeper *k)
{
	struct job *j;
	size_t w;

	for (w = 0; w < k->config->workers; w++) {
		if (worker_free(k, w) && (j = oldest_waiting(k)) != NULL)
			start_score(k, j, w);
	}
	/* nothing is claimed before a model is there: waiting is not an attempt */
	if (k->stopping || !k->model.known || !k->image.ready)
		return;
	while ((j = job_slot(k)) != NULL && claim(k, j)) {
		j->square = j->maps = -1;
		if (j->in.attempt > RECOVERED_ATTEMPTS_MAX) {
			j->stage = JOB_DECODE;
			failed(k, j, "the node died repeatedly while this object was being analysed");
			continue;
		}
		start_decode(k, j);
	}
}

/* Facts of the decoder into the row; false when they contradict what was received. */
static bool take_facts(struct job *j, const struct ipc_decoded *d)
{
	memcpy(j->in.patient, d->patient, DIGEST_SIZE);
	memcpy(j->in.content, d->content, DIGEST_SIZE);
	return (d->sop_uid[0] == '\0' || strcmp(d->sop_uid, j->in.sop_uid) == 0) &&
	       (d->study_uid[0] == '\0' || strcmp(d->study_uid, j->in.study_uid) == 0);
}

void analysis_decoded(struct keeper *k, const struct ipc_decoded *d)
{
	struct job *j = job_find(k, d->h.token, JOB_DECODE);
	char why[STORE_WHY_MAX];
	int r;

	if (j == NULL)
		return; /* it came after its deadline: the claim is gone */
	figures_took(k, TELEMETRY_DECODE, j->since);
	if (!take_facts(j, d)) {
		failed(k, j, "parsing finds other UIDs than the receiver did");
		return;
	}
	if (d->reason != IMAGE_OK) {
		(void)snprintf(why, sizeof(why), "%s: %.150s", image_reason_name(d->reason), d->why);
		log_info("object=%lld not analysed: %s", (long long)j->in.id, image_reason_name(d->reason));
		k->not_analysed++;
		figures_not_analysed(k, &j->in, d->reason);
		settle(k, j, OUTCOME_NOT_ANALYSED, why, NULL, 0);
		return;
	}
	if (k->model.domain != MODEL_CLINICAL && !d->quality_control && !k->config->allow_out_of_domain) {
		/* a model that never saw patients must not speak about one */
		log_info("object=%lld not analysed, not reported: the bundle is not a clinical one and the image is not tagged Quality Control",
			 (long long)j->in.id);
		k->not_analysed++;
		figures_not_analysed(k, &j->in, IMAGE_OUT_OF_DOMAIN);
		settle(k, j, OUTCOME_SILENT,
		       "out of domain: the model bundle is not clinical and (0028,0300) Quality Control Image is not YES (allow_out_of_domain would score it)",
		       NULL, 0);
		return;
	}
	r = fd_seal(j->square);
	if (r < 0) { /* somebody still holds it writable: not an answer to build on */
		failed(k, j, "the decoder keeps its result open");
		return;
	}
	j->stage = JOB_WAIT;
	failpoint("analysis.decoded");
}

bool analysis_died(struct keeper *k, const struct ipc_died *d)
{
	struct job *j = job_find(k, d->h.token, JOB_DECODE);
	char why[STORE_WHY_MAX];

	if (j == NULL)
		return false;
	if (d->timed_out)
		(void)snprintf(why, sizeof(why), "decoding took longer than limits.image_seconds (%u s)",
			       k->config->limits.image_seconds);
	else if (d->signal == SIGXCPU)
		(void)snprintf(why, sizeof(why), "decoding took more than %u s of CPU time (limits.image_seconds)",
			       k->config->limits.image_seconds);
	else if (d->signal != 0)
		(void)snprintf(why, sizeof(why), "the decoder died of signal %d (%s)", d->signal,
			       strsignal(d->signal));
	else
		(void)snprintf(why, sizeof(why), "the decoder ended with code %d%s", d->exit_code,
			       sandbox_code_text(d->exit_code));
	failed(k, j, why);
	return true;
}

static bool all_finite(const float *p, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++) {
		if (!isfinite(p[i]))
			return false;
	}
	return true;
}

static size_t fill_scores(const struct keeper *k, const struct ipc_scored *d, struct score *ret)
{
	size_t i;

	for (i = 0; i < k->findings->n; i++) {
		const struct finding *f = &k->findings->finding[i];
		double p = finding_probability(f, d->logit[i], k->model.family,
					       recipe_name(k->config->recipe),
					       precision_name(k->config->precision));

		(void)str_copy(ret[i].finding, sizeof(ret[i].finding), f->id);
		ret[i].logit = d->logit[i];
		ret[i].probability = (float)p;
		ret[i].decision = (uint8_t)finding_decide(f, p);
	}
	return k->findings->n;
}

/* Reads one finding's map out of what the worker wrote; false when it is not there or is no map. */
static bool read_map(const struct keeper *k, const struct job *j, size_t place, struct score_map *ret)
{
	size_t n = (size_t)k->model.map_side * k->model.map_side;
	float map[IPC_MAP_SIDE_MAX * IPC_MAP_SIDE_MAX];

	if (pread_full(j->maps, map, n * sizeof(map[0]), (off_t)(place * n * sizeof(map[0]))) < 0)
		return false;
	ret->place = place;
	return maps_shade(map, n, ret) == 0;
}

/* The maps that will be shown, before the job that holds them ends.  Returns how many. */
static size_t read_maps(const struct keeper *k, const struct job *j, const struct score *scores, size_t n,
			struct score_map ret[MAPS_MAX])
{
	size_t place[MAPS_MAX], chosen = maps_choose(scores, n, place), found = 0, i;

	for (i = 0; i < chosen; i++) {
		if (read_map(k, j, place[i], &ret[found]))
			found++;
	}
	return found;
}

/* The worker has synced it; its folder is synced before the row that names it is committed. */
static void keep_embedding(struct keeper *k, struct job *j)
{
	int r = spool_move(k->spool, j->embedding, SPOOL_INCOMING, SPOOL_EMBEDDINGS);

	if (r < 0) {
		log_warning("object=%lld: its embedding is not kept: %s", (long long)j->in.id, strerror(-r));
		return;
	}
	j->in.embedding = j->embedding;
	j->embedding = 0;
	failpoint("analysis.kept");
}

void analysis_scored(struct keeper *k, size_t worker, const struct ipc_scored *d)
{
	struct job *j = job_find(k, d->h.token, JOB_SCORE);
	CLEANUP(free) struct score *scores = NULL;
	struct score_map maps[MAPS_MAX];
	size_t n, n_maps, i;
	int64_t id;

	if (j == NULL || j->worker != worker)
		return;
	if (d->result < 0 || d->n != k->findings->n || !all_finite(d->logit, d->n)) {
		failed(k, j, d->result == -ERANGE ? "the model gave a logit that is no number"
						  : "the model could not score the image");
		return;
	}
	scores = xcalloc(k->findings->n, sizeof(*scores));
	n = fill_scores(k, d, scores);
	log_info("object=%lld study=%lld scored findings=%zu infer_ms=%u", (long long)j->in.id,
		 (long long)j->in.study, n, d->microseconds / 1000);
	k->scored++;
	figures_scored(k, &j->in, d->logit, d->microseconds);
	n_maps = read_maps(k, j, scores, n, maps);
	if (d->kept != 0 && j->embedding != 0)
		keep_embedding(k, j);
	id = j->in.id;
	settle(k, j, OUTCOME_SCORED, "", scores, n);
	for (i = 0; i < n_maps; i++)
		keeper_must(k, store_add_map(k->store, id, &maps[i]), "keep an attention map");
}

void analysis_worker_lost(struct keeper *k, size_t worker)
{
	size_t i;

	for (i = 0; i < KEEPER_JOBS_MAX; i++) {
		if (k->job[i].stage == JOB_SCORE && k->job[i].worker == worker)
			failed(k, &k->job[i], "the inference process died or was killed at its deadline");
	}
}

void analysis_image_lost(struct keeper *k)
{
	size_t i;

	for (i = 0; i < KEEPER_JOBS_MAX; i++) {
		if (k->job[i].stage == JOB_DECODE)
			give_back(k, &k->job[i], "the image process died"); /* it never touches an image itself */
	}
}

void analysis_deadlines(struct keeper *k)
{
	size_t i;

	for (i = 0; i < KEEPER_JOBS_MAX; i++) {
		struct job *j = &k->job[i];

		if (j->stage == JOB_SCORE && k->boot >= j->deadline) {
			log_error("inference overdue (limits.infer_seconds): process killed");
			(void)kill(k->infer[j->worker].pid, SIGKILL); /* its end brings analysis_worker_lost */
			j->deadline = INT64_MAX;
		} else if (j->stage == JOB_DECODE && k->boot >= j->deadline) {
			log_error("the image process does not answer: killed");
			(void)kill(k->image.pid, SIGKILL);
			j->deadline = INT64_MAX;
		}
	}
}

void analysis_forget(struct keeper *k)
{
	size_t i;

	for (i = 0; i < KEEPER_JOBS_MAX; i++) {
		if (k->job[i].stage != JOB_FREE)
			job_end(k, &k->job[i]);
	}
}

void analysis_stop(struct keeper *k, const char *why)
{
	size_t i;

	for (i = 0; i < KEEPER_JOBS_MAX; i++) {
		struct job *j = &k->job[i];

		if (j->stage == JOB_FREE)
			continue;
		keeper_must(k, store_retry_instance(k->store, &j->in, k->now, why, true),
			    "give an object back");
		job_end(k, j);
	}
}
