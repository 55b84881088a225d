/* intake.c: associations, from the keeper's side.
 *
 * The order that the product stands on, for every object (design, one study in order, steps 2-5):
 *	the child has written and fsynced incoming/ID            (dicom/scp.cc)
 *	the keeper renames it to objects/, inserts the row,      (here, all that waits in one transaction)
 *	fsyncs the directories, commits,
 *	and only then the child hears 0000H.
 * Whatever fails on the way becomes A700: the sender keeps its copy.
 *
 * It never looks into a file.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/failpoint.h"
#include "base/log.h"
#include "base/mem.h"

#include "dicom/scp.h"

#include "daemon/keeper.h"

/* Of refused and broken associations, which cost a peer nothing, so many are recorded in that time. */
#define REFUSALS_MAX 20
#define REFUSALS_MS 10000

/* PS3.4 GG.4.1 and PS3.7 C: C-STORE status codes that we use */
#define STATUS_SUCCESS 0x0000
#define STATUS_OUT_OF_RESOURCES 0xa700

#define DAY_MS (24ll * 3600 * 1000)
#define CERTIFICATE_DAYS 30 /* warned before */
#define CRL_DAYS 2          /* these are made new every week or so */

/* PS3.8 table 9-21, rejected-transient by the service provider (presentation) */
static const struct ipc_channel reject_congestion = { .result = 2, .source = 3, .reason = 1 };
static const struct ipc_channel reject_limit = { .result = 2, .source = 3, .reason = 2 };

/* Why no new association may come now, or NULL. */
static const char *closed_because(struct keeper *k, const struct ipc_channel **ret)
{
	*ret = &reject_limit;
	if (k->stopping) {
		*ret = &reject_congestion;
		return "the node is stopping";
	}
	if (k->draining) {
		*ret = &reject_congestion;
		return "an operator drains the node";
	}
	disk_look(k);
	if (k->disk_low)
		return "free space under state_dir is below storage.min_free";
	if (k->counts.instances[INSTANCE_READY] + k->counts.instances[INSTANCE_CLAIMED] >
	    k->config->limits.queue)
		return "more images wait than limits.queue allows";
	return NULL;
}

#define REFUSING_AGAIN_MS 3600000 /* told once an hour (notify: refusing) */

static struct association *association_slot(struct keeper *k)
{
	size_t i;

	for (i = 0; i < k->config->limits.associations; i++) {
		if (k->association[i].sock < 0)
			return &k->association[i];
	}
	return NULL;
}

static bool few_refusals(struct keeper *k)
{
	if (k->boot - k->refusals_since > REFUSALS_MS) {
		k->refusals_since = k->boot;
		k->refusals = 0;
	}
	return k->refusals++ < REFUSALS_MAX;
}

int64_t intake_tls_ends(const struct keeper *k, const char **ret_what, bool *ret_soon)
{
	const struct {
		const char *what;
		int64_t ends, days;
	} all[] = { { "certificate", k->tls.certificate, CERTIFICATE_DAYS },
		    { "ca", k->tls.ca, CERTIFICATE_DAYS },
		    { "crl", k->tls.crl, CRL_DAYS } };
	int64_t first = INT64_MAX, ends = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(all); i++) {
		if (all[i].ends == 0 || all[i].ends - all[i].days * DAY_MS >= first)
			continue;
		first = all[i].ends - all[i].days * DAY_MS;
		ends = all[i].ends;
		*ret_what = all[i].what;
	}
	*ret_soon = ends != 0 && k->now > first;
	return ends;
}

static void watch_certificate(const struct keeper *k, const char *what, int64_t ends, int64_t before)
{
	if (ends == 0 || ends - k->now > before)
		return;
	if (ends <= k->now)
		log_error("tls.%s has ended: associations over TLS fail; renew it, then reload", what);
	else
		log_warning("tls.%s ends in %lld days: renew it, then reload", what,
			    (long long)((ends - k->now) / DAY_MS));
}

void intake_watch_certificates(struct keeper *k)
{
	if (k->tls.told_at != 0 && k->now - k->tls.told_at < DAY_MS && k->now >= k->tls.told_at)
		return;
	k->tls.told_at = k->now;
	watch_certificate(k, "certificate", k->tls.certificate, CERTIFICATE_DAYS * DAY_MS);
	watch_certificate(k, "ca", k->tls.ca, CERTIFICATE_DAYS * DAY_MS);
	watch_certificate(k, "crl", k->tls.crl, CRL_DAYS * DAY_MS);
}

void intake_listener(struct keeper *k, struct helper *receiver, const union ipc_message *m)
{
	const struct ipc_channel *reject;
	struct association *a = association_slot(k);
	const char *why = closed_because(k, &reject);
	union ipc_message answer;
	char key[64];
	int pair[2];

	if (m->h.type == IPC_LISTENING) {
		receiver->ready = true;
		k->tls.certificate = m->listening.certificate_ends;
		k->tls.ca = m->listening.ca_ends;
		k->tls.crl = m->listening.crl_ends;
		k->tls.told_at = 0;
		return;
	}
	ipc_begin(&answer, IPC_CHANNEL, m->h.token);
	if (why == NULL && a == NULL)
		why = "limits.associations is reached";
	if (why == NULL && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		why = "no descriptors left";
	if (why != NULL) {
		log_warning("association from=%s refused for now: %s", m->admit.host, why);
		if (!k->stopping && a != NULL) { /* not for a burst of senders: the limit on them is there to be reached */
			(void)snprintf(key, sizeof(key), "refusing %lld", (long long)(k->now / REFUSING_AGAIN_MS));
			notices_raise(k, NOTIFY_REFUSING, NULL, key, "associations are refused: %s", why);
		}
		if (few_refusals(k))
			keeper_event(k, 0, EVENT_NODE, "association from %s refused for now: %s", m->admit.host, why);
		answer.channel.result = reject->result;
		answer.channel.source = reject->source;
		answer.channel.reason = reject->reason;
		k->rejected++;
		keeper_post(k, receiver, receiver->sock, &answer, NULL, 0);
		return;
	}
	(void)fcntl(pair[0], F_SETFL, O_NONBLOCK);
	memset(a, 0, sizeof(*a));
	a->sock = pair[0];
	(void)str_copy(a->host, sizeof(a->host), m->admit.host);
	k->accepted++;
	keeper_post(k, receiver, receiver->sock, &answer, &pair[1], 1);
}

static bool another_sends(const struct keeper *k, const struct association *a, int64_t study)
{
	size_t i, j;

	for (i = 0; i < k->config->limits.associations; i++) {
		const struct association *other = &k->association[i];

		if (other == a || other->sock < 0)
			continue;
		for (j = 0; j < other->n_study; j++) {
			if (other->study[j] == study)
				return true;
		}
	}
	return false;
}

static void settle(struct keeper *k, const struct association *a, int64_t study)
{
	if (another_sends(k, a, study))
		return; /* the last one to end settles it */
	keeper_must(k, store_settle_study(k->store, study, k->now + k->config->settle_ms), "settle a study");
}

static void touch_study(struct keeper *k, struct association *a, int64_t study)
{
	size_t i;

	for (i = 0; i < a->n_study; i++) {
		if (a->study[i] == study)
			return;
	}
	if (a->n_study == KEEPER_STUDIES_PER_ASSOCIATION) {
		/* a long migration: the oldest one is certainly complete */
		settle(k, a, a->study[0]);
		memmove(a->study, a->study + 1, (a->n_study - 1) * sizeof(a->study[0]));
		a->n_study--;
	}
	a->study[a->n_study++] = study;
}

/* Such an end helps somebody who asks why nothing came; a port scan or an echo does not. */
static bool worth_telling(const struct association *a)
{
	const struct ipc_ended *d = &a->end;

	if (!a->told || d->stored > 0 || (d->end == SCP_CLOSED && d->calling_ae[0] == '\0'))
		return false;
	return d->end != SCP_RELEASED || d->refused > 0 || strstr(d->contexts, "refused") != NULL;
}

static void describe_end(const struct association *a, char ret[STORE_EVENT_MAX])
{
	const struct ipc_ended *d = &a->end;
	const char *how = a->told ? scp_end_name((enum scp_end)d->end) : "its process died";
	size_t n = (size_t)snprintf(ret, STORE_EVENT_MAX, "association from %s", a->host);

	if (d->calling_ae[0] != '\0')
		n += (size_t)snprintf(ret + n, STORE_EVENT_MAX - n, " calling \"%s\"", d->calling_ae);
	if (a->told && d->end == SCP_REJECTED)
		n += (size_t)snprintf(ret + n, STORE_EVENT_MAX - n, " rejected");
	else
		n += (size_t)snprintf(ret + n, STORE_EVENT_MAX - n, " %s: %u objects stored, %u refused, %llu bytes", how,
				      d->stored, d->refused, (unsigned long long)d->bytes);
	if (d->detail[0] != '\0')
		n += (size_t)snprintf(ret + n, STORE_EVENT_MAX - n, ": %s", d->detail);
	if (a->disk_full && n < STORE_EVENT_MAX)
		n += (size_t)snprintf(ret + n, STORE_EVENT_MAX - n,
				      ": answered A700, less than storage.min_free is free under state_dir");
	if (a->lane_full && n < STORE_EVENT_MAX)
		n += (size_t)snprintf(ret + n, STORE_EVENT_MAX - n,
				      ": answered A700, half of limits.queue waits in the slow lane");
	if (d->contexts[0] != '\0' && n < STORE_EVENT_MAX)
		(void)snprintf(ret + n, STORE_EVENT_MAX - n, "; %s", d->contexts);
}

static void record_end(struct keeper *k, const struct association *a)
{
	char text[STORE_EVENT_MAX];
	size_t i;

	describe_end(a, text);
	for (i = 0; i < a->n_study; i++)
		keeper_event(k, a->study[i], EVENT_ASSOCIATION, "%s", text);
	if (a->n_study == 0 && worth_telling(a) && few_refusals(k))
		keeper_event(k, 0, EVENT_NODE, "%s", text);
}

static void end_association(struct keeper *k, struct association *a)
{
	size_t i;

	record_end(k, a);
	audit_received(k, a);
	if (a->told && (a->end.end == SCP_REJECTED || a->end.end == SCP_TLS))
		audit_refused(k, a);

	(void)close(a->sock);
	a->sock = -1;
	a->ended = false;
	if (a->file != 0)
		(void)spool_remove(k->spool, SPOOL_INCOMING, a->file); /* else recovery does */
	for (i = 0; i < a->n_study; i++)
		settle(k, a, a->study[i]);
}

static void send_status(struct association *a, enum ipc_type type, uint64_t file, uint16_t status,
			const int *fd)
{
	union ipc_message m;

	ipc_begin(&m, type, file);
	m.status.status = status;
	/* a child that does not take its answer is dead or deadlocked: its end is noticed by poll */
	if (ipc_send(a->sock, &m, fd, fd != NULL ? 1 : 0) < 0)
		(void)shutdown(a->sock, SHUT_RDWR);
}

/* Not in the transaction: an empty file in incoming/ means nothing. */
static void create_file(struct keeper *k, struct association *a)
{
	CLEANUP(close) int fd = -1;
	uint64_t id = 0;

	if (a->file != 0) {
		log_error("association from=%s asks for a second file; closed", a->host);
		(void)shutdown(a->sock, SHUT_RDWR);
		return;
	}
	if (disk_takes_object(k))
		fd = spool_create(k->spool, &id);
	else
		fd = -ENOSPC;
	if (fd < 0) {
		log_error("no file for an object from=%s: %s; answered A700", a->host, strerror(-fd));
		a->disk_full |= fd == -ENOSPC;
		fd = -1;
		send_status(a, IPC_FILE, 0, STATUS_OUT_OF_RESOURCES, NULL);
		return;
	}
	a->file = id;
	a->since = figures_now();
	send_status(a, IPC_FILE, id, STATUS_SUCCESS, &fd);
}

void intake_receive(struct keeper *k, struct association *a)
{
	int fds[IPC_FDS_MAX];
	union ipc_message m;
	size_t n_fds = 0;
	int r = ipc_receive(a->sock, IPC_ASSOCIATION, &m, fds, &n_fds);

	if (r == -EAGAIN)
		return;
	if (r != 1) {
		if (r < 0)
			log_error("association from=%s broke the channel's rules: %s; closed", a->host, strerror(-r));
		a->ended = true;
		return;
	}
	if (m.h.type == IPC_CREATE) {
		create_file(k, a);
		return;
	}
	if (m.h.type == IPC_COMMITTED) {
		keeper_must(k, store_begin(k->store), "begin");
		commitment_told(k, &m.committed, m.committed.calling_ae);
		keeper_must(k, store_commit(k->store), "commit what an archive told");
		k->stirred = true;
		send_status(a, IPC_ANSWER, m.h.token, STATUS_SUCCESS, NULL);
		return;
	}
	if (m.h.type == IPC_ENDED) {
		a->end = m.ended;
		a->told = true;
		return;
	}
	if (a->file == 0 || m.h.token != a->file || a->answer_due) {
		log_error("association from=%s names a file that it does not hold; closed", a->host);
		a->ended = true;
		return;
	}
	if (m.h.type == IPC_ABANDON) {
		(void)spool_remove(k->spool, SPOOL_INCOMING, a->file);
		a->file = 0;
		return;
	}
	a->stored = m.object;
	a->answer_due = true;
}

/* The same bytes came again: the new file goes, unless the old one has expired or is lost (a disk restored in part). */
static int keep_one_copy(struct keeper *k, int64_t instance, uint64_t file)
{
	uint64_t old = 0;
	int fd, r = store_instance_file(k->store, instance, &old);

	if (r == -ENODATA) /* a later image of its study may be reported together with it again */
		return store_adopt_file(k->store, instance, file, k->now);
	if (r < 0)
		return r;
	fd = spool_read(k->spool, SPOOL_OBJECTS, old);
	if (fd == -ENOENT) {
		log_warning("object=%lld: its file was lost and came again: kept", (long long)instance);
		return store_adopt_file(k->store, instance, file, k->now);
	}
	if (fd >= 0)
		(void)close(fd);
	return spool_remove(k->spool, SPOOL_OBJECTS, file);
}

/* Not keeper_event(): a full disk here is answered A700 like the rest of the intake's transaction. */
static int record_repeat(struct keeper *k, const struct instance *in)
{
	char text[STORE_EVENT_MAX];

	(void)snprintf(text, sizeof(text), "object %lld came again with the same bytes from %s: acknowledged, nothing to do",
		       (long long)in->id, in->peer);
	return store_add_event(k->store, in->study, k->now, EVENT_OBJECT, text);
}

static void fill_instance(struct instance *ret, const struct ipc_object *o, uint64_t file, const char *host)
{
	struct instance in = { .file = file };

	(void)str_copy(in.sop_class, UID_MAX, o->sop_class);
	(void)str_copy(in.sop_uid, UID_MAX, o->sop_uid);
	(void)str_copy(in.study_uid, UID_MAX, o->study_uid);
	(void)str_copy(in.series_uid, UID_MAX, o->series_uid);
	(void)str_copy(in.syntax, UID_MAX, o->syntax);
	(void)str_copy(in.calling_ae, AE_TITLE_MAX, o->calling_ae);
	(void)str_copy(in.called_ae, AE_TITLE_MAX, o->called_ae);
	(void)str_copy(in.peer, sizeof(in.peer), host);
	memcpy(in.digest, o->digest, DIGEST_SIZE);
	in.size = o->size;
	in.state = o->analysed_class ? INSTANCE_READY : INSTANCE_ASIDE;
	*ret = in;
}

/* What we made ourselves and an archive sends back is kept and set aside: analysed, it would make a
 * further report, which would come back. */
static int add_instance(struct keeper *k, struct instance *in, bool *ret_duplicate)
{
	bool ours = false;
	int r = store_is_report(k->store, in->sop_uid, &ours);

	if (r < 0)
		return r;
	if (ours)
		in->state = INSTANCE_ASIDE;
	return store_add_instance(k->store, in, k->now + k->config->settle_max_ms, ret_duplicate);
}

/* Whether it may wait; `arrives`: it comes now, and counts among what its sender sends. */
static int choose_lane(struct keeper *k, const struct ipc_object *o, bool arrives, enum study_lane *ret)
{
	enum fetched fetched;
	int r = store_is_fetched(k->store, o->study_uid, o->calling_ae, &fetched);

	if (r < 0)
		return r;
	if (fetched != FETCHED_NOT)
		*ret = LANE_FETCHED;
	else if (lane_is_old(o->study_date, k->now, k->config->slow_older_days))
		*ret = LANE_OLD;
	else if (arrives && lane_floods(&k->senders, o->calling_ae, k->config->slow_images_per_hour, k->boot))
		*ret = LANE_FLOOD;
	else
		*ret = LANE_NORMAL;
	return 0;
}

int intake_adopt(struct keeper *k, const struct ipc_object *o, uint64_t file, int64_t received)
{
	struct instance in;
	bool duplicate = false;
	int r;

	fill_instance(&in, o, file, "");
	in.received = received;
	r = choose_lane(k, o, false, &in.lane);
	if (r == 0)
		r = add_instance(k, &in, &duplicate);
	return r == 0 && duplicate ? keep_one_copy(k, in.id, file) : r;
}

/* Rename and row of one object; the caller commits. */
static int keep_object(struct keeper *k, struct association *a)
{
	const struct ipc_object *o = &a->stored;
	struct instance in;
	bool duplicate = false;
	int r;

	fill_instance(&in, o, a->file, a->host);
	in.received = k->now;
	in.due = k->now;
	r = choose_lane(k, o, true, &in.lane);
	if (r < 0)
		return r;
	/* a migration must not fill the queue up: then associations are refused, and today's films with them */
	a->put_off = in.lane != LANE_NORMAL && in.state == INSTANCE_READY && k->counts.slow >= (k->config->limits.queue + 1) / 2;
	a->lane_full |= a->put_off;
	if (a->put_off)
		return 0;
	r = spool_move(k->spool, a->file, SPOOL_INCOMING, SPOOL_OBJECTS);
	if (r < 0)
		return r;
	failpoint("intake.renamed");
	r = add_instance(k, &in, &duplicate);
	if (r < 0)
		return r;
	failpoint("intake.inserted");
	a->repeat = duplicate;
	if (!duplicate && in.state == INSTANCE_READY && in.lane == LANE_NORMAL)
		lane_count(&k->senders, o->calling_ae, k->config->slow_images_per_hour, k->boot);
	else if (!duplicate && in.state == INSTANCE_READY)
		k->counts.slow++; /* until it is counted again */
	if (duplicate) {
		r = record_repeat(k, &in);
		if (r < 0)
			return r;
		r = keep_one_copy(k, in.id, a->file);
		if (r < 0)
			return r;
	}
	r = audit_count(k, &in);
	if (r < 0)
		return r;
	log_debug("stored object=%lld study=%lld from=%s size=%llu%s", (long long)in.id,
		  (long long)in.study, a->host, (unsigned long long)o->size, duplicate ? " again" : "");
	if (in.state == INSTANCE_READY) {
		touch_study(k, a, in.study);
		k->stirred = true;
	}
	return 0;
}

static int keep_all(struct keeper *k)
{
	size_t i;
	int r;

	for (i = 0; i < k->config->limits.associations; i++) {
		struct association *a = &k->association[i];

		if (a->sock < 0 || !a->answer_due)
			continue;
		r = keep_object(k, a);
		if (r < 0)
			return r;
	}
	/* renames first, then the rows that rely on them; a failed fsync never happened before this
	 * line is passed: the pages may be gone, so nothing more may be promised by this process */
	r = spool_sync(k->spool);
	if (r < 0)
		fatal(FATAL_IO, "fsync of the spool's folders: %s; nothing unacknowledged is kept, restart recovers",
		      strerror(-r));
	failpoint("intake.synced");
	return store_commit(k->store);
}

void intake_commit(struct keeper *k)
{
	bool any = false;
	int64_t since;
	size_t i;
	int r;

	for (i = 0; i < k->config->limits.associations; i++)
		any |= k->association[i].sock >= 0 && k->association[i].answer_due;
	if (!any)
		return;
	since = figures_now();
	r = store_begin(k->store);
	if (r == 0)
		r = keep_all(k);
	figures_took(k, TELEMETRY_COMMIT, since);
	/* After a failed COMMIT the log may hold it all the same: only recovery can tell, by the rows.  The
	 * files stay, nobody is answered, and the peers keep what they sent. */
	if (r < 0 && r != -ENOSPC)
		fatal(FATAL_IO, "objects not kept: %s (%s); nothing acknowledged, restart recovers", strerror(-r),
		      store_error(k->store));
	if (r < 0) {
		k->stirred = true;
		disk_full(k, "keep what was received");
		log_error("objects not kept: %s (%s); answered A700", strerror(-r), store_error(k->store));
		store_rollback(k->store);
	}
	failpoint("intake.committed");
	for (i = 0; i < k->config->limits.associations; i++) {
		struct association *a = &k->association[i];
		bool kept = r == 0 && !a->put_off;

		if (a->sock < 0 || !a->answer_due)
			continue;
		if (!kept) { /* renamed or not: without a row it is nobody's */
			(void)spool_remove(k->spool, SPOOL_OBJECTS, a->file);
			(void)spool_remove(k->spool, SPOOL_INCOMING, a->file);
		}
		send_status(a, IPC_ANSWER, a->file, kept ? STATUS_SUCCESS : STATUS_OUT_OF_RESOURCES, NULL);
		figures_answered(k, kept ? STATUS_SUCCESS : STATUS_OUT_OF_RESOURCES, a->stored.size, kept && a->repeat, a->since);
		a->answer_due = false;
		a->file = 0;
	}
	failpoint("intake.answered");
}

bool intake_open(struct keeper *k)
{
	const struct ipc_channel *reject;

	return closed_because(k, &reject) == NULL && association_slot(k) != NULL;
}

bool intake_end_quietly(struct keeper *k)
{
	bool all = true;
	size_t i;

	for (i = 0; i < k->config->limits.associations; i++) {
		struct association *a = &k->association[i];

		if (a->sock < 0 || !a->ended)
			continue;
		if (a->n_study == 0 && a->file == 0 && !worth_telling(a))
			end_association(k, a);
		else
			all = false;
	}
	return all;
}

void intake_ends(struct keeper *k)
{
	size_t i;

	for (i = 0; i < k->config->limits.associations; i++) {
		if (k->association[i].sock >= 0 && k->association[i].ended)
			end_association(k, &k->association[i]);
	}
}

void intake_stop(struct keeper *k)
{
	size_t i;

	for (i = 0; i < k->config->limits.associations; i++) {
		if (k->association[i].sock >= 0)
			end_association(k, &k->association[i]);
	}
}
