/* notices.c: what people and their systems asked to be told, by webhook or mail.
 *
 * A notice is a row before anybody hears of it, in the transaction of what it is about; carzerod-hook, one
 * process for each hook that has work, takes it out.  What cannot be told is told later, for 72 hours.
 * A notice never holds anything else up, and carries no name, no identifier of a patient; the Study Instance
 * UID only where `study_uid` says so.
 */
#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include "daemon/keeper.h"
#include "daemon/notices.h"

#define RETRY_BASE_MS 5000
#define RETRY_CAP_MS 900000
#define GIVE_UP_MS (72ll * 3600 * 1000)
#define HOOK_TIME_MS 60000 /* carzerod-hook's own limits end earlier */

void notices_open(struct keeper *k)
{
	size_t i;

	for (i = 0; i < k->config->n_notify; i++) {
		struct hook *h = &k->hook[i];

		memset(h, 0, sizeof(*h));
		h->rule = &k->config->notify[i];
		helper_init(&h->helper, "carzerod-hook");
		h->helper.argv[0] = "-c";
		h->helper.argv[1] = k->config_path;
		h->helper.argv[2] = "--";
		h->helper.argv[3] = h->rule->name;
		h->helper.reach = (struct helper_reach){
			.limited = true,
			.reads = { k->running, h->rule->secret },
			.connects = { h->rule->port, 53 }, /* a resolver may answer by TCP */
		};
	}
}

void notices_reload(struct keeper *k, const struct config *old)
{
	size_t i;

	for (i = 0; i < old->n_notify; i++) {
		if (k->hook[i].busy) /* maybe told already: the receiver knows its X-Carzerod-Notice */
			keeper_must(k, store_defer_notice(k->store, k->hook[i].notice.id, k->now), "give a notice back");
		helper_ended(&k->hook[i].helper, k->boot);
	}
	notices_open(k);
}

static char *body_of(struct keeper *k, const struct notify_rule *rule, const struct notice *n, const struct study *study,
		     json_t *details, const char *text)
{
	char stamp[CLOCK_STAMP_MAX];
	json_t *j;
	char *ret;

	clock_stamp(k->now, stamp);
	j = json_pack("{s:s, s:s, s:s, s:s, s:s}", "node", k->config->ae_title, "event", n->event, "time", stamp, "key",
		      n->key, "text", text);
	if (study != NULL)
		(void)json_object_set_new(j, "study", json_integer(study->id));
	if (study != NULL && rule->study_uid)
		(void)json_object_set_new(j, "study_uid", json_string(study->study_uid));
	if (details != NULL)
		(void)json_object_set(j, "findings", details);
	(void)json_object_set_new(j, "warning", json_string("AI result, not verified. Not a medical device."));
	ret = json_dumps(j, JSON_COMPACT);
	json_decref(j);
	return ret;
}

static void raise_for(struct keeper *k, enum notify_event event, const struct study *study, json_t *details,
		      const char *key, const char *text)
{
	size_t i;

	for (i = 0; i < k->config->n_notify; i++) {
		const struct notify_rule *rule = &k->config->notify[i];
		CLEANUP(free) char *body = NULL;
		struct notice n = { .created = k->now };

		if ((rule->events & 1u << event) == 0)
			continue;
		(void)str_copy(n.hook, sizeof(n.hook), rule->name);
		(void)str_copy(n.event, sizeof(n.event), notify_event_name(event));
		(void)str_copy(n.key, sizeof(n.key), key);
		body = body_of(k, rule, &n, study, details, text);
		if (body == NULL || !str_copy(n.body, sizeof(n.body), body)) {
			log_error("hook=\"%s\": a notice of %s is longer than %d bytes: not told", rule->name, n.event,
				  STORE_NOTICE_BODY_MAX);
			continue;
		}
		keeper_must(k, store_add_notice(k->store, &n), "keep a notice");
	}
}

void notices_raise(struct keeper *k, enum notify_event event, const struct study *study, const char *key,
		   const char *format, ...)
{
	char text[STORE_EVENT_MAX];
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(text, sizeof(text), format, ap); /* cut at worst */
	va_end(ap);
	raise_for(k, event, study, NULL, key, text);
}

void notices_urgent(struct keeper *k, const struct study *study, unsigned revision, const bool *urgent)
{
	json_t *findings = json_array();
	char key[sizeof(((struct notice *)NULL)->key)];
	size_t i;

	for (i = 0; i < k->findings->n; i++)
		if (urgent[i])
			(void)json_array_append_new(findings, json_string(k->findings->finding[i].id));
	(void)snprintf(key, sizeof(key), "urgent study=%lld revision=%u", (long long)study->id, revision);
	raise_for(k, NOTIFY_URGENT, study, findings, key, "an urgent finding was reported");
	json_decref(findings);
}

/* ---- taking them out ---- */

static void offer(struct keeper *k, struct hook *h)
{
	union ipc_message m;
	int r = store_next_notice(k->store, h->rule->name, k->now, &h->notice);

	if (r == -ENOENT)
		return;
	if (!keeper_must(k, r, "claim a notice"))
		return;
	h->busy = true;
	h->ticket = ++k->ticket;
	h->deadline = k->boot + HOOK_TIME_MS;
	ipc_begin(&m, IPC_NOTICE, h->ticket);
	m.notice.id = (uint64_t)h->notice.id;
	(void)str_copy(m.notice.event, sizeof(m.notice.event), h->notice.event);
	(void)str_copy(m.notice.body, sizeof(m.notice.body), h->notice.body);
	keeper_post(k, &h->helper, h->helper.sock, &m, NULL, 0);
}

static void dispatch_one(struct keeper *k, struct hook *h)
{
	if (h->busy || k->now < h->due)
		return;
	if (keeper_has(k, &h->helper, NULL, 0))
		offer(k, h);
}

void notices_dispatch(struct keeper *k)
{
	uint64_t waiting;
	size_t i;

	for (i = 0; i < k->config->n_notify; i++) {
		struct hook *h = &k->hook[i];

		keeper_must(k, store_notices_due(k->store, h->rule->name, &h->due, &waiting), "ask for notices");
		if (!k->stopping && h->due != INT64_MAX)
			dispatch_one(k, h);
	}
}

int64_t notices_next(const struct keeper *k)
{
	int64_t next = INT64_MAX;
	size_t i;

	for (i = 0; i < k->config->n_notify; i++) {
		const struct hook *h = &k->hook[i];
		int64_t due = h->due;

		if (due == INT64_MAX || h->busy || (h->helper.pid != 0 && !h->helper.ready))
			continue; /* an answer, or READY, wakes us */
		if (h->helper.pid == 0 && k->now + h->helper.not_before - k->boot > due)
			due = k->now + h->helper.not_before - k->boot;
		if (due < next)
			next = due;
	}
	return next;
}

static void failed(struct keeper *k, struct hook *h, const char *why)
{
	int64_t due = k->now + keeper_backoff_ms(RETRY_BASE_MS, RETRY_CAP_MS, h->notice.attempt - 1);

	h->busy = false;
	if (k->now - h->notice.created > GIVE_UP_MS) {
		log_error("hook=\"%s\" notice=%lld given up after 72 hours: %s", h->rule->name, (long long)h->notice.id, why);
		keeper_must(k, store_end_notice(k->store, h->notice.id, k->now), "give a notice up");
		return;
	}
	if (!h->failing)
		log_warning("hook=\"%s\" cannot be told: %s; tried again by itself for 72 hours", h->rule->name, why);
	h->failing = true;
	keeper_must(k, store_defer_notice(k->store, h->notice.id, due), "defer a notice");
}

void notices_told(struct keeper *k, struct hook *h, const struct ipc_told *m)
{
	if (!h->busy || m->h.token != h->ticket)
		return;
	if (!m->good) {
		failed(k, h, m->why);
		return;
	}
	h->busy = false;
	if (h->failing)
		log_info("hook=\"%s\" answers again", h->rule->name);
	h->failing = false;
	keeper_must(k, store_end_notice(k->store, h->notice.id, k->now), "end a notice");
	log_info("hook=\"%s\" notice=%lld event=%s told", h->rule->name, (long long)h->notice.id, h->notice.event);
}

void notices_lost(struct keeper *k, struct hook *h)
{
	if (h->busy)
		failed(k, h, "its process died or was killed at its deadline");
}

void notices_deadlines(struct keeper *k)
{
	size_t i;

	for (i = 0; i < k->config->n_notify; i++) {
		struct hook *h = &k->hook[i];

		if (!h->busy || k->boot < h->deadline)
			continue;
		(void)kill(h->helper.pid, SIGKILL); /* its end brings notices_lost */
		h->deadline = INT64_MAX;
	}
}

/* One that was on its way before this turn is told twice, under one number: better than not at all. */
void notices_forget(struct keeper *k)
{
	size_t i;

	for (i = 0; i < k->config->n_notify; i++)
		k->hook[i].busy = false;
}
