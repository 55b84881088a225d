/* ctl_why.c: carzeroctl why: what happened to one study, in order of time, why, and what would change it.
 *
 * Two parts.  The timeline: what the rows of the study say, between the events of its history.  The
 * causes: each thing that did not end as a sender hopes, with the line of the configuration (or the
 * deed) that would make it end otherwise.  A study that never came gets the node's own history: who
 * was turned away lately, and why.
 *
 * It guesses nothing: every cause is a state of a row or a recorded event.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/clock.h"
#include "base/fdio.h"
#include "base/mem.h"
#include "base/str.h"

#include "dicom/image.h"

#include "daemon/ctl.h"
#include "daemon/findings.h"
#include "daemon/yaml.h"

#define OBJECTS_MAX 1024
#define DELIVERIES_MAX 1024
#define MOMENT_MAX 700
#define NODE_EVENTS_SHOWN 10
#define YAML_EVENTS_MAX 10000

struct moment { /* one line of the timeline */
	int64_t at;
	size_t order; /* among those of one ms: as added */
	char text[MOMENT_MAX];
};

struct cause {
	char what[MOMENT_MAX], fix[MOMENT_MAX];
};

struct story {
	const struct config *config;
	const char *path;          /* of the configuration */
	struct yaml *yaml;         /* its tree, for line numbers; NULL: none */
	struct store *store;
	struct study study;
	struct moment *moments;
	size_t n_moments, room_moments;
	struct cause *causes;
	size_t n_causes, room_causes;
};

/* ---- adding ------------------------------------------------------------------------------------------ */

static void add_moment(struct story *y, int64_t at, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void add_moment(struct story *y, int64_t at, const char *format, ...)
{
	struct moment *m;
	va_list ap;

	if (y->n_moments == y->room_moments) {
		y->room_moments = y->room_moments != 0 ? 2 * y->room_moments : 64;
		y->moments = xreallocarray(y->moments, y->room_moments, sizeof(*y->moments));
	}
	m = &y->moments[y->n_moments];
	m->at = at;
	m->order = y->n_moments++;
	va_start(ap, format);
	(void)vsnprintf(m->text, sizeof(m->text), format, ap); /* cut is fine: everything in it is bounded */
	va_end(ap);
}

/* The fix is given afterwards by fix(). */
static void add_cause(struct story *y, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add_cause(struct story *y, const char *format, ...)
{
	struct cause *c;
	va_list ap;

	if (y->n_causes == y->room_causes) {
		y->room_causes = y->room_causes != 0 ? 2 * y->room_causes : 16;
		y->causes = xreallocarray(y->causes, y->room_causes, sizeof(*y->causes));
	}
	c = &y->causes[y->n_causes++];
	c->fix[0] = '\0';
	va_start(ap, format);
	(void)vsnprintf(c->what, sizeof(c->what), format, ap);
	va_end(ap);
}

static void fix(struct story *y, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void fix(struct story *y, const char *format, ...)
{
	struct cause *c = &y->causes[y->n_causes - 1];
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(c->fix, sizeof(c->fix), format, ap);
	va_end(ap);
}

/* ---- lines of the configuration ------------------------------------------------------------------------- */

/* The tree outlives this function, and so must what it points to. */
static void open_lines(struct story *y)
{
	static struct err e;
	CLEANUP(free) void *text = NULL;
	size_t n;

	if (read_path(y->path, CONFIG_BYTES_MAX, &text, &n, &e) == 0)
		(void)yaml_open(y->path, text, n, CONFIG_BYTES_MAX, YAML_EVENTS_MAX, &e, &y->yaml); /* none: no numbers */
}

/* "FILE:LINE" of a top-level key; of the entry of its list whose `name` is `value` when given; of the file alone when
 * there is no such thing. */
static const char *line_of(struct story *y, const char *key, const char *name, const char *value, char ret[4200])
{
	struct yaml_node *n = y->yaml != NULL ? yaml_find(yaml_root(y->yaml), key) : NULL, *item, *field;
	unsigned line = n != NULL ? n->line : 0;

	for (item = n != NULL && name != NULL ? n->first : NULL; item != NULL; item = item->next) {
		field = yaml_find(item, name);
		if (field != NULL && field->kind == YAML_TEXT && strcmp(field->text, value) == 0)
			line = field->line;
	}
	if (line > 0)
		(void)snprintf(ret, 4200, "%.4000s:%u", y->path, line);
	else
		(void)snprintf(ret, 4200, "%.4000s", y->path);
	return ret;
}

static const char *key_line(struct story *y, const char *key, char ret[4200])
{
	return line_of(y, key, NULL, NULL, ret);
}

/* ---- objects ---------------------------------------------------------------------------------------------- */

/* A reason of the gate or the decoder, and the setting behind it. */
static void explain_not_analysed(struct story *y, const struct instance *in)
{
	static const struct {
		enum image_reason reason;
		const char *key, *fix;
	} known[] = {
		{ IMAGE_NOT_FRONTAL_CHEST, "gate",
		  "if it is a frontal chest film, the modality's protocol writes the wrong header: correct it there and send again; "
		  "if it is not, nothing is wrong (`gate: off` would score every radiograph: research only)" },
		{ IMAGE_FOR_PROCESSING, "gate",
		  "let the modality send its FOR PRESENTATION image, or `gate: off` (research)" },
		{ IMAGE_TOO_YOUNG, "min_age",
		  "`min_age` says from which age on; the model has seen no younger patients" },
		{ IMAGE_TOO_LARGE, "limits", "`limits.image_side` and `limits.image_pixels` say how large an image may be" },
		{ IMAGE_UNSUPPORTED, "", "let the sender use another transfer syntax or a single-frame grey-scale image" },
		{ IMAGE_BROKEN, "", "the file contradicts itself: let the modality send the image again" },
		{ IMAGE_NOT_DICOM, "", "the file cannot be read: let the modality send the image again" },
	};
	char line[4200];
	size_t i;

	add_cause(y, "object %" PRId64 " was not analysed: %s", in->id, in->why);
	for (i = 0; i < ARRAY_SIZE(known); i++) {
		const char *name = image_reason_name(known[i].reason);

		if (strncmp(in->why, name, strlen(name)) == 0)
			break;
	}
	if (i == ARRAY_SIZE(known))
		fix(y, "nothing in the configuration: the image itself is the reason");
	else if (known[i].key[0] != '\0')
		fix(y, "%s: %s", key_line(y, known[i].key, line), known[i].fix);
	else
		fix(y, "%s", known[i].fix);
}

static void explain_object(struct story *y, const struct instance *in)
{
	char line[4200];

	if (in->state == INSTANCE_READY || in->state == INSTANCE_CLAIMED) {
		add_cause(y, "object %" PRId64 " %s", in->id,
			  in->state == INSTANCE_READY ? "waits to be analysed" : "is being analysed");
		fix(y, "it goes by itself; carzeroctl status says whether the model is ready and how much waits");
	} else if (in->state == INSTANCE_ASIDE) {
		add_cause(y, "object %" PRId64 " is kept and not analysed: its class is none of CR, DX, Secondary Capture", in->id);
		fix(y, "%s: `other_storage: refuse` would turn such objects away", key_line(y, "other_storage", line));
	} else if (in->outcome == OUTCOME_FAILED) {
		add_cause(y, "object %" PRId64 " was given up: %s", in->id, in->why);
		fix(y, "it is kept. If others fail too, the machine is too slow or too small for %s: `limits.image_seconds`, "
		       "`image_memory`, `infer_seconds`: raise them and reload. If it fails alone, the image is at fault. Then "
		       "carzeroctl requeue %" PRId64, key_line(y, "limits", line), in->id);
	} else if (in->outcome == OUTCOME_SILENT) {
		add_cause(y, "object %" PRId64 " was not analysed and is not reported: %s", in->id, in->why);
		fix(y, "%s: `model` must be a clinical bundle (carzero-model info); `allow_out_of_domain: true` only outside a clinic",
		    key_line(y, "model", line));
	} else if (in->outcome == OUTCOME_NOT_ANALYSED)
		explain_not_analysed(y, in);
}

static const struct finding *finding_called(const struct findings *f, const char *id)
{
	size_t i;

	for (i = 0; f != NULL && i < f->n; i++) {
		if (strcmp(f->finding[i].id, id) == 0)
			return &f->finding[i];
	}
	return NULL;
}

/* What the decision rests on. */
static void reason_of(const struct finding *f, const struct score *s, char *ret, size_t size)
{
	const struct operating_points *p = f != NULL ? &f->points : NULL;
	double probability = (double)s->probability;

	if (isnan(probability))
		(void)snprintf(ret, size, "raw score: no calibration for these weights, recipe and precision");
	else if (p == NULL || (!p->has_lo && !p->has_hi))
		(void)snprintf(ret, size, "no operating points: nothing is decided");
	else if (s->decision == DECISION_PRESENT)
		(void)snprintf(ret, size, "at least hi = %.1f %%", 100 * p->hi);
	else if (s->decision == DECISION_ABSENT)
		(void)snprintf(ret, size, "below lo = %.1f %% (sensitivity %.2f)", 100 * p->lo, p->lo_sensitivity);
	else if (p->has_lo && probability < p->lo)
		(void)snprintf(ret, size, "below lo = %.1f %%, but its sensitivity %.2f is less than 0.95", 100 * p->lo,
			       p->lo_sensitivity);
	else if (p->has_lo && p->has_hi)
		(void)snprintf(ret, size, "between lo = %.1f %% and hi = %.1f %%", 100 * p->lo, 100 * p->hi);
	else
		(void)snprintf(ret, size, "the list has no %s for it", p->has_lo ? "hi" : "lo");
}

static void tell_scores(struct story *y, const struct instance *in)
{
	struct score scores[STORE_SCORES_MAX];
	struct findings *list = NULL;
	void *text = NULL;
	size_t n = 0, n_text = 0, i;
	struct err e;

	ctl_check(y->store, store_instance_scores(y->store, in->id, scores, ARRAY_SIZE(scores), &n), "scores");
	if (store_get_findings(y->store, in->findings, &text, &n_text) == 0)
		(void)findings_parse("findings", text, n_text, &list, &e); /* reasons then say less */
	for (i = 0; i < n; i++) {
		char p[24] = "", reason[160];

		reason_of(finding_called(list, scores[i].finding), &scores[i], reason, sizeof(reason));
		if (!isnan(scores[i].probability))
			(void)snprintf(p, sizeof(p), ", %.1f %%", 100.0 * (double)scores[i].probability);
		add_moment(y, in->settled, "  %s: logit %.4f%s, %s: %s", scores[i].finding, (double)scores[i].logit, p,
			   isnan(scores[i].probability) ? "undecided" : decision_name((enum decision)scores[i].decision), reason);
	}
	findings_free(list);
	free(text);
}

static void tell_object(struct story *y, const struct instance *in)
{
	add_moment(y, in->received,
		   "object %" PRId64 " received from \"%s\" (%s): %" PRIu64 " bytes, class %s, syntax %s, revision %u, "
		   "SOP Instance UID %s", in->id, in->calling_ae, in->peer, in->size, in->sop_class, in->syntax, in->revision,
		   in->sop_uid);
	if (in->outcome == OUTCOME_SCORED) {
		add_moment(y, in->settled, "object %" PRId64 " scored (recipe %s, precision %s, carzerod %s)", in->id, in->recipe,
			   in->precision, in->version);
		tell_scores(y, in);
	} else if (in->outcome == OUTCOME_NOT_ANALYSED || in->outcome == OUTCOME_SILENT)
		add_moment(y, in->settled, "object %" PRId64 " not analysed: %s", in->id, in->why);
	explain_object(y, in);
}

static void tell_objects(struct story *y)
{
	struct instance *in = xcalloc(OBJECTS_MAX, sizeof(*in));
	size_t n = 0, i;
	int r = store_study_instances(y->store, y->study.id, in, OBJECTS_MAX, &n);

	ctl_check(y->store, r == -E2BIG ? 0 : r, "objects");
	for (i = 0; i < n && i < OBJECTS_MAX; i++)
		tell_object(y, &in[i]);
	free(in);
}

/* ---- the study and its reports ----------------------------------------------------------------------------- */

static void explain_route(struct story *y)
{
	struct instance in;
	char line[4200];
	const char *why = y->study.why;
	size_t n = 0;
	int r = store_study_instances(y->store, y->study.id, &in, 1, &n);

	if ((r < 0 && r != -E2BIG) || n == 0)
		return;
	if (strncmp(why, "no route", 8) == 0) {
		add_cause(y, "the report was made and sent nowhere: no route is for calling AE title \"%s\"", in.calling_ae);
		fix(y, "%s: add to `routes`: {from: \"%s\", to: [...]}, then carzeroctl reload; studies that come from then on are sent", key_line(y, "routes", line), in.calling_ae);
	} else if (strncmp(why, "shadow", 6) == 0) {
		add_cause(y, "the report was made and kept back: %s", why);
		fix(y, "%s: take `shadow` away from that peer and reload; studies that come from then on are sent",
		    key_line(y, "peers", line));
	} else if (strncmp(why, "route to sender", 15) == 0) {
		add_cause(y, "nothing is sent back to \"%s\": %s", in.calling_ae, why);
		fix(y, "%s: add to `peers`: {ae_title: \"%s\", host: %s, port: ...}", key_line(y, "peers", line), in.calling_ae, in.peer);
	}
}

static void explain_study(struct story *y)
{
	char line[4200], text[32];

	switch (y->study.state) {
	case STUDY_COLLECTING:
		add_cause(y, "the study is not complete yet%s%s", y->study.why[0] != '\0' ? ": " : "", y->study.why);
		fix(y, "%s: `settle` and `settle_max`: reported once its objects are settled, not before %s",
		    key_line(y, "settle", line), ctl_when(y->study.settle_at, text));
		break;
	case STUDY_PARKED:
		add_cause(y, "no report: %s", y->study.why);
		if (strstr(y->study.why, "Patient ID") != NULL)
			fix(y, "somebody must say whose images these are: correct the study at its source and send it again");
		else
			fix(y, "once the reason is mended: carzeroctl requeue with the number of one of its objects");
		break;
	case STUDY_SILENT:
		add_cause(y, "no report: %s", y->study.why);
		fix(y, "the objects' own reasons say what would change it");
		break;
	case STUDY_COMPOSING:
	case STUDY_REPORTED:
		explain_route(y);
		break;
	}
}

/* ---- deliveries ------------------------------------------------------------------------------------------------ */

static void explain_delivery(struct story *y, const struct delivery *d)
{
	const struct peer *p = config_peer(y->config, d->destination);
	char line[4200], text[32];

	if (d->state == DELIVERY_DONE)
		return;
	line_of(y, "peers", "ae_title", d->destination, line);
	if (p == NULL) {
		add_cause(y, "%s to %s waits: no peer has that AE title any more", d->kind, d->destination);
		fix(y, "%s: add it to `peers` again", line);
		return;
	}
	if (d->state == DELIVERY_SENDING) {
		add_cause(y, "%s to %s is being sent", d->kind, d->destination);
		fix(y, "it goes by itself");
		return;
	}
	add_cause(y, "%s%s to %s %s after %u attempts, next try %s: %s", d->rank == RANK_URGENT ? "urgent " : "", d->kind,
		  d->destination, d->state == DELIVERY_PARKED ? "is parked" : "waits", d->attempt, ctl_when(d->due, text),
		  d->why[0] != '\0' ? d->why : "not tried yet");
	if (strstr(d->why, "accepts none") != NULL || d->status == 0x0122)
		fix(y, "%s: `sr_classes` of %s must name a class that it takes; or let the archive take one of ours", line, p->ae_title);
	else if (strstr(d->why, "rejected") != NULL)
		fix(y, "the archive must know calling AE title \"%s\" and be called \"%s\" (%s)", y->config->ae_title, p->ae_title, line);
	else if (d->status >= 0)
		fix(y, "the archive refuses the object itself: its log says why; then carzeroctl flush %s", p->ae_title);
	else
		fix(y, "%s: %s is at host %s port %u: is it running, and does the network let us through? echoscu -aec %s %s %u; "
		       "then carzeroctl flush %s", line, p->ae_title, p->host, p->port, p->ae_title, p->host, p->port, p->ae_title);
}

/* True when one is not done. */
static bool tell_deliveries(struct story *y, bool history)
{
	struct delivery *d = xcalloc(DELIVERIES_MAX, sizeof(*d));
	bool open = false;
	size_t n = 0, i;
	int r = store_study_deliveries(y->store, y->study.id, d, DELIVERIES_MAX, &n);

	ctl_check(y->store, r == -E2BIG ? 0 : r, "deliveries");
	for (i = 0; i < n && i < DELIVERIES_MAX; i++) {
		if (!history && d[i].state == DELIVERY_DONE) /* of a release that kept none */
			add_moment(y, d[i].finished, "%s to %s accepted after %u attempts", d[i].kind, d[i].destination, d[i].attempt);
		open |= d[i].state != DELIVERY_DONE;
		explain_delivery(y, &d[i]);
	}
	free(d);
	return open;
}

/* ---- the slow lane ----------------------------------------------------------------------------------------------- */

static void tell_lane(struct story *y, bool open)
{
	static const struct {
		const char *why, *fix;
	} known[] = {
		[LANE_OLD] = { "its Study Date was more than `slow_lane.older_than_days` ago when it came",
			       "`slow_lane.older_than_days` says from which age on studies that come let others go before" },
		[LANE_FLOOD] = { "it came when its sender had sent more than `slow_lane.images_per_hour`",
				 "`slow_lane.images_per_hour` says how many images of one sender do not wait for others" },
		[LANE_FETCHED] = { "carzeroctl fetch brought it", "what a modality sends of it goes in the normal lane" },
	};
	char line[4200];

	if (y->study.lane == LANE_NORMAL)
		return;
	key_line(y, "slow_lane", line);
	add_moment(y, y->study.created, "in the slow lane: %s (%s)", known[y->study.lane].why, line);
	if (!open)
		return;
	add_cause(y, "the study is in the slow lane: %s", known[y->study.lane].why);
	fix(y, "%s: %s; it goes by itself when nothing else waits, and in its turn otherwise", line, known[y->study.lane].fix);
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

static void tell_event(struct story *y, const struct event *e)
{
	char text[32];

	if (e->n == 1)
		add_moment(y, e->first, "%s", e->text);
	else
		add_moment(y, e->last, "%s (%u times since %s)", e->text, e->n, ctl_when(e->first, text));
}

static bool tell_events(struct story *y)
{
	struct event *e = xcalloc(STORE_EVENTS_MAX, sizeof(*e));
	size_t n = 0, i;

	ctl_check(y->store, store_list_events(y->store, y->study.id, e, STORE_EVENTS_MAX, &n), "events");
	for (i = 0; i < n; i++)
		tell_event(y, &e[i]);
	free(e);
	return n > 0;
}

/* ---- a study that never came --------------------------------------------------------------------------------------- */

/* The timeline has the refusal's own words; this names what is behind them, once however often it happened. */
static void explain_refusal(struct story *y, const struct event *e)
{
	const char *t = e->text;
	const struct cause *last, *c;
	char line[4200];

	if (strstr(t, "is not ours") != NULL) {
		add_cause(y, "the sender calls an AE title that is not ours");
		fix(y, "%s: we are `ae_title: %s`: the sender must call us so", key_line(y, "ae_title", line), y->config->ae_title);
	} else if (strstr(t, "`access`") != NULL) {
		add_cause(y, "no rule of `access` lets the sender in");
		fix(y, "%s: `access`, as the refusal says; then carzeroctl reload", key_line(y, "access", line));
	} else if (strstr(t, "storage.min_free") != NULL) {
		add_cause(y, "the disk is too full to take images");
		fix(y, "%s: make room under `state_dir` (%s), keep things for a shorter time (`storage.retention`) or lower "
		       "`storage.min_free`; the node takes images again by itself, and senders must send again",
		    key_line(y, "storage", line), y->config->state_dir);
	} else if (strstr(t, "drains the node") != NULL) {
		add_cause(y, "an operator has closed the node to senders");
		fix(y, "carzeroctl release lets them in again");
	} else if (strstr(t, "limits.") != NULL) {
		add_cause(y, "the node was busier than `limits` allows");
		fix(y, "%s: `limits`, as the refusal says; the sender tries again or must send again", key_line(y, "limits", line));
	} else if (strstr(t, "certificate") != NULL) {
		add_cause(y, "TLS: a certificate was not good enough");
		fix(y, "%s: `tls`: a peer's certificate must be signed by `ca`, be valid now and not revoked by `crl`: renew it at the "
		       "peer, or what we hold and then carzeroctl reload", key_line(y, "tls", line));
	} else if (strstr(t, "contexts refused") != NULL) {
		add_cause(y, "the sender offered a class or a transfer syntax that we do not take");
		fix(y, "let the sender propose a transfer syntax of carzerod(8) for that class, such as Explicit VR Little Endian "
		       "(1.2.840.10008.1.2.1); classes that are no radiographs come only with %s: `other_storage: aside`",
		    key_line(y, "other_storage", line));
	} else {
		add_cause(y, "an association ended before anything was kept, for the reason above");
		fix(y, "the node's log around that time says more: journalctl -u carzerod");
	}
	last = &y->causes[y->n_causes - 1];
	for (c = y->causes; c < last; c++) {
		if (strcmp(c->what, last->what) == 0 && strcmp(c->fix, last->fix) == 0) {
			y->n_causes--;
			return;
		}
	}
}

static void tell_of_node(struct story *y)
{
	struct event *e = xcalloc(NODE_EVENTS_SHOWN, sizeof(*e));
	size_t n = 0, i;

	ctl_check(y->store, store_list_events(y->store, 0, e, NODE_EVENTS_SHOWN, &n), "events");
	for (i = 0; i < n; i++) {
		tell_event(y, &e[i]);
		if (strncmp(e[i].text, "association", 11) == 0)
			explain_refusal(y, &e[i]);
	}
	free(e);
}

/* ---- printing -------------------------------------------------------------------------------------------------------- */

static int by_time(const void *a, const void *b)
{
	const struct moment *x = a, *y = b;

	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

static void print_text(const struct story *y, bool known, const char *study_uid)
{
	static const char *const states[] = { "collecting", "composing", "reported", "silent", "parked" };
	char text[32];
	size_t i;

	if (known)
		printf("study %" PRId64 "  %s  %s\n", y->study.id, y->study.study_uid, states[y->study.state]);
	else
		printf("no object of study %s was ever kept here; what the node turned away lately:\n", study_uid);
	for (i = 0; i < y->n_moments; i++)
		printf("  %-19s  %s\n", ctl_when(y->moments[i].at, text), y->moments[i].text);
	if (!known && y->n_moments == 0)
		printf("  nothing: nobody who was turned away has tried to send\n");
	if (y->n_causes > 0)
		printf("what would change it\n");
	for (i = 0; i < y->n_causes; i++)
		printf("  %s\n    -> %s\n", y->causes[i].what, y->causes[i].fix);
	if (known && y->n_causes == 0)
		printf("nothing is left to do\n");
}

static void print_json(const struct story *y, bool known, const char *study_uid)
{
	json_t *moments = json_array(), *causes = json_array();
	size_t i;

	for (i = 0; i < y->n_moments; i++)
		(void)json_array_append_new(moments, json_pack("{s:o, s:s}", "time", ctl_stamp(y->moments[i].at), "text",
							       y->moments[i].text));
	for (i = 0; i < y->n_causes; i++)
		(void)json_array_append_new(causes, json_pack("{s:s, s:s}", "cause", y->causes[i].what, "fix", y->causes[i].fix));
	ctl_print_json(json_pack("{s:s, s:b, s:o, s:o}", "study_uid", study_uid, "known", known, "timeline", moments, "causes",
				 causes));
}

int ctl_why(const struct config *c, const char *path, const char *study_uid)
{
	struct story y = { .config = c, .path = path, .store = ctl_open_store(c) };
	int r = store_find_study(y.store, study_uid, &y.study);
	bool known = r == 0, left = false;

	if (r != -ENOENT)
		ctl_check(y.store, r, "the study");
	open_lines(&y);
	if (known) {
		bool history, open;

		tell_objects(&y);
		history = tell_events(&y);
		explain_study(&y);
		open = tell_deliveries(&y, history);
		tell_lane(&y, open || y.study.state == STUDY_COLLECTING || y.study.state == STUDY_COMPOSING);
	} else
		tell_of_node(&y);
	left = y.n_causes > 0;
	if (y.n_moments > 0)
		qsort(y.moments, y.n_moments, sizeof(*y.moments), by_time);
	if (ctl_as_json)
		print_json(&y, known, study_uid);
	else
		print_text(&y, known, study_uid);
	free(y.moments);
	free(y.causes);
	yaml_close(y.yaml);
	store_close(y.store);
	return known && !left ? CTL_GOOD : CTL_ATTENTION;
}
