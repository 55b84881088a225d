/* audit.c: the audit trail (PS3.15 A.5): one line of the journal, and one record for the repository.
 *
 * A record is a row in the transaction of what it tells of, so neither is there without the other, and a
 * restart loses none.  carzerod-audit takes the oldest to the repository, by syslog over TLS, a batch for each
 * connection; they go when the repository has read the batch to its end.  A batch that may have arrived is sent
 * again: a record can come twice, under one time and with the same bytes.
 *
 * Without end: while the repository is away records wait, AUDIT_QUEUE_MAX of them.  Beyond, new ones are left
 * out, so that what is written stays (who floods the node cannot push out what came before); the last
 * place is kept for a record that says so, and when there is room again one says how many were left out.
 *
 * The journal's line has our numbers in place of Study Instance UIDs.  Neither names a patient.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fdio.h"
#include "base/log.h"
#include "base/mem.h"

#include "daemon/audit_message.h"
#include "daemon/keeper.h"

#define RETRY_BASE_MS 5000
#define RETRY_CAP_MS 60000
#define SEND_TIME_MS 90000 /* carzerod-audit's own limits end earlier */
#define BATCH_MAX 200
#define BATCH_BYTES_MAX (512 * 1024)
#define ALERTS_MS 60000
#define ALERTS_MAX 60 /* a minute: how many come is a stranger's doing */
#define DNS_PORT 53
#define LEFT_OUT "audit left out" /* setting: how many, so that a restart does not forget */

void audit_open(struct keeper *k)
{
	struct audit *a = &k->audit;
	const struct config *c = k->config;

	if (gethostname(a->host, sizeof(a->host)) < 0)
		a->host[0] = '\0';
	a->host[sizeof(a->host) - 1] = '\0';
	helper_init(&a->helper, "carzerod-audit");
	if (c->audit.host[0] == '\0')
		return;
	a->helper.argv[0] = "-c";
	a->helper.argv[1] = k->config_path;
	a->helper.reach = (struct helper_reach){
		.limited = true,
		.reads = { k->running },
		.connects = { c->audit.port, DNS_PORT },
	};
	keeper_reach_tls(k, &a->helper.reach);
}

void audit_reload(struct keeper *k)
{
	struct audit *a = &k->audit;

	helper_ended(&a->helper, k->boot);
	a->busy = a->failing = false;
	a->attempts = 0;
	a->not_before = 0;
	audit_open(k);
}

/* ---- writing -------------------------------------------------------------------------------------------------- */

static void add_row(struct keeper *k, const struct audit_message *m)
{
	char body[STORE_AUDIT_MAX];
	struct audit_source from = { k->config->ae_title, k->config->institution, k->audit.host, (long)getpid() };
	size_t n;

	if (audit_write(&from, m, body, sizeof(body), &n) < 0)
		log_error("audit: a record of %s is longer than %d bytes: left out", audit_kind_name(m->kind), STORE_AUDIT_MAX);
	else
		keeper_must(k, store_add_audit(k->store, body), "keep an audit record");
}

static void alert_of(const struct keeper *k, struct audit_message *m, enum audit_kind kind, unsigned outcome, const char *detail)
{
	*m = (struct audit_message){ .kind = kind, .outcome = outcome, .at = k->now, .node = k->audit.host, .detail = detail };
}

static const char *process_number(char ret[24])
{
	(void)snprintf(ret, 24, "%ld", (long)getpid());
	return ret;
}

static void add_ourselves(const struct keeper *k, struct audit_message *m, enum audit_role role, bool requestor, char number[24])
{
	m->who[m->n_who++] =
		(struct audit_who){ process_number(number), k->config->ae_title, k->audit.host, role, requestor };
}

static void set_left_out(struct keeper *k, uint64_t n)
{
	char text[24];

	k->audit.left_out = n;
	(void)snprintf(text, sizeof(text), "%llu", (unsigned long long)n);
	keeper_must(k, store_set_setting(k->store, LEFT_OUT, text), "count what is left out of the audit trail");
}

static void enqueue(struct keeper *k, const struct audit_message *m)
{
	struct audit *a = &k->audit;
	struct audit_message alert;
	char number[24], text[80];

	if (k->config->audit.host[0] == '\0')
		return;
	keeper_must(k, store_audits_waiting(k->store, &a->waiting), "count audit records");
	if (a->waiting + 1 < AUDIT_QUEUE_MAX) {
		if (a->left_out > 0) {
			(void)snprintf(text, sizeof(text), "%llu audit records were left out: the queue was full",
				       (unsigned long long)a->left_out);
			alert_of(k, &alert, AUDIT_RESUMED, 4, text);
			add_ourselves(k, &alert, AUDIT_NO_ROLE, false, number);
			add_row(k, &alert);
			log_warning("audit: %s", text);
			set_left_out(k, 0);
		}
		add_row(k, m);
		return;
	}
	set_left_out(k, a->left_out + 1);
	if (a->left_out > 1)
		return;
	log_error("audit: %d records wait for %s: new ones are left out until it takes some", AUDIT_QUEUE_MAX,
		  k->config->audit.host);
	if (a->waiting < AUDIT_QUEUE_MAX) {
		alert_of(k, &alert, AUDIT_INTERRUPTED, 8, "the queue of audit records is full: new ones are left out");
		add_ourselves(k, &alert, AUDIT_NO_ROLE, false, number);
		add_row(k, &alert);
	}
}

/* more: what only the journal's line has, or "". */
static void record(struct keeper *k, const struct audit_message *m, const char *more)
{
	char line[STORE_EVENT_MAX] = "", quoted[4 * AE_TITLE_MAX + 32];
	size_t i, n = 0;

	if (k->config->audit.journal) {
		for (i = 0; i < m->n_who && n < sizeof(line); i++) {
			const struct audit_who *w = &m->who[i];
			const char *as = w->role == AUDIT_SOURCE ? "from" : w->role == AUDIT_DESTINATION ? "to" : "by";

			n += (size_t)snprintf(line + n, sizeof(line) - n, " %s=\"%s\"", as,
					      str_quote(quoted, sizeof(quoted), w->title != NULL ? w->title : w->user));
			if (w->at != NULL && w->at != k->audit.host && n < sizeof(line))
				n += (size_t)snprintf(line + n, sizeof(line) - n, " %s_host=%s", as,
						      str_quote(quoted, sizeof(quoted), w->at));
		}
		log_info("audit event=\"%s\" outcome=%u%s%s", audit_kind_name(m->kind), m->outcome, line, more);
	}
	enqueue(k, m);
}

static bool wanted(const struct keeper *k)
{
	return k->config->audit.journal || k->config->audit.host[0] != '\0';
}

/* ---- what happens ------------------------------------------------------------------------------------------------ */

static void activity(struct keeper *k, enum audit_kind kind)
{
	struct audit_message m = { .kind = kind, .at = k->now };
	char number[24];

	add_ourselves(k, &m, AUDIT_APPLICATION, false, number);
	record(k, &m, kind == AUDIT_START ? " started" : " stopped");
}

static void say_received(struct keeper *k, const char *peer, const char *calling_ae)
{
	struct received in;
	char number[24], more[64];
	struct study study;
	int r;

	while ((r = store_take_received(k->store, peer, calling_ae, &in)) == 0) {
		struct audit_message m = { .kind = AUDIT_RECEIVED, .at = k->now, .study_uid = in.study_uid,
					   .sop_class = in.sop_class, .objects = in.n };

		m.who[m.n_who++] = (struct audit_who){ in.calling_ae, in.calling_ae, in.peer, AUDIT_SOURCE, true };
		add_ourselves(k, &m, AUDIT_DESTINATION, false, number);
		study.id = 0;
		r = store_find_study(k->store, in.study_uid, &study);
		keeper_must(k, r == -ENOENT ? 0 : r, "find a study");
		(void)snprintf(more, sizeof(more), " study=%lld objects=%u", (long long)study.id, in.n);
		record(k, &m, more);
		if (k->full)
			return;
	}
	keeper_must(k, r == -ENOENT ? 0 : r, "take what was received");
}

static void load_left_out(struct keeper *k)
{
	char text[24];

	k->audit.left_out = 0;
	if (store_get_setting(k->store, LEFT_OUT, text, sizeof(text)) == 0)
		(void)str_to_u64(text, 0, UINT64_MAX, &k->audit.left_out); /* else none was */
}

void audit_begin(struct keeper *k)
{
	struct audit *a = &k->audit;

	a->durable |= a->begun; /* the turn in which it was said has been committed */
	if (!wanted(k) || (a->begun && !a->unsaid))
		return;
	if (!a->begun) {
		load_left_out(k);
		activity(k, AUDIT_START);
	}
	a->begun = true;
	a->unsaid = false;
	say_received(k, "", "");
}

void audit_end(struct keeper *k)
{
	if (wanted(k))
		activity(k, AUDIT_STOP);
}

int audit_count(struct keeper *k, const struct instance *in)
{
	struct received one = { .n = 1 };

	if (!wanted(k))
		return 0;
	(void)str_copy(one.peer, sizeof(one.peer), in->peer);
	(void)str_copy(one.calling_ae, sizeof(one.calling_ae), in->calling_ae);
	(void)str_copy(one.study_uid, sizeof(one.study_uid), in->study_uid);
	(void)str_copy(one.sop_class, sizeof(one.sop_class), in->sop_class);
	return store_count_received(k->store, &one);
}

void audit_received(struct keeper *k, const struct association *a)
{
	if (wanted(k) && a->stored.calling_ae[0] != '\0')
		say_received(k, a->host, a->stored.calling_ae);
}

void audit_refused(struct keeper *k, const struct association *a)
{
	struct audit *au = &k->audit;
	struct audit_message m;
	char number[24], detail[IPC_WHY_MAX + 64];
	unsigned unsaid;

	if (!wanted(k))
		return;
	unsaid = au->alerts > ALERTS_MAX ? au->alerts - ALERTS_MAX : 0;
	if (k->boot - au->alerts_since > ALERTS_MS) {
		au->alerts_since = k->boot;
		au->alerts = 0;
	} else
		unsaid = 0;
	if (au->alerts++ >= ALERTS_MAX)
		return;
	if (unsaid > 0)
		(void)snprintf(detail, sizeof(detail), "%s; before it, %u more that are not recorded one by one", a->end.detail, unsaid);
	else
		(void)str_copy(detail, sizeof(detail), a->end.detail[0] != '\0' ? a->end.detail : "turned away");
	alert_of(k, &m, AUDIT_REFUSED, 4, detail);
	m.node = a->host;
	add_ourselves(k, &m, AUDIT_NO_ROLE, false, number);
	m.who[m.n_who++] = (struct audit_who){ a->end.calling_ae[0] != '\0' ? a->end.calling_ae : a->host,
					       a->end.calling_ae[0] != '\0' ? a->end.calling_ae : NULL, a->host, AUDIT_NO_ROLE, false };
	record(k, &m, " turned away");
}

void audit_sent(struct keeper *k, const struct courier *c)
{
	struct audit_message m = { .kind = AUDIT_SENT, .at = k->now, .objects = 1 };
	char number[24], more[64], study_uid[UID_MAX];

	if (!wanted(k) || !keeper_must(k, store_study_uid(k->store, c->delivery.study, study_uid), "find a study"))
		return;
	m.study_uid = study_uid;
	m.sop_class = c->report[c->chosen].sop_class;
	add_ourselves(k, &m, AUDIT_SOURCE, true, number);
	m.who[m.n_who++] = (struct audit_who){ c->peer->ae_title, c->peer->ae_title, c->peer->host, AUDIT_DESTINATION, false };
	(void)snprintf(more, sizeof(more), " study=%lld objects=1 kind=%s", (long long)c->delivery.study, c->delivery.kind);
	record(k, &m, more);
}

/* ---- operators --------------------------------------------------------------------------------------------------- */

/* By number: names may live in a directory, and nobody waits for that here. */
void audit_operator(struct keeper *k, int socket)
{
	struct ucred who;
	socklen_t n = sizeof(who);

	k->audit.operator[0] = '\0';
	if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &who, &n) == 0)
		(void)snprintf(k->audit.operator, sizeof(k->audit.operator), "uid=%lu", (unsigned long)who.uid);
}

static void add_operator(const struct keeper *k, struct audit_message *m, const char *operator)
{
	if (operator[0] != '\0')
		m->who[m->n_who++] = (struct audit_who){ operator, NULL, k->audit.host, AUDIT_NO_ROLE, true };
}

void audit_action(struct keeper *k, bool configuration, const char *format, ...)
{
	struct audit_message m;
	char number[24], what[STORE_EVENT_MAX], more[STORE_EVENT_MAX + 8];
	va_list ap;

	if (!wanted(k))
		return;
	va_start(ap, format);
	(void)vsnprintf(what, sizeof(what), format, ap); /* cut at worst */
	va_end(ap);
	alert_of(k, &m, configuration ? AUDIT_CONFIGURED : AUDIT_OPERATOR, 0, what);
	add_ourselves(k, &m, AUDIT_NO_ROLE, false, number);
	add_operator(k, &m, k->audit.operator);
	m.who[m.n_who - 1].requestor = false; /* the table wants it so of who performed it */
	(void)snprintf(more, sizeof(more), ": %s", what);
	record(k, &m, more);
}

void audit_query(struct keeper *k, const struct peer *peer, const char *query)
{
	struct audit_message m = { .kind = AUDIT_QUERY, .at = k->now, .query = query };
	char number[24];

	if (!wanted(k))
		return;
	add_ourselves(k, &m, AUDIT_SOURCE, false, number);
	m.who[m.n_who++] = (struct audit_who){ peer->ae_title, peer->ae_title, peer->host, AUDIT_DESTINATION, false };
	add_operator(k, &m, k->audit.operator);
	record(k, &m, "");
}

static void deleted(struct keeper *k, enum audit_kind kind, const char *study_uid, int64_t study, size_t objects, const char *operator)
{
	struct audit_message m = { .kind = kind, .at = k->now, .study_uid = study_uid, .objects = (unsigned)objects };
	char number[24], more[64];

	if (!wanted(k))
		return;
	add_ourselves(k, &m, AUDIT_NO_ROLE, operator[0] == '\0', number);
	add_operator(k, &m, operator);
	(void)snprintf(more, sizeof(more), " study=%lld%s", (long long)study, operator[0] != '\0' ? " purged" : " expired");
	record(k, &m, more);
}

void audit_purged(struct keeper *k, const char *study_uid, int64_t study)
{
	deleted(k, AUDIT_STUDY_DELETED, study_uid, study, 0, k->audit.operator);
}

void audit_expired(struct keeper *k, const struct removal *what)
{
	if (what->whole)
		deleted(k, AUDIT_STUDY_DELETED, what->study_uid, what->study, 0, k->purge_before > 0 ? k->audit.purger : "");
	else if (what->objects > 0)
		deleted(k, AUDIT_FILES_DELETED, what->study_uid, what->study, what->objects, "");
}

/* ---- to the repository --------------------------------------------------------------------------------------------- */

struct batch {
	int fd;
	size_t n, bytes;
	int64_t last;
	int r;
};

/* RFC 5425 4.3: the length in front of each. */
static int add_to_batch(int64_t id, const char *body, void *arg)
{
	struct batch *b = arg;
	size_t n = strlen(body);
	char head[16];
	int head_n = snprintf(head, sizeof(head), "%zu ", n);

	if (b->n == BATCH_MAX || b->bytes + n > BATCH_BYTES_MAX)
		return 1;
	b->r = write_full(b->fd, head, (size_t)head_n);
	if (b->r == 0)
		b->r = write_full(b->fd, body, n);
	b->n++;
	b->bytes += n;
	b->last = id;
	return b->r;
}

static void offer(struct keeper *k, struct audit *a)
{
	struct batch b = { .fd = fd_memory("audit") };
	union ipc_message m;

	if (b.fd < 0)
		return; /* no descriptor left: next turn */
	if (!keeper_must(k, store_each_audit(k->store, add_to_batch, &b), "list audit records") || b.r < 0 || fd_seal(b.fd) < 0) {
		(void)close(b.fd);
		return;
	}
	a->busy = true;
	a->last = b.last;
	a->ticket = ++k->ticket;
	a->deadline = k->boot + SEND_TIME_MS;
	ipc_begin(&m, IPC_AUDIT, a->ticket);
	keeper_post(k, &a->helper, a->helper.sock, &m, &b.fd, 1);
}

void audit_dispatch(struct keeper *k)
{
	struct audit *a = &k->audit;

	if (k->config->audit.host[0] == '\0' || k->stopping)
		return;
	keeper_must(k, store_audits_waiting(k->store, &a->waiting), "count audit records");
	if (a->waiting == 0 || a->busy || k->boot < a->not_before)
		return;
	if (keeper_has(k, &a->helper, NULL, 0))
		offer(k, a);
}

int64_t audit_next(const struct keeper *k)
{
	const struct audit *a = &k->audit;
	int64_t at = a->not_before;

	if (k->config->audit.host[0] == '\0' || a->waiting == 0 || a->busy || (a->helper.pid != 0 && !a->helper.ready))
		return INT64_MAX; /* an answer, or READY, wakes us */
	if (a->helper.pid == 0 && a->helper.not_before > at)
		at = a->helper.not_before;
	return at > k->boot ? k->now + at - k->boot : k->now;
}

static void failed(struct keeper *k, const char *why)
{
	struct audit *a = &k->audit;

	a->busy = false;
	a->not_before = k->boot + keeper_backoff_ms(RETRY_BASE_MS, RETRY_CAP_MS, a->attempts++);
	if (!a->failing)
		log_warning("audit: %llu records wait: %s: %s; tried again by itself", (unsigned long long)a->waiting,
			    k->config->audit.host, why);
	a->failing = true;
}

void audit_told(struct keeper *k, const struct ipc_told *m)
{
	struct audit *a = &k->audit;

	if (!a->busy || m->h.token != a->ticket)
		return;
	if (!m->good) {
		failed(k, m->why);
		return;
	}
	a->busy = false;
	a->attempts = 0;
	if (a->failing)
		log_info("audit: %s takes records again", k->config->audit.host);
	a->failing = false;
	keeper_must(k, store_end_audits(k->store, a->last), "end audit records");
}

void audit_lost(struct keeper *k)
{
	if (k->audit.busy)
		failed(k, "its process died or was killed at its deadline");
}

void audit_deadline(struct keeper *k)
{
	struct audit *a = &k->audit;

	if (!a->busy || k->boot < a->deadline)
		return;
	(void)kill(a->helper.pid, SIGKILL); /* its end brings audit_lost */
	a->deadline = INT64_MAX;
}

/* What was under way is sent again; what the turn has said is said by a later one. */
void audit_forget(struct keeper *k)
{
	struct audit *a = &k->audit;

	a->busy = false;
	a->begun &= a->durable;
	a->unsaid = true;
	load_left_out(k);
}
