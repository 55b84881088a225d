/* delivery.c: destinations, from queued to done.
 *
 * At least once, with the same UID and the same bytes every time, which is effectively once.  What a
 * failure means decides what happens next (decisions 9):
 *	accepted (0000, Bxxx, 0111)           done
 *	unreachable, transient rejection      the destination rests (5 s doubling to 60 s, one probe at
 *	                                      a time); on the first success all that waits is due at once
 *	A7xx, 0110                            this delivery backs off (15 s doubling to 15 min)
 *	no context, 0122                      parked: the peer takes none of this; for 72 h when it may take
 *	                                      or took another object of the same study
 *	A9xx, Cxxx, 0124, permanent rejection three tries, then parked and told to the operator
 * Parked is never deleted and is tried again every day and on `carzeroctl flush`.  One
 * destination's trouble is never another's.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "base/mem.h"

#include "dicom/scu.h"

#include "daemon/keeper.h"

#define REST_BASE_MS 5000
#define REST_CAP_MS 60000
#define REFUSED_BASE_MS 15000
#define REFUSED_CAP_MS 900000
#define PARKED_AGAIN_MS (24ll * 3600 * 1000)
#define NOT_TAKEN_AGAIN_MS (72ll * 3600 * 1000)
#define PERMANENT_TRIES 3
#define DELIVERIES_LOOKED_AT 256 /* of one study, for what else a destination takes */
#define DNS_PORT 53 /* a long answer comes by TCP */
#define AWAY_MS 900000 /* a destination that does not answer for so long is told of (notify: away) */
#define SEND_TIME_MS 660000 /* connect, negotiate, store: the sender's own limits (scu.cc) end earlier */

static void courier_arguments(struct keeper *k, struct courier *c, const struct peer *peer)
{
	char key[40], value[4];

	c->peer = peer;
	(void)snprintf(key, sizeof(key), "hold %s", peer->ae_title);
	c->held = store_get_setting(k->store, key, value, sizeof(value)) == 0 && value[0] == '1';
	c->helper.argv[0] = "-c";
	c->helper.argv[1] = k->config_path;
	c->helper.argv[2] = "--";
	c->helper.argv[3] = peer->ae_title;
	c->helper.reach = (struct helper_reach){
		.limited = true,
		.reads = { k->running },
		.connects = { peer->port, DNS_PORT },
	};
	if (peer->tls)
		keeper_reach_tls(k, &c->helper.reach);
}

void delivery_open(struct keeper *k)
{
	size_t i;

	k->courier = xcalloc(CONFIG_PEERS_MAX, sizeof(*k->courier));
	for (i = 0; i < k->config->n_peers; i++) {
		helper_init(&k->courier[i].helper, "carzerod-send");
		courier_arguments(k, &k->courier[i], &k->config->peers[i]);
	}
}

/* What a peer that stays is doing goes on with the settings of before; what went to one that is gone goes back. */
void delivery_reload(struct keeper *k, const struct config *old)
{
	CLEANUP(free) struct courier *was = xcalloc(CONFIG_PEERS_MAX, sizeof(*was));
	size_t i, j;

	memcpy(was, k->courier, CONFIG_PEERS_MAX * sizeof(*was));
	memset(k->courier, 0, CONFIG_PEERS_MAX * sizeof(*was));
	for (i = 0; i < k->config->n_peers; i++) {
		struct courier *c = &k->courier[i];

		helper_init(&c->helper, "carzerod-send");
		for (j = 0; j < old->n_peers; j++) {
			if (was[j].peer == NULL || strcmp(was[j].peer->ae_title, k->config->peers[i].ae_title) != 0)
				continue;
			*c = was[j];
			was[j].peer = NULL;
			c->stale = true;
			c->not_before = 0;
			c->failures = 0;
		}
		courier_arguments(k, c, &k->config->peers[i]);
	}
	for (j = 0; j < old->n_peers; j++) {
		if (was[j].peer == NULL)
			continue;
		if (was[j].busy)
			keeper_must(k, store_defer_delivery(k->store, &was[j].delivery, k->now, -1, "its peer left the configuration",
							    was[j].delivery.permanent, true), "give a delivery back");
		helper_ended(&was[j].helper, k->boot);
	}
}

static struct courier *courier_find(struct keeper *k, const char *ae_title)
{
	size_t i;

	for (i = 0; i < k->config->n_peers; i++) {
		if (strcmp(k->courier[i].peer->ae_title, ae_title) == 0)
			return &k->courier[i];
	}
	return NULL;
}

/* Candidates in the order that the peer prefers; only the chosen one once a choice was made. */
static size_t order_reports(const struct courier *c, const struct report *all, size_t n,
			    struct report *ret)
{
	size_t found = 0, i, j;

	if (strcmp(c->delivery.kind, "SR") != 0) { /* the others have one class each */
		memcpy(ret, all, n * sizeof(*ret));
		return n;
	}
	for (i = 0; i < c->peer->n_sr_classes; i++) {
		for (j = 0; j < n; j++) {
			if (strcmp(all[j].sop_class, sr_class_uid(c->peer->sr_classes[i])) != 0)
				continue;
			if (c->delivery.report == 0 || c->delivery.report == all[j].id)
				ret[found++] = all[j];
		}
	}
	if (found == 0 && c->delivery.report != 0) { /* preferences changed since the choice: bytes are bytes */
		for (j = 0; j < n; j++) {
			if (all[j].id == c->delivery.report)
				ret[found++] = all[j];
		}
	}
	return found;
}

/* One attempt, for the history of the study. */
static void record(struct keeper *k, const struct courier *c, int status, const char *what, const char *why)
{
	char said[24] = "";

	if (status >= 0)
		(void)snprintf(said, sizeof(said), " with status %04XH", (unsigned)status & 0xffff);
	keeper_event(k, c->delivery.study, EVENT_DELIVERY, "%s to %s %s%s%s%s", c->delivery.kind, c->peer->ae_title, what, said,
		     why[0] != '\0' ? ": " : "", why);
}

static void park_for(struct keeper *k, struct courier *c, int64_t pause, int status, const char *why)
{
	record(k, c, status, "parked", why);
	keeper_must(k, store_park_delivery(k->store, &c->delivery, k->now + pause, status, why),
		    "park a delivery");
	c->busy = false;
}

static void park(struct keeper *k, struct courier *c, int status, const char *why)
{
	char key[64];

	log_error("delivery=%lld to=\"%s\" parked: %s; tried again tomorrow, or now with carzeroctl flush",
		  (long long)c->delivery.id, c->peer->ae_title, why);
	/* the peer's own words stay in the log: nobody knows what it puts into them */
	(void)snprintf(key, sizeof(key), "delivery=%lld parked", (long long)c->delivery.id);
	notices_raise(k, NOTIFY_SET_ASIDE, NULL, key, "a result of study %lld is refused by %s", (long long)c->delivery.study,
		      c->peer->ae_title);
	park_for(k, c, PARKED_AGAIN_MS, status, why);
}

/* Whether the destination took, or may still take, something else of the same revision. */
static bool takes_another(struct keeper *k, const struct courier *c)
{
	struct delivery all[DELIVERIES_LOOKED_AT];
	size_t n = 0, i;
	int r = store_study_deliveries(k->store, c->delivery.study, all, ARRAY_SIZE(all), &n);

	if (r != -E2BIG)
		keeper_must(k, r, "list the deliveries of a study");
	for (i = 0; i < n && i < ARRAY_SIZE(all); i++) {
		if (all[i].id != c->delivery.id && all[i].revision == c->delivery.revision &&
		    all[i].state != DELIVERY_PARKED && strcmp(all[i].destination, c->delivery.destination) == 0)
			return true;
	}
	return false;
}

/* Negotiation has decided.  Who takes one object and not another is content for now; who takes none is
 * somebody's mistake. */
static void not_taken(struct keeper *k, struct courier *c, int status, const char *why)
{
	if (!takes_another(k, c)) {
		park(k, c, status, why);
		return;
	}
	log_warning("delivery=%lld to=\"%s\" not taken: %s; tried again in 72 h, or now with carzeroctl flush; `objects` of "
		    "this peer can leave it out", (long long)c->delivery.id, c->peer->ae_title, why);
	park_for(k, c, NOT_TAKEN_AGAIN_MS, status, why);
}

static void refused(struct keeper *k, struct courier *c, int status, const char *why, bool permanent);

static void offer(struct keeper *k, struct courier *c)
{
	struct report all[STORE_CLASSES_MAX];
	int fds[STORE_CLASSES_MAX];
	union ipc_message m;
	size_t n = 0, i;
	int r = store_delivery_reports(k->store, &c->delivery, all, ARRAY_SIZE(all), &n);

	if (!keeper_must(k, r, "list the reports of a delivery"))
		return;
	c->busy = true;
	c->n_reports = order_reports(c, all, n, c->report);
	if (c->n_reports == 0) {
		park(k, c, -1, "nothing prepared that this peer's objects and sr_classes name");
		return;
	}
	c->ticket = ++k->ticket;
	c->since = figures_now();
	ipc_begin(&m, IPC_DELIVER, c->ticket);
	m.deliver.n = (uint32_t)c->n_reports;
	for (i = 0; i < c->n_reports; i++) {
		(void)str_copy(m.deliver.sop_class[i], UID_MAX, c->report[i].sop_class);
		fds[i] = spool_read(k->spool, SPOOL_REPORTS, c->report[i].file);
		if (fds[i] < 0) {
			r = fds[i];
			while (i > 0)
				(void)close(fds[--i]);
			if (r == -ENOENT)
				park(k, c, -1, "the report's file is missing");
			else /* no descriptor left, a disk in trouble: not for a day */
				refused(k, c, -1, "the report's file cannot be opened now", false);
			return;
		}
	}
	c->deadline = k->boot + SEND_TIME_MS;
	c->went = false;
	keeper_post(k, &c->helper, c->helper.sock, &m, fds, c->n_reports);
}

static bool resting(const struct keeper *k, const struct courier *c)
{
	return k->boot < c->not_before;
}

/* It tells of its commitment on an association to our listener, and perhaps only once. */
static bool deaf(const struct keeper *k, const struct courier *c)
{
	return c->peer->commitment == COMMITMENT_NEW && !k->receiver.ready;
}

static void dispatch_one(struct keeper *k, struct courier *c)
{
	int r;

	if (c->busy || c->held || resting(k, c) || deaf(k, c))
		return;
	if (c->stale) {
		helper_restart(&c->helper, k->boot);
		c->stale = false;
	}
	if (!keeper_has(k, &c->helper, NULL, 0))
		return;
	r = store_next_delivery(k->store, c->peer->ae_title, k->now, k->now + SEND_TIME_MS, &c->delivery);
	if (r == -ENOENT)
		return;
	if (!keeper_must(k, r, "claim a delivery"))
		return;
	failpoint("delivery.claimed");
	offer(k, c);
}

void delivery_dispatch(struct keeper *k)
{
	struct destination d[CONFIG_PEERS_MAX];
	size_t n = 0, i;
	int r;

	if (k->stopping)
		return;
	r = store_destinations(k->store, d, ARRAY_SIZE(d), &n);
	if (r != -E2BIG)
		keeper_must(k, r, "list destinations");
	for (i = 0; i < n && i < ARRAY_SIZE(d); i++) {
		struct courier *c = courier_find(k, d[i].ae_title);

		if (c != NULL && d[i].due <= k->now) /* a peer that left the configuration keeps its queue */
			dispatch_one(k, c);
	}
}

int64_t delivery_next(struct keeper *k)
{
	struct destination d[CONFIG_PEERS_MAX];
	int64_t next = INT64_MAX;
	size_t n = 0, i;
	int r = store_destinations(k->store, d, ARRAY_SIZE(d), &n);

	if (r != -E2BIG)
		keeper_must(k, r, "list destinations");
	for (i = 0; i < n && i < ARRAY_SIZE(d); i++) {
		const struct courier *c = courier_find(k, d[i].ae_title);
		int64_t due = d[i].due;

		if (c == NULL || c->busy || c->held || deaf(k, c))
			continue; /* what it waits for wakes us */
		if (due < k->now + c->not_before - k->boot)
			due = k->now + c->not_before - k->boot;
		if (c->helper.pid == 0 && k->now + (c->helper.not_before - k->boot) > due)
			due = k->now + (c->helper.not_before - k->boot);
		if (c->helper.pid != 0 && !c->helper.ready)
			continue; /* its READY wakes us */
		if (due < next)
			next = due;
	}
	return next;
}

void delivery_chose(struct keeper *k, struct courier *c, const struct ipc_chose *d)
{
	union ipc_message m;
	int r;

	if (!c->busy || d->h.token != c->ticket || d->index >= c->n_reports)
		return;
	r = store_choose_report(k->store, &c->delivery, c->report[d->index].id);
	if (r < 0 && r != -EEXIST)
		keeper_must(k, r, "commit the class of a delivery");
	failpoint("delivery.chosen");
	c->chosen = d->index;
	c->went = r == 0;
	ipc_begin(&m, IPC_GO, d->h.token);
	m.go.go = r == 0;
	keeper_post(k, &c->helper, c->helper.sock, &m, NULL, 0); /* leaves after the commit */
}

/* The destination as a whole is in trouble. */
static void rest(struct keeper *k, struct courier *c, int status, const char *why)
{
	char key[64];
	int64_t pause = keeper_backoff_ms(REST_BASE_MS, REST_CAP_MS, c->failures);

	if (c->failures++ == 0)
		log_warning("destination=\"%s\" unavailable: %s; deliveries wait, tried again by itself",
			    c->peer->ae_title, why);
	if (c->failures == 1)
		c->away_since = k->now;
	else if (c->away_since != 0 && k->now - c->away_since >= AWAY_MS) {
		(void)snprintf(key, sizeof(key), "away %s %lld", c->peer->ae_title, (long long)c->away_since);
		notices_raise(k, NOTIFY_AWAY, NULL, key, "destination %s has not answered for %d minutes; results wait",
			      c->peer->ae_title, AWAY_MS / 60000);
		c->told_away = true;
	}
	c->not_before = k->boot + pause;
	record(k, c, status, "not sent", why);
	keeper_must(k, store_defer_delivery(k->store, &c->delivery, k->now + pause, status, why,
					    c->delivery.permanent, false), "defer a delivery");
	c->busy = false;
}

static void refused(struct keeper *k, struct courier *c, int status, const char *why, bool permanent)
{
	unsigned n = permanent ? c->delivery.permanent + 1 : c->delivery.permanent;
	int64_t due = k->now + keeper_backoff_ms(REFUSED_BASE_MS, REFUSED_CAP_MS, c->delivery.attempt - 1);

	c->failures = 0;
	if (permanent && n >= PERMANENT_TRIES) {
		park(k, c, status, why);
		return;
	}
	record(k, c, status, "refused", why);
	log_warning("delivery=%lld to=\"%s\" refused: %s; tried again", (long long)c->delivery.id,
		    c->peer->ae_title, why);
	keeper_must(k, store_defer_delivery(k->store, &c->delivery, due, status, why, n, false),
		    "defer a delivery");
	c->busy = false;
}

static void accepted(struct keeper *k, struct courier *c, int status, const char *why)
{
	unsigned woken = 0;
	char key[64];

	if (c->peer->commitment == COMMITMENT_NONE) {
		facts_delivered(k, &c->delivery, status);
		keeper_must(k, store_close_delivery(k->store, &c->delivery, k->now, status, why), "close a delivery");
		k->delivered++;
		figures_delivered(k, c->delivery.study);
	} else
		commitment_ask(k, c, status);
	failpoint("delivery.closed");
	log_info("delivery=%lld study=%lld to=\"%s\" accepted status=%04xH", (long long)c->delivery.id,
		 (long long)c->delivery.study, c->peer->ae_title, (unsigned)status);
	record(k, c, status, "accepted", why);
	audit_sent(k, c);
	if (c->failures > 0) { /* it is back: what waited for it need not wait longer */
		keeper_must(k, store_flush_deliveries(k->store, c->peer->ae_title, k->now, &woken), "flush deliveries");
		log_info("destination=\"%s\" available again: %u deliveries due", c->peer->ae_title, woken);
	}
	if (c->told_away) {
		(void)snprintf(key, sizeof(key), "back %s %lld", c->peer->ae_title, (long long)c->away_since);
		notices_raise(k, NOTIFY_AWAY, NULL, key, "destination %s answers again", c->peer->ae_title);
	}
	c->told_away = false;
	c->failures = 0;
	c->busy = c->asking;
}

/* 0122H: not this SOP class, whatever was negotiated.  The next one that was prepared, at once; else parked. */
static void class_refused(struct keeper *k, struct courier *c, int status, const char *why)
{
	struct report left[STORE_CLASSES_MAX];
	size_t n = 0;
	int r = store_reject_report(k->store, &c->delivery);

	if (r != -ENOENT) /* a status without a choice before it: the sender is confused, not we */
		keeper_must(k, r, "take a choice back");
	keeper_must(k, store_delivery_reports(k->store, &c->delivery, left, ARRAY_SIZE(left), &n), "list the reports of a delivery");
	if (n == 0) {
		not_taken(k, c, status, why);
		return;
	}
	record(k, c, status, "refused in this class", why);
	keeper_must(k, store_defer_delivery(k->store, &c->delivery, k->now, status, why, c->delivery.permanent, true),
		    "defer a delivery");
	c->busy = false;
}

/* PS3.4 GG.4.1: what a C-STORE status asks of us. */
static void by_status(struct keeper *k, struct courier *c, int status, const char *why)
{
	if (status == 0x0000 || (status & 0xf000) == 0xb000 || status == 0x0111)
		accepted(k, c, status, why);
	else if ((status & 0xff00) == 0xa700 || status == 0x0110)
		refused(k, c, status, why, false);
	else if (status == 0x0122)
		class_refused(k, c, status, why);
	else
		refused(k, c, status, why, true);
}

/* Lost before the object went: the destination's trouble.  Lost while it went: maybe the object's, so it steps
 * aside and lets the others pass. */
static void lost(struct keeper *k, struct courier *c, const char *why)
{
	if (c->went)
		refused(k, c, -1, why, false);
	else
		rest(k, c, -1, why);
}

void delivery_sent(struct keeper *k, struct courier *c, const struct ipc_sent *d)
{
	const char *why = d->why;

	if (!c->busy || d->h.token != c->ticket)
		return;
	figures_sent(k, c, d->failure == SCU_OK || d->failure == SCU_STATUS ? d->status : -1);
	switch ((enum scu_failure)d->failure) {
	case SCU_OK:
	case SCU_STATUS:
		by_status(k, c, d->status, why);
		return;
	case SCU_REJECTED_PERMANENT:
		refused(k, c, -1, why, true);
		return;
	case SCU_NO_CONTEXT:
		not_taken(k, c, -1, why);
		return;
	case SCU_LIMIT: /* not of a C-STORE */
	case SCU_UNREACHABLE:
	case SCU_REJECTED_TRANSIENT:
		lost(k, c, why);
		return;
	}
	rest(k, c, -1, "the sender reports an unknown failure");
}

void delivery_lost(struct keeper *k, struct courier *c)
{
	if (c->busy && c->asking)
		commitment_lost(k, c);
	else if (c->busy)
		lost(k, c, "the sending process died or was killed at its deadline");
}

void delivery_deadlines(struct keeper *k)
{
	size_t i;

	for (i = 0; i < k->config->n_peers; i++) {
		struct courier *c = &k->courier[i];

		if (!c->busy || k->boot < c->deadline)
			continue;
		log_error("destination=\"%s\": the sending process is overdue: killed", c->peer->ae_title);
		(void)kill(c->helper.pid, SIGKILL);
		c->deadline = INT64_MAX;
	}
}

void delivery_forget(struct keeper *k)
{
	size_t i;

	for (i = 0; i < k->config->n_peers; i++) {
		struct courier *c = &k->courier[i];

		if (c->busy && c->helper.pid > 0)
			(void)kill(c->helper.pid, SIGKILL); /* it may wait for a word that never comes */
		c->busy = false;
	}
}

void delivery_stop(struct keeper *k)
{
	size_t i;

	for (i = 0; i < k->config->n_peers; i++) {
		struct courier *c = &k->courier[i];

		if (!c->busy)
			continue;
		if (c->asking) { /* recovery sees whether it was asked for */
			c->busy = c->asking = false;
			continue;
		}
		keeper_must(k, store_defer_delivery(k->store, &c->delivery, k->now, -1, "the node stopped",
						    c->delivery.permanent, true), "give a delivery back");
		c->busy = false;
	}
}
