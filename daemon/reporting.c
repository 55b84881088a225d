/* reporting.c: studies, from "everything is settled" to report files and deliveries.
 *
 * A report is a function of its inputs.  The key is a digest over study, every covered object (SOP
 * Instance UID and data set digest), weights, findings list, recipe, precision, gate and version;
 * UIDs are name-based on it, and the time is stored beside the key before the first attempt.  So a
 * repeat after a crash writes the same bytes, and inputs that were reported already are never
 * reported twice.
 *
 * One file is composed for each object that some destination wants: for a report each SR class, of which
 * the sender picks the first that the peer accepts; a Secondary Capture and a presentation state for each
 * analysed image; one PDF.  Nobody's report waits for a picture that cannot be made: on the last attempt
 * an object that fails is left out.
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
#include "daemon/maps.h"
#include "daemon/sandbox.h"

#define TEMPLATE_VERSION "carzerod-1" /* change when the report's content changes for equal inputs */
#define RETRY_BASE_MS 2000
#define RETRY_CAP_MS 300000
#define GRACE_MS 5000
#define STUDY_INSTANCES_MAX 1024
#define OLD_REPORTS_MAX 512 /* of one study that are looked through */
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

static void add_destination(struct composition *c, const struct peer *peer)
{
	size_t i;

	for (i = 0; i < c->n_destinations; i++) {
		if (c->destination[i] == peer)
			return;
	}
	c->destination[c->n_destinations++] = peer;
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
static void find_destinations(struct keeper *k, struct composition *c)
{
	const struct peer *peer[CONFIG_PEERS_MAX];
	unsigned unresolved;
	size_t i, j, n;
	enum fetched fetched;

	for (i = 0; i < c->n_instances; i++) {
		if (source_seen(c, i))
			continue;
		keeper_must(k, store_is_fetched(k->store, c->study.study_uid, c->instance[i].calling_ae, &fetched),
			    "ask whether a study was fetched");
		if (fetched == FETCHED_KEEP) {
			(void)snprintf(c->why, sizeof(c->why), "fetched: its reports are kept and not sent");
			continue;
		}
		unresolved = 0;
		n = config_route(k->config, c->instance[i].calling_ae, peer, ARRAY_SIZE(peer), &unresolved);
		for (j = 0; j < n; j++) {
			if (peer[j]->shadow)
				(void)snprintf(c->why, sizeof(c->why), "shadow: scored and kept, not sent to %s", peer[j]->ae_title);
			else
				add_destination(c, peer[j]);
		}
		if (unresolved > 0) {
			char quoted[5 * AE_TITLE_MAX];

			str_quote(quoted, sizeof(quoted), c->instance[i].calling_ae);
			log_warning("study=%lld: a route says \"sender\" but \"%s\" is not among peers; nothing is sent back to it",
				    (long long)c->study.id, quoted);
			(void)snprintf(c->why, sizeof(c->why),
				       "route to sender: \"%.60s\" is not among peers", quoted);
		}
	}
	if (c->n_destinations == 0 && c->why[0] == '\0')
		(void)snprintf(c->why, sizeof(c->why), "no route matches the calling AE titles: not sent");
}

/* The object of the same kind and class that this one replaces. */
static void find_predecessor(const struct report *old, size_t n, struct composed_object *o)
{
	unsigned best = 0;
	size_t i;

	for (i = 0; i < n; i++) {
		if (strcmp(old[i].kind, o->report.kind) != 0 || strcmp(old[i].sop_class, o->report.sop_class) != 0 ||
		    old[i].revision < best)
			continue;
		best = old[i].revision;
		(void)str_copy(o->report.predecessor, UID_MAX, old[i].sop_uid);
		(void)str_copy(o->predecessor_series, UID_MAX, old[i].series_uid);
	}
}

/* ---- composing ------------------------------------------------------------------------------------------ */

static void composition_end(struct composition *c)
{
	free(c->instance);
	if (c->images >= 0)
		(void)close(c->images);
	if (c->findings_text >= 0)
		(void)close(c->findings_text);
	memset(c, 0, sizeof(*c));
}

/* Files that were made and will not be used: nobody names them yet. */
static void drop_files(struct keeper *k, struct composition *c)
{
	size_t i;

	for (i = 0; i < c->n_made; i++) {
		if (c->made[i].report.file != 0)
			(void)spool_remove(k->spool, SPOOL_INCOMING, c->made[i].report.file);
	}
}

/* Ends a claim by the result of the store's call.  An object that arrived meanwhile has re-opened the study and voided our
 * claim (-ESTALE): then what we made is dropped, and the study comes again when it has settled. */
static bool still_ours(struct keeper *k, int r, const char *what)
{
	if (r == -ESTALE)
		return false;
	return keeper_must(k, r, what);
}

static void retry(struct keeper *k, struct composition *c, const char *why, bool uncount)
{
	char key[64];
	int64_t due = k->now + keeper_backoff_ms(RETRY_BASE_MS, RETRY_CAP_MS, c->study.attempt - 1);

	drop_files(k, c);
	keeper_event(k, c->study.id, EVENT_REPORT, "report, attempt %u failed: %s", c->study.attempt, why);
	if (!uncount && c->study.attempt >= k->config->limits.attempts) {
		if (still_ours(k, store_close_study(k->store, &c->study, STUDY_PARKED, why), "park a study"))
			log_error("study=%lld parked: its report could not be made in %u attempts: %s; see carzeroctl show",
				  (long long)c->study.id, c->study.attempt, why);
		(void)snprintf(key, sizeof(key), "study=%lld parked", (long long)c->study.id);
		notices_raise(k, NOTIFY_SET_ASIDE, &c->study, key, "a report could not be made: %s", why);
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

/* The maps that were kept, strongest first.  Images that were scored before maps were kept have none. */
static int fill_maps(struct keeper *k, const struct instance *in, const struct score *scores, size_t n,
		     struct ipc_report_image *ret)
{
	struct score_map maps[MAPS_MAX];
	size_t side = k->model.map_side, place[MAPS_MAX], chosen = maps_choose(scores, n, place), n_maps = 0, i, m;
	int r = store_instance_maps(k->store, in->id, maps, ARRAY_SIZE(maps), &n_maps);

	if (r < 0)
		return r;
	for (i = 0; i < chosen; i++) {
		for (m = 0; m < n_maps && maps[m].place != place[i]; m++)
			continue;
		if (m == n_maps || maps[m].n != side * side)
			continue;
		ret->map[ret->n_maps].finding = (uint32_t)place[i];
		memcpy(ret->map[ret->n_maps++].shade, maps[m].shade, maps[m].n);
	}
	return 0;
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
	return fill_maps(k, in, scores, n, ret);
}

static int write_images(struct keeper *k, const struct composition *c, int fd)
{
	CLEANUP(free) struct ipc_report_image *image = xcalloc(1, sizeof(*image));
	size_t i;
	int r = 0;

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

/* What every COMPOSE of this study reads, once: memory files that nobody can change any more. */
static int write_inputs(struct keeper *k, struct composition *c)
{
	int r;

	c->images = fd_memory("carzerod-report");
	if (c->images < 0)
		return c->images;
	c->findings_text = fd_memory("carzerod-findings");
	if (c->findings_text < 0)
		return c->findings_text;
	r = write_images(k, c, c->images);
	if (r == 0)
		r = write_findings(k, c, c->findings_text);
	if (r == 0)
		r = fd_seal(c->images);
	if (r == 0)
		r = fd_seal(c->findings_text);
	return r;
}

static void fill_compose(const struct keeper *k, const struct composition *c, const struct composed_object *o,
			 struct ipc_compose *m)
{
	m->n_images = (uint32_t)c->n_instances;
	m->object = o->object;
	m->page = o->page;
	m->domain = k->model.domain;
	m->side = k->model.side;
	m->crop = k->model.crop;
	m->map_side = k->model.map_side;
	(void)str_copy(m->sop_class, UID_MAX, o->report.sop_class);
	(void)str_copy(m->sop_uid, UID_MAX, o->report.sop_uid);
	(void)str_copy(m->series_uid, UID_MAX, o->report.series_uid);
	(void)str_copy(m->predecessor_sop_uid, UID_MAX, o->report.predecessor);
	(void)str_copy(m->predecessor_series_uid, UID_MAX, o->predecessor_series);
	clock_dicom_local(c->at, m->date, m->time, m->timezone);
	device_uid(k, c->findings, m->device_uid);
	(void)str_copy(m->serial, sizeof(m->serial), k->site_text);
	(void)str_copy(m->model_name, sizeof(m->model_name), k->model.name);
	str_hex(m->weights, k->model.weights, DIGEST_SIZE);
	(void)str_copy(m->recipe, sizeof(m->recipe), recipe_name(k->config->recipe));
	(void)str_copy(m->precision, sizeof(m->precision), precision_name(k->config->precision));
	memcpy(m->uid_namespace, k->site, sizeof(m->uid_namespace));
	memcpy(m->findings, c->findings, DIGEST_SIZE);
}

static void close_all(const int *fds, size_t n)
{
	while (n > 0)
		(void)close(fds[--n]);
}

/* Descriptors of one COMPOSE: output, images, findings, objects.  Returns how many, or an error. */
static int gather(struct keeper *k, const struct composition *c, struct report *report, int fds[IPC_FDS_MAX])
{
	size_t n = 0, i;
	int r = 0;

	fds[n] = spool_create(k->spool, &report->file);
	if (fds[n] < 0)
		return fds[n];
	n++;
	fds[n++] = dup(c->images);
	fds[n++] = dup(c->findings_text);
	if (fds[1] < 0 || fds[2] < 0)
		r = -EMFILE;
	for (i = 0; r == 0 && i < c->n_instances; i++) {
		fds[n] = spool_read(k->spool, SPOOL_OBJECTS, c->instance[i].file);
		if (fds[n] < 0)
			r = fds[n];
		else
			n++;
	}
	if (r < 0) {
		close_all(fds, n);
		return r;
	}
	return (int)n;
}

static void compose_next(struct keeper *k, struct composition *c)
{
	struct composed_object *o = &c->made[c->ready];
	int fds[IPC_FDS_MAX];
	union ipc_message m;
	int n = gather(k, c, &o->report, fds);

	if (n < 0) {
		retry(k, c, strerror(-n), passing(n));
		return;
	}
	c->ticket = ++k->ticket;
	c->since = figures_now();
	c->deadline = k->boot + (int64_t)k->config->limits.image_seconds * 1000 + GRACE_MS;
	ipc_begin(&m, IPC_COMPOSE, c->ticket);
	fill_compose(k, c, o, &m.compose);
	keeper_post(k, &k->image, k->image.sock, &m, fds, (size_t)n);
}

/* ---- planning ---------------------------------------------------------------------------------------- */

/* What deliveries name a report by: pages of one object are deliveries of their own. */
static void name_kind(enum result_object object, unsigned page, char ret[4])
{
	static const char *const names[OBJECT_COUNT] = { "SR", "SC", "PR", "PDF" };

	if (page > 1)
		(void)snprintf(ret, 4, "%.2s%u", names[object], page % 10);
	else
		(void)str_copy(ret, 4, names[object]);
}

static void plan_one(const struct keeper *k, struct composition *c, const uint8_t key[DIGEST_SIZE],
		     enum result_object object, unsigned page, const char *sop_class)
{
	struct composed_object *o = &c->made[c->n_made++];
	struct report *r = &o->report;
	char series[16];

	o->object = object;
	o->page = page;
	r->study = c->study.id;
	r->revision = c->study.revision + 1;
	name_kind(object, page, r->kind);
	(void)str_copy(r->sop_class, UID_MAX, sop_class);
	name_uid(k, r->kind, sop_class, key, r->sop_uid);
	(void)snprintf(series, sizeof(series), "%.2s series", object == OBJECT_PDF ? "PD" : r->kind);
	name_uid(k, series, sop_class, key, r->series_uid);
	memcpy(r->findings, c->findings, DIGEST_SIZE);
	memcpy(r->weights, k->model.weights, DIGEST_SIZE);
}

static bool is_wanted(const struct composition *c, enum result_object object)
{
	size_t i;

	for (i = 0; i < c->n_destinations && !c->destination[i]->objects[object]; i++)
		continue;
	return c->n_destinations > 0 ? i < c->n_destinations : object == OBJECT_SR; /* one report is kept for the operator */
}

static bool is_wanted_as(const struct composition *c, enum sr_class class)
{
	size_t i, j;

	for (i = 0; i < c->n_destinations; i++)
		for (j = 0; c->destination[i]->objects[OBJECT_SR] && j < c->destination[i]->n_sr_classes; j++)
			if (c->destination[i]->sr_classes[j] == class)
				return true;
	return c->n_destinations == 0 && class == SR_COMPREHENSIVE;
}

/* Every file that some destination wants. */
static void plan_objects(const struct keeper *k, struct composition *c, const uint8_t key[DIGEST_SIZE])
{
	unsigned analysed = 0, page;
	size_t i;

	for (i = 0; i < c->n_instances; i++)
		analysed += c->instance[i].outcome == OUTCOME_SCORED;
	if (analysed > IPC_PAGES_MAX)
		analysed = IPC_PAGES_MAX;
	for (i = 0; i < SR_CLASS_COUNT; i++) {
		if (is_wanted_as(c, (enum sr_class)i))
			plan_one(k, c, key, OBJECT_SR, 1, sr_class_uid((enum sr_class)i));
	}
	/* a page that says "not analysed" too; but there is nothing to lay over such an image */
	for (page = 1; is_wanted(c, OBJECT_SC) && page <= (analysed > 0 ? analysed : 1); page++)
		plan_one(k, c, key, OBJECT_SC, page, object_class_uid(OBJECT_SC));
	for (page = 1; is_wanted(c, OBJECT_GSPS) && page <= analysed; page++)
		plan_one(k, c, key, OBJECT_GSPS, page, object_class_uid(OBJECT_GSPS));
	if (is_wanted(c, OBJECT_PDF))
		plan_one(k, c, key, OBJECT_PDF, 1, object_class_uid(OBJECT_PDF));
}

static enum result_object object_of(const char *kind)
{
	return strcmp(kind, "PDF") == 0 ? OBJECT_PDF : strncmp(kind, "PR", 2) == 0 ? OBJECT_GSPS :
	       strncmp(kind, "SC", 2) == 0 ? OBJECT_SC : OBJECT_SR;
}

/* Which urgent findings are present in an image of this report; true when any is.  Only one with a calibration and an
 * operating point of its own can be (findings.h). */
static bool urgent_findings(struct keeper *k, const struct composition *c, bool *ret)
{
	CLEANUP(free) struct score *scores = xcalloc(FINDINGS_MAX, sizeof(*scores));
	bool any = false;
	size_t i, j, f, n;

	for (i = 0; i < c->n_instances; i++) {
		n = 0;
		keeper_must(k, store_instance_scores(k->store, c->instance[i].id, scores, FINDINGS_MAX, &n), "read scores");
		for (j = 0; j < n; j++) {
			for (f = 0; f < k->findings->n; f++) {
				const struct finding *finding = &k->findings->finding[f];

				if (finding->urgency != URGENCY_URGENT || scores[j].decision != DECISION_PRESENT ||
				    strcmp(finding->id, scores[j].finding) != 0)
					continue;
				ret[f] = any = true;
			}
		}
	}
	return any;
}

/* In the slow lane what is urgent goes with what is routine today: of 10^5 old films a twentieth has an urgent finding. */
static enum store_rank rank_of(const struct study *study, bool urgent)
{
	if (study->lane == LANE_NORMAL)
		return urgent ? RANK_URGENT : RANK_ROUTINE;
	return urgent ? RANK_ROUTINE : RANK_SLOW;
}

/* To everybody who wants this kind, once. */
static void queue_deliveries(struct keeper *k, const struct composition *c, unsigned revision, const char *kind,
			     enum store_rank rank)
{
	size_t i;

	for (i = 0; i < c->n_destinations; i++) {
		if (c->destination[i]->objects[object_of(kind)])
			keeper_must(k, store_add_delivery(k->store, c->study.id, revision, kind, c->destination[i]->ae_title,
							  rank, k->now), "queue a delivery");
	}
}

/* Reports of this study that there are, in order of their making; malloc'd. */
static struct report *list_reports(struct keeper *k, const struct composition *c, size_t *ret_n)
{
	struct report *old = xcalloc(OLD_REPORTS_MAX, sizeof(*old));
	int r = store_study_reports(k->store, c->study.id, old, OLD_REPORTS_MAX, ret_n);

	if (r != -E2BIG)
		keeper_must(k, r, "list reports");
	if (*ret_n > OLD_REPORTS_MAX)
		*ret_n = OLD_REPORTS_MAX;
	return old;
}

/* Whether these inputs were reported before (a duplicate study, a settled re-encoding), and as which revision. */
static bool reported_before(const struct composition *c, const struct report *old, size_t n, unsigned *ret_revision)
{
	size_t i, j;

	for (i = 0; i < n; i++) {
		for (j = 0; j < c->n_made; j++) {
			if (strcmp(old[i].sop_uid, c->made[j].report.sop_uid) != 0)
				continue;
			*ret_revision = old[i].revision;
			return true;
		}
	}
	return false;
}

/* Nothing new to say; but a destination that the routes name by now gets what was said. */
static void report_known(struct keeper *k, struct composition *c, const struct report *old, size_t n, unsigned revision)
{
	bool urgent[FINDINGS_MAX] = { false };
	enum store_rank rank = rank_of(&c->study, urgent_findings(k, c, urgent));
	size_t i;

	if (!still_ours(k, store_finish_study(k->store, &c->study, c->study.revision, ""), "finish a study")) {
		composition_end(c);
		return;
	}
	for (i = 0; i < n; i++) {
		if (old[i].revision == revision)
			queue_deliveries(k, c, revision, old[i].kind, rank);
	}
	log_debug("study=%lld: nothing new to report", (long long)c->study.id);
	composition_end(c);
}

static void begin_report(struct keeper *k, struct composition *c)
{
	CLEANUP(free) struct report *old = NULL;
	uint8_t key[DIGEST_SIZE];
	size_t n_old = 0, i;
	unsigned known;
	int r;

	qsort(c->instance, c->n_instances, sizeof(*c->instance), by_sop_uid);
	report_key(k, c, key);
	find_destinations(k, c);
	plan_objects(k, c, key);
	old = list_reports(k, c, &n_old);
	if (reported_before(c, old, n_old, &known)) {
		report_known(k, c, old, n_old, known);
		return;
	}
	/* one that misses images says less than the one before, and must not seem to replace it */
	for (i = 0; c->expired == 0 && i < c->n_made; i++)
		find_predecessor(old, n_old, &c->made[i]);
	c->at = k->now;
	keeper_must(k, store_plan_study(k->store, &c->study, key, &c->at), "plan a report");
	failpoint("reporting.planned");
	r = write_inputs(k, c);
	if (r < 0) {
		retry(k, c, strerror(-r), passing(r));
		return;
	}
	compose_next(k, c);
}

static void begin_study(struct keeper *k, struct composition *c)
{
	CLEANUP(free) struct instance *all = xcalloc(STUDY_INSTANCES_MAX, sizeof(*all));
	size_t n = 0;
	int r = store_study_instances(k->store, c->study.id, all, STUDY_INSTANCES_MAX, &n);

	c->used = true;
	c->images = c->findings_text = -1;
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
		int64_t lease = k->now + (int64_t)k->config->limits.image_seconds * 1000 * COMPOSITION_REPORTS_MAX;

		if (c->used)
			continue;
		r = store_next_study(k->store, k->now, lease, &c->study);
		if (r == -ENOENT)
			return;
		if (!keeper_must(k, r, "claim a study"))
			return;
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

static void record_report(struct keeper *k, const struct composition *c, unsigned revision, const bool *urgent)
{
	char to[STORE_EVENT_MAX] = "", why[STORE_EVENT_MAX] = "";
	size_t i, n = 0;

	for (i = 0; i < c->n_destinations && n < sizeof(to); i++)
		n += (size_t)snprintf(to + n, sizeof(to) - n, "%s%s", i > 0 ? ", " : "", c->destination[i]->ae_title);
	for (i = 0, n = 0; i < k->findings->n && n < sizeof(why); i++) {
		if (urgent[i])
			n += (size_t)snprintf(why + n, sizeof(why) - n, "%s%s", n == 0 ? "; urgent: " : ", ",
					      k->findings->finding[i].id);
	}
	keeper_event(k, c->study.id, EVENT_REPORT, "report %u composed over %zu images, for %s%s", revision, c->n_instances,
		     to[0] != '\0' ? to : "nobody", why);
}

/* All classes are written and fsynced: names, rows and deliveries in one transaction. */
static void finish(struct keeper *k, struct composition *c)
{
	unsigned revision = c->study.revision + 1;
	bool urgent[FINDINGS_MAX] = { false }, any;
	size_t i;
	int r0;

	for (i = 0; i < c->n_made; i++) {
		r0 = digest_report(k, &c->made[i].report);
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
	for (i = 0; i < c->n_made; i++) {
		struct report *r = &c->made[i].report;

		keeper_must(k, spool_move(k->spool, r->file, SPOOL_INCOMING, SPOOL_REPORTS), "name a report");
		failpoint("reporting.renamed");
		r->created = k->now;
		keeper_must(k, store_add_report(k->store, r), "record a report");
		failpoint("reporting.recorded");
	}
	any = urgent_findings(k, c, urgent);
	for (i = 0; i < c->n_made; i++)
		queue_deliveries(k, c, revision, c->made[i].report.kind, rank_of(&c->study, any));
	facts_write(k, c->study.id, revision);
	record_report(k, c, revision, urgent);
	if (any)
		notices_urgent(k, &c->study, revision, urgent);
	log_info("study=%lld reported revision=%u images=%zu destinations=%zu", (long long)c->study.id, revision,
		 c->n_instances, c->n_destinations);
	k->reported++;
	composition_end(c);
}

/* Without the object under way: a picture that cannot be made must not hold the report up.  False when it
 * was a report itself, or when trying again may help. */
static bool leave_out(struct keeper *k, struct composition *c, const char *why)
{
	struct composed_object *o = &c->made[c->ready];

	if (o->object == OBJECT_SR || c->study.attempt < k->config->limits.attempts)
		return false;
	log_error("study=%lld: its %s was not made in %u attempts: %s; reported without it", (long long)c->study.id,
		  o->report.kind, c->study.attempt, why);
	keeper_event(k, c->study.id, EVENT_REPORT, "%s left out after %u attempts: %s", o->report.kind, c->study.attempt, why);
	if (o->report.file != 0)
		(void)spool_remove(k->spool, SPOOL_INCOMING, o->report.file);
	c->n_made--;
	memmove(o, o + 1, (c->n_made - c->ready) * sizeof(*o));
	if (c->ready < c->n_made)
		compose_next(k, c);
	else if (c->n_made > 0)
		finish(k, c);
	else
		close_study(k, c, STUDY_PARKED, why);
	return true;
}

static void failed(struct keeper *k, struct composition *c, const char *why, bool uncount)
{
	if (uncount || !leave_out(k, c, why))
		retry(k, c, why, uncount);
}

void reporting_composed(struct keeper *k, const struct ipc_composed *d)
{
	struct composition *c = composition_find(k, d->h.token);

	if (c == NULL)
		return;
	if (d->result < 0) {
		failed(k, c, d->why[0] != '\0' ? d->why : strerror(-d->result), passing(d->result));
		return;
	}
	figures_took(k, TELEMETRY_COMPOSE, c->since);
	c->made[c->ready++].report.size = d->size;
	if (c->ready < c->n_made)
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
	failed(k, c, why, false);
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
