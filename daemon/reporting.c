/* reporting.c: studies, from "everything is settled" to report files and deliveries.
 *
 * A report is a function of its inputs.  The key is a digest over study, every covered object (SOP
 * Instance UID and data set digest), weights, findings list, recipe, precision, gate and version;
 * UIDs are name-based on it, and the time is stored beside the key before the first attempt.  So a
 * repeat after a crash writes the same bytes, and inputs that were reported already are never
 * reported twice.
 *
 * One file is composed for each SR class that some destination wants; the sender picks the first
 * that the peer accepts.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/fdio.h"
#include "base/log.h"
#include "base/mem.h"

#include "model/model.h"

#include "daemon/keeper.h"
#include "daemon/sandbox.h"

#define TEMPLATE_VERSION "carzerod-1" /* change when the report's content changes for equal inputs */
#define RETRY_BASE_MS 2000
#define RETRY_CAP_MS 300000
#define GRACE_MS 5000
#define STUDY_INSTANCES_MAX 1024
#define CLAIMS_MAX 10 /* a study that survives so many deaths of the node is taken for their cause */

/* ---- which instances a report covers ---------------------------------------------------------------- */

static bool settled(const struct instance *in)
{
	return in->state == INSTANCE_SETTLED || in->state == INSTANCE_QUARANTINED;
}

static bool to_be_reported(const struct instance *in)
{
	return settled(in) && in->outcome != OUTCOME_SILENT && in->outcome != OUTCOME_NONE;
}

/* The settled revision of this SOP Instance UID next below `below`, or NULL. */
static const struct instance *revision_below(const struct instance *all, size_t n, const char *sop_uid,
					     unsigned below)
{
	const struct instance *best = NULL;
	size_t i;

	for (i = 0; i < n; i++) {
		if (to_be_reported(&all[i]) && strcmp(all[i].sop_uid, sop_uid) == 0 && all[i].revision < below &&
		    (best == NULL || all[i].revision > best->revision))
			best = &all[i];
	}
	return best;
}

/* Of several revisions of one SOP Instance UID the latest counts; but when it decoded to the same
 * content as the one just before, that one stands for it, so that a mere re-encoding changes no report. */
static const struct instance *revision_that_counts(const struct instance *all, size_t n, const char *sop_uid)
{
	static const uint8_t nothing[DIGEST_SIZE];
	const struct instance *pick = revision_below(all, n, sop_uid, UINT_MAX), *before;

	while (pick != NULL && memcmp(pick->content, nothing, DIGEST_SIZE) != 0) {
		before = revision_below(all, n, sop_uid, pick->revision);
		if (before == NULL || memcmp(before->content, pick->content, DIGEST_SIZE) != 0)
			break;
		pick = before;
	}
	return pick;
}

static void choose_instances(struct composition *c, const struct instance *all, size_t n)
{
	size_t i;

	c->instance = xcalloc(n, sizeof(*c->instance));
	for (i = 0; i < n; i++) {
		if (!to_be_reported(&all[i]) || revision_that_counts(all, n, all[i].sop_uid) != &all[i])
			continue;
		if (all[i].kept)
			c->instance[c->n_instances++] = all[i];
		else
			c->expired++;
	}
}

/* PS3.3 has one patient in a study; two mean a mix-up that no report may hide. */
static bool two_patients(const struct instance *all, size_t n)
{
	static const uint8_t nothing[DIGEST_SIZE];
	const struct instance *first = NULL;
	size_t i;

	for (i = 0; i < n; i++) {
		if (memcmp(all[i].patient, nothing, DIGEST_SIZE) == 0)
			continue; /* never parsed */
		if (first == NULL)
			first = &all[i];
		else if (memcmp(first->patient, all[i].patient, DIGEST_SIZE) != 0)
			return true;
	}
	return false;
}

/* By the same findings list, weights, recipe and precision as a score of today. */
static bool scored_as_now(const struct keeper *k, const struct instance *in)
{
	return memcmp(in->findings, k->findings->digest, DIGEST_SIZE) == 0 &&
	       memcmp(in->weights, k->model.weights, DIGEST_SIZE) == 0 &&
	       strcmp(in->recipe, recipe_name(k->config->recipe)) == 0 &&
	       strcmp(in->precision, precision_name(k->config->precision)) == 0;
}

/* All scored images of one report speak of one findings list: the latest one.  True when images had to go back. */
static bool rescore_older(struct keeper *k, struct composition *c)
{
	bool any = false;
	size_t i;

	memcpy(c->findings, k->findings->digest, DIGEST_SIZE);
	for (i = 0; i < c->n_instances; i++) {
		const struct instance *in = &c->instance[i];

		if (in->outcome != OUTCOME_SCORED || scored_as_now(k, in))
			continue;
		keeper_must(k, store_requeue_instance(k->store, in->id, k->now), "score an object again");
		any = true;
	}
	return any;
}

/* ---- names ------------------------------------------------------------------------------------------- */

static int by_sop_uid(const void *a, const void *b)
{
	const struct instance *x = a, *y = b;

	return strcmp(x->sop_uid, y->sop_uid);
}

static void update_text(struct digest *d, const char *text)
{
	digest_update(d, text, strlen(text) + 1); /* the NUL keeps neighbours apart */
}

static void report_key(const struct keeper *k, const struct composition *c, uint8_t ret[DIGEST_SIZE])
{
	CLEANUP(digest_free) struct digest *d = digest_new();
	size_t i;

	update_text(d, TEMPLATE_VERSION);
	update_text(d, PACKAGE_VERSION);
	update_text(d, c->study.study_uid);
	for (i = 0; i < c->n_instances; i++) {
		const struct instance *in = &c->instance[i];
		unsigned char outcome = (unsigned char)in->outcome;

		update_text(d, in->sop_uid);
		digest_update(d, in->digest, DIGEST_SIZE);
		digest_update(d, &outcome, 1);
	}
	digest_update(d, k->model.weights, DIGEST_SIZE);
	digest_update(d, c->findings, DIGEST_SIZE);
	update_text(d, recipe_name(k->config->recipe));
	update_text(d, precision_name(k->config->precision));
	update_text(d, k->config->gate == GATE_OFF ? "gate=off" : "gate=tags");
	if (k->config->report_regions != REGIONS_NONE)
		update_text(d, "regions=image");
	if (k->model.domain != MODEL_CLINICAL) /* `carzero-model verify` may lift the stamp off the same weights */
		update_text(d, MODEL_STAMP);
	digest_final(d, ret);
}

static void name_uid(const struct keeper *k, const char *kind, const char *class_uid,
		     const uint8_t key[DIGEST_SIZE], char ret[UID_MAX])
{
	char hex[DIGEST_HEX_MAX], name[256];

	str_hex(hex, key, DIGEST_SIZE);
	(void)snprintf(name, sizeof(name), "%s|%s|%s|%s", TEMPLATE_VERSION, kind, class_uid, hex);
	uid_from_name(k->site, name, ret);
}

/* Changes with the model, the findings list and everything else that makes another observer. */
static void device_uid(const struct keeper *k, const uint8_t findings[DIGEST_SIZE], char ret[UID_MAX])
{
	char weights_hex[DIGEST_HEX_MAX], findings_hex[DIGEST_HEX_MAX], name[512];

	str_hex(weights_hex, k->model.weights, DIGEST_SIZE);
	str_hex(findings_hex, findings, DIGEST_SIZE);
	(void)snprintf(name, sizeof(name), "device|%s|%s|%s|%s|%s", weights_hex, findings_hex,
		       recipe_name(k->config->recipe), precision_name(k->config->precision), PACKAGE_VERSION);
	uid_from_name(k->site, name, ret);
}

/* ---- destinations and classes ------------------------------------------------------------------------- */

static void add_destination(struct composition *c, const struct peer *peer, bool wanted[SR_CLASS_COUNT])
{
	size_t i;

	for (i = 0; i < peer->n_sr_classes; i++)
		wanted[peer->sr_classes[i]] = true;
	for (i = 0; i < c->n_destinations; i++) {
		if (strcmp(c->destination[i], peer->ae_title) == 0)
			return;
	}
	(void)str_copy(c->destination[c->n_destinations++], AE_TITLE_MAX, peer->ae_title);
}

static bool source_seen(const struct composition *c, size_t i)
{
	size_t j;

	for (j = 0; j < i; j++) {
		if (strcmp(c->instance[j].calling_ae, c->instance[i].calling_ae) == 0)
			return true;
	}
	return false;
}

/* Where the study goes, from every AE title that sent a part of it. */
static void find_destinations(struct keeper *k, struct composition *c, bool wanted[SR_CLASS_COUNT])
{
	const struct peer *peer[CONFIG_PEERS_MAX];
	unsigned unresolved;
	size_t i, j, n;

	for (i = 0; i < c->n_instances; i++) {
		if (source_seen(c, i))
			continue;
		unresolved = 0;
		n = config_route(k->config, c->instance[i].calling_ae, peer, ARRAY_SIZE(peer), &unresolved);
		for (j = 0; j < n; j++)
			add_destination(c, peer[j], wanted);
		if (unresolved > 0) {
			char quoted[5 * AE_TITLE_MAX];

			str_quote(quoted, sizeof(quoted), c->instance[i].calling_ae);
			log_warning("study=%lld: a route says \"sender\" but \"%s\" is not among peers; nothing is sent back to it",
				    (long long)c->study.id, quoted);
			(void)snprintf(c->why, sizeof(c->why),
				       "route to sender: \"%.60s\" is not among peers", quoted);
		}
	}
	if (c->n_destinations == 0) {
		wanted[SR_COMPREHENSIVE] = true; /* kept for the operator */
		if (c->why[0] == '\0')
			(void)snprintf(c->why, sizeof(c->why), "no route matches the calling AE titles: not sent");
	}
}

/* The report of the same class that this one replaces. */
static void find_predecessor(const struct report *old, size_t n, const char *sop_class,
			     char ret_sop[UID_MAX], char ret_series[UID_MAX])
{
	unsigned best = 0;
	size_t i;

	for (i = 0; i < n; i++) {
		if (strcmp(old[i].kind, "SR") != 0 || strcmp(old[i].sop_class, sop_class) != 0 ||
		    old[i].revision < best)
			continue;
		best = old[i].revision;
		(void)str_copy(ret_sop, UID_MAX, old[i].sop_uid);
		(void)str_copy(ret_series, UID_MAX, old[i].series_uid);
	}
}

/* ---- composing ------------------------------------------------------------------------------------------ */

static void composition_end(struct composition *c)
{
	free(c->instance);
	memset(c, 0, sizeof(*c));
}

/* Files that were made and will not be used: nobody names them yet. */
static void drop_files(struct keeper *k, struct composition *c)
{
	size_t i;

	for (i = 0; i < c->n_reports; i++) {
		if (c->report[i].file != 0)
			(void)spool_remove(k->spool, SPOOL_INCOMING, c->report[i].file);
	}
}

/* Ends a claim by the result of the store's call.  An object that arrived meanwhile has re-opened the study and voided our
 * claim (-ESTALE): then what we made is dropped, and the study comes again when it has settled. */
static bool still_ours(struct keeper *k, int r, const char *what)
{
	if (r == -ESTALE)
		return false;
	keeper_must(k, r, what);
	return true;
}

static void retry(struct keeper *k, struct composition *c, const char *why, bool uncount)
{
	int64_t due = k->now + keeper_backoff_ms(RETRY_BASE_MS, RETRY_CAP_MS, c->study.attempt - 1);

	drop_files(k, c);
	keeper_event(k, c->study.id, EVENT_REPORT, "report, attempt %u failed: %s", c->study.attempt, why);
	if (!uncount && c->study.attempt >= k->config->limits.attempts) {
		if (still_ours(k, store_close_study(k->store, &c->study, STUDY_PARKED, why), "park a study"))
			log_error("study=%lld parked: its report could not be made in %u attempts: %s; see carzeroctl show",
				  (long long)c->study.id, c->study.attempt, why);
	} else if (still_ours(k, store_retry_study(k->store, &c->study, due, why, uncount), "retry a study"))
		log_warning("study=%lld report attempt %u failed: %s; tried again", (long long)c->study.id,
			    c->study.attempt, why);
	composition_end(c);
}

/* What a full disk or table of descriptors causes is not the study's fault. */
static bool passing(int r)
{
	return r == -ENOSPC || r == -EMFILE || r == -ENFILE || r == -ENOMEM;
}

static void close_study(struct keeper *k, struct composition *c, enum study_state state, const char *why)
{
	(void)still_ours(k, store_close_study(k->store, &c->study, state, why), "close a study");
	composition_end(c);
}

static int fill_image(struct keeper *k, const struct instance *in, struct ipc_report_image *ret)
{
	struct score scores[STORE_SCORES_MAX];
	size_t n = 0, i, f;
	int r;

	ret->instance = (uint64_t)in->id;
	memcpy(ret->digest, in->digest, DIGEST_SIZE);
	ret->analysed = in->outcome == OUTCOME_SCORED;
	(void)str_copy(ret->why, sizeof(ret->why), in->why);
	if (!ret->analysed)
		return 0;
	r = store_instance_scores(k->store, in->id, scores, ARRAY_SIZE(scores), &n);
	if (r < 0)
		return r;
	for (f = 0; f < k->findings->n; f++) { /* in the order of the list */
		for (i = 0; i < n && strcmp(scores[i].finding, k->findings->finding[f].id) != 0; i++)
			continue;
		if (i == n)
			return -EBADMSG;
		ret->score[f].logit = scores[i].logit;
		ret->score[f].probability = scores[i].probability;
		ret->score[f].decision = scores[i].decision;
	}
	ret->n_scores = (uint32_t)k->findings->n;
	return 0;
}

static int write_job(struct keeper *k, struct composition *c, struct report *report, int fd)
{
	CLEANUP(free) struct ipc_report_image *image = xcalloc(1, sizeof(*image));
	struct ipc_report job = { .n_images = (uint32_t)c->n_instances,
				  .demonstration = k->model.domain != MODEL_CLINICAL };
	struct report old[STORE_CLASSES_MAX * 64];
	size_t n_old = 0, i;
	int r;

	(void)str_copy(job.sop_class, UID_MAX, report->sop_class);
	(void)str_copy(job.sop_uid, UID_MAX, report->sop_uid);
	(void)str_copy(job.series_uid, UID_MAX, report->series_uid);
	r = store_study_reports(k->store, c->study.id, old, ARRAY_SIZE(old), &n_old);
	if (r < 0 && r != -E2BIG)
		return r;
	if (n_old > ARRAY_SIZE(old))
		n_old = ARRAY_SIZE(old);
	if (c->expired == 0) /* else it says less than the one before, and must not seem to replace it */
		find_predecessor(old, n_old, report->sop_class, job.predecessor_sop_uid, job.predecessor_series_uid);
	(void)str_copy(report->predecessor, UID_MAX, job.predecessor_sop_uid);
	clock_dicom_local(c->at, job.date, job.time, job.timezone);
	device_uid(k, c->findings, job.device_uid);
	(void)str_copy(job.serial, sizeof(job.serial), k->site_text);
	(void)str_copy(job.model_name, sizeof(job.model_name), k->model.name);
	str_hex(job.weights, k->model.weights, DIGEST_SIZE);
	(void)str_copy(job.recipe, sizeof(job.recipe), recipe_name(k->config->recipe));
	(void)str_copy(job.precision, sizeof(job.precision), precision_name(k->config->precision));
	memcpy(job.uid_namespace, k->site, sizeof(job.uid_namespace));
	memcpy(job.findings, c->findings, DIGEST_SIZE);
	r = write_full(fd, &job, sizeof(job));
	for (i = 0; r == 0 && i < c->n_instances; i++) {
		memset(image, 0, sizeof(*image));
		r = fill_image(k, &c->instance[i], image);
		if (r == 0)
			r = write_full(fd, image, sizeof(*image));
	}
	return r;
}

static int write_findings(struct keeper *k, const struct composition *c, int fd)
{
	CLEANUP(free) void *text = NULL;
	size_t n = 0;
	int r = store_get_findings(k->store, c->findings, &text, &n);

	return r < 0 ? r : write_full(fd, text, n);
}

static void close_all(const int *fds, size_t n)
{
	while (n > 0)
		(void)close(fds[--n]);
}

/* Descriptors of one COMPOSE: output, job, findings, objects.  Returns how many, or an error. */
static int gather(struct keeper *k, struct composition *c, struct report *report, int fds[IPC_FDS_MAX])
{
	size_t n = 0, i;
	int fd, r;

	fd = spool_create(k->spool, &report->file);
	if (fd < 0)
		return fd;
	fds[n++] = fd;
	fd = fd_memory("carzerod-report");
	if (fd >= 0) {
		fds[n++] = fd;
		fd = fd_memory("carzerod-findings");
	}
	if (fd < 0) {
		close_all(fds, n);
		return fd;
	}
	fds[n++] = fd;
	r = write_job(k, c, report, fds[1]);
	if (r == 0)
		r = write_findings(k, c, fds[2]);
	for (i = 0; r == 0 && i < c->n_instances; i++) {
		fd = spool_read(k->spool, SPOOL_OBJECTS, c->instance[i].file);
		if (fd < 0)
			r = fd;
		else
			fds[n++] = fd;
	}
	if (r < 0) {
		close_all(fds, n);
		return r;
	}
	return (int)n;
}

static void compose_next(struct keeper *k, struct composition *c)
{
	int fds[IPC_FDS_MAX];
	union ipc_message m;
	int n = gather(k, c, &c->report[c->ready], fds);

	if (n < 0) {
		retry(k, c, strerror(-n), passing(n));
		return;
	}
	c->ticket = ++k->ticket;
	c->since = figures_now();
	c->deadline = k->boot + (int64_t)k->config->limits.image_seconds * 1000 + GRACE_MS;
	ipc_begin(&m, IPC_COMPOSE, c->ticket);
	m.compose.n_images = (uint32_t)c->n_instances;
	keeper_post(k, &k->image, k->image.sock, &m, fds, (size_t)n);
}

static void plan_classes(struct keeper *k, struct composition *c, const bool wanted[SR_CLASS_COUNT],
			 const uint8_t key[DIGEST_SIZE])
{
	size_t i;

	for (i = 0; i < SR_CLASS_COUNT; i++) {
		struct report *r = &c->report[c->n_reports];

		if (!wanted[i])
			continue;
		r->study = c->study.id;
		r->revision = c->study.revision + 1;
		(void)str_copy(r->kind, sizeof(r->kind), "SR");
		(void)str_copy(r->sop_class, UID_MAX, sr_class_uid((enum sr_class)i));
		name_uid(k, "SR", r->sop_class, key, r->sop_uid);
		name_uid(k, "SR series", r->sop_class, key, r->series_uid);
		memcpy(r->findings, c->findings, DIGEST_SIZE);
		memcpy(r->weights, k->model.weights, DIGEST_SIZE);
		c->n_reports++;
	}
}

/* Whether these inputs were reported before (a duplicate study, a settled re-encoding), and as which revision. */
static bool reported_before(struct keeper *k, const struct composition *c, unsigned *ret_revision)
{
	struct report old[STORE_CLASSES_MAX * 64];
	size_t n = 0, i, j;
	int r = store_study_reports(k->store, c->study.id, old, ARRAY_SIZE(old), &n);

	if (r != -E2BIG)
		keeper_must(k, r, "list reports");
	if (n > ARRAY_SIZE(old))
		n = ARRAY_SIZE(old);
	for (i = 0; i < n; i++) {
		for (j = 0; j < c->n_reports; j++) {
			if (strcmp(old[i].sop_uid, c->report[j].sop_uid) != 0)
				continue;
			*ret_revision = old[i].revision;
			return true;
		}
	}
	return false;
}

/* Nothing new to say; but a destination that the routes name by now gets what was said. */
static void report_known(struct keeper *k, struct composition *c, unsigned revision)
{
	size_t i;

	if (!still_ours(k, store_finish_study(k->store, &c->study, c->study.revision, ""), "finish a study")) {
		composition_end(c);
		return;
	}
	for (i = 0; i < c->n_destinations; i++)
		keeper_must(k, store_add_delivery(k->store, c->study.id, revision, "SR", c->destination[i], k->now),
			    "queue a delivery");
	log_debug("study=%lld: nothing new to report", (long long)c->study.id);
	composition_end(c);
}

static void begin_report(struct keeper *k, struct composition *c)
{
	bool wanted[SR_CLASS_COUNT] = { false };
	uint8_t key[DIGEST_SIZE];
	unsigned known;

	qsort(c->instance, c->n_instances, sizeof(*c->instance), by_sop_uid);
	report_key(k, c, key);
	find_destinations(k, c, wanted);
	plan_classes(k, c, wanted, key);
	if (reported_before(k, c, &known)) {
		report_known(k, c, known);
		return;
	}
	c->at = k->now;
	keeper_must(k, store_plan_study(k->store, &c->study, key, &c->at), "plan a report");
	failpoint("reporting.planned");
	compose_next(k, c);
}

static void begin_study(struct keeper *k, struct composition *c)
{
	CLEANUP(free) struct instance *all = xcalloc(STUDY_INSTANCES_MAX, sizeof(*all));
	size_t n = 0;
	int r = store_study_instances(k->store, c->study.id, all, STUDY_INSTANCES_MAX, &n);

	c->used = true;
	if (r == -E2BIG) {
		close_study(k, c, STUDY_PARKED, "more objects in the study than can be reported");
		return;
	}
	keeper_must(k, r, "list a study");
	if (c->study.attempt > CLAIMS_MAX) {
		log_error("study=%lld parked: the node died repeatedly while it was being reported", (long long)c->study.id);
		close_study(k, c, STUDY_PARKED, "the node died repeatedly while this study was being reported");
		return;
	}
	choose_instances(c, all, n);
	if (two_patients(c->instance, c->n_instances)) {
		log_error("study=%lld parked: its images carry different Patient IDs; not reported, see carzeroctl show",
			  (long long)c->study.id);
		close_study(k, c, STUDY_PARKED, "images of this study carry different Patient IDs");
		return;
	}
	if (c->expired > 0)
		(void)snprintf(c->why, sizeof(c->why), "%zu earlier images have expired: the last report does not cover them", c->expired);
	if (c->n_instances == 0 && c->study.revision > 0) {
		close_study(k, c, STUDY_REPORTED, "");
		return;
	}
	if (c->n_instances == 0) {
		close_study(k, c, STUDY_SILENT, "nothing in this study is to be reported");
		return;
	}
	if (c->n_instances > IPC_IMAGES_MAX) {
		log_error("study=%lld parked: %zu images, a report covers at most %d", (long long)c->study.id,
			  c->n_instances, IPC_IMAGES_MAX);
		close_study(k, c, STUDY_PARKED, "more images than one report covers (64)");
		return;
	}
	if (rescore_older(k, c)) {
		composition_end(c); /* the requeue has re-opened the study: our claim is gone already */
		return;
	}
	begin_report(k, c);
}

bool reporting_held(const struct keeper *k)
{
	return k->now < CLOCK_EARLIEST_MS;
}

void reporting_dispatch(struct keeper *k)
{
	size_t i;
	int r;

	if (k->stopping || !k->model.known || !k->image.ready)
		return;
	if (reporting_held(k)) {
		if (!k->held)
			log_error("the clock stands before 2026: images are taken and analysed, reports wait until it is set");
		k->held = true;
		return;
	}
	k->held = false;
	for (i = 0; i < KEEPER_COMPOSE_MAX; i++) {
		struct composition *c = &k->composition[i];
		int64_t lease = k->now + (int64_t)k->config->limits.image_seconds * 1000 * SR_CLASS_COUNT;

		if (c->used)
			continue;
		r = store_next_study(k->store, k->now, lease, &c->study);
		if (r == -ENOENT)
			return;
		keeper_must(k, r, "claim a study");
		failpoint("reporting.claimed");
		begin_study(k, c);
	}
}

static struct composition *composition_find(struct keeper *k, uint64_t ticket)
{
	size_t i;

	for (i = 0; i < KEEPER_COMPOSE_MAX; i++) {
		if (k->composition[i].used && k->composition[i].ticket == ticket)
			return &k->composition[i];
	}
	return NULL;
}

/* Digest of a finished file, from what the disk gives back; -EBADMSG when it is not as long as was said. */
static int digest_report(struct keeper *k, struct report *r)
{
	CLEANUP(close) int fd = spool_read(k->spool, SPOOL_INCOMING, r->file);
	struct stat st;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		return -errno;
	if ((uint64_t)st.st_size != r->size)
		return -EBADMSG;
	return digest_fd(fd, 0, r->digest);
}

static void record_report(struct keeper *k, const struct composition *c, unsigned revision)
{
	char to[STORE_EVENT_MAX] = "";
	size_t i, n = 0;

	for (i = 0; i < c->n_destinations && n < sizeof(to); i++)
		n += (size_t)snprintf(to + n, sizeof(to) - n, "%s%s", i > 0 ? ", " : "", c->destination[i]);
	keeper_event(k, c->study.id, EVENT_REPORT, "report %u composed over %zu images, for %s", revision, c->n_instances,
		     n > 0 ? to : "nobody");
}

/* All classes are written and fsynced: names, rows and deliveries in one transaction. */
static void finish(struct keeper *k, struct composition *c)
{
	unsigned revision = c->study.revision + 1;
	size_t i;
	int r0;

	for (i = 0; i < c->n_reports; i++) {
		r0 = digest_report(k, &c->report[i]);
		if (r0 < 0) {
			retry(k, c, "a composed file cannot be read back as it was written", passing(r0));
			return;
		}
	}
	/* the claim first: when it is lost, nothing of this may become visible */
	if (!still_ours(k, store_finish_study(k->store, &c->study, revision, c->why), "finish a study")) {
		drop_files(k, c);
		composition_end(c);
		return;
	}
	for (i = 0; i < c->n_reports; i++) {
		struct report *r = &c->report[i];

		keeper_must(k, spool_move(k->spool, r->file, SPOOL_INCOMING, SPOOL_REPORTS), "name a report");
		failpoint("reporting.renamed");
		r->created = k->now;
		keeper_must(k, store_add_report(k->store, r), "record a report");
		failpoint("reporting.recorded");
	}
	for (i = 0; i < c->n_destinations; i++)
		keeper_must(k, store_add_delivery(k->store, c->study.id, revision, "SR", c->destination[i], k->now),
			    "queue a delivery");
	record_report(k, c, revision);
	log_info("study=%lld reported revision=%u images=%zu destinations=%zu", (long long)c->study.id, revision,
		 c->n_instances, c->n_destinations);
	k->reported++;
	composition_end(c);
}

void reporting_composed(struct keeper *k, const struct ipc_composed *d)
{
	struct composition *c = composition_find(k, d->h.token);

	if (c == NULL)
		return;
	if (d->result < 0) {
		retry(k, c, d->why[0] != '\0' ? d->why : strerror(-d->result), passing(d->result));
		return;
	}
	figures_took(k, TELEMETRY_COMPOSE, c->since);
	c->report[c->ready++].size = d->size;
	if (c->ready < c->n_reports)
		compose_next(k, c);
	else
		finish(k, c);
}

bool reporting_died(struct keeper *k, const struct ipc_died *d)
{
	struct composition *c = composition_find(k, d->h.token);
	char why[STORE_WHY_MAX];

	if (c == NULL)
		return false;
	if (d->timed_out)
		(void)snprintf(why, sizeof(why), "composing took longer than limits.image_seconds");
	else if (d->signal != 0)
		(void)snprintf(why, sizeof(why), "the composer died of signal %d (%s)", d->signal, strsignal(d->signal));
	else
		(void)snprintf(why, sizeof(why), "the composer ended with code %d%s", d->exit_code,
			       sandbox_code_text(d->exit_code));
	retry(k, c, why, false);
	return true;
}

void reporting_image_lost(struct keeper *k)
{
	size_t i;

	for (i = 0; i < KEEPER_COMPOSE_MAX; i++) {
		if (k->composition[i].used)
			retry(k, &k->composition[i], "the image process died", true);
	}
}

void reporting_deadlines(struct keeper *k)
{
	size_t i;

	for (i = 0; i < KEEPER_COMPOSE_MAX; i++) {
		struct composition *c = &k->composition[i];

		if (!c->used || k->boot < c->deadline)
			continue;
		log_error("the image process does not answer: killed");
		(void)kill(k->image.pid, SIGKILL);
		c->deadline = INT64_MAX;
	}
}

void reporting_forget(struct keeper *k)
{
	size_t i;

	for (i = 0; i < KEEPER_COMPOSE_MAX; i++) {
		if (!k->composition[i].used)
			continue;
		drop_files(k, &k->composition[i]);
		composition_end(&k->composition[i]);
	}
}

void reporting_stop(struct keeper *k, const char *why)
{
	size_t i;

	for (i = 0; i < KEEPER_COMPOSE_MAX; i++) {
		struct composition *c = &k->composition[i];

		if (!c->used)
			continue;
		drop_files(k, c);
		(void)still_ours(k, store_retry_study(k->store, &c->study, k->now, why, true),
				 "give a study back");
		composition_end(c);
	}
}
