/* keeper.c: the one process that owns database, spool and schedule.
 *
 * Its life: recover, start the helpers, then turn after turn until SIGTERM.  A turn reads what
 * waits, changes the store in one transaction, makes it durable, and only then speaks.  It never
 * parses DICOM, never talks to the network, and never waits for anybody but the disk.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/mem.h"

#include "model/model.h"

#include "daemon/keeper.h"
#include "daemon/notify.h"
#include "daemon/sandbox.h"

#define COUNTS_EVERY_MS 2000
#define STATUS_EVERY_MS 10000
#define FULL_PAUSE_MS 100
#define TURN_MAX_MS 10000 /* wake up at least this often: clock steps, free space */
#define POLL_MAX (CONFIG_ASSOCIATIONS_MAX + KEEPER_WORKERS_MAX + CONFIG_PEERS_MAX + KEEPER_CONTROL_MAX + \
		  KEEPER_RETIRED_MAX + NOTIFY_MAX + 7)
/* No back-off of ours is longer than these. */
#define STUDY_WAIT_MAX_MS 600000
#define INSTANCE_WAIT_MAX_MS 120000
#define DELIVERY_WAIT_MAX_MS (25ll * 3600 * 1000)
#define CLOCK_LEAP_MS (3600 * 1000)
#define UPKEEP_MS 60000
#define BACKUP_MS (3600 * 1000)
#define FIRST_BACKUP_MS 60000
#define UPKEEP_LOG_BYTES (1 << 20)
#define PARKED_AGAIN_MS (24ll * 3600 * 1000)
#define CLOCK_STEP_MS 5000 /* a wall clock set back by more is noticed */

/* ---- small things ------------------------------------------------------------------------------------ */

bool keeper_must(struct keeper *k, int r, const char *what)
{
	if (r < 0 && k->in_turn && (k->full || r == -ENOSPC || r == -EDQUOT)) {
		if (!k->full)
			disk_full(k, what);
		k->full = true;
		return false;
	}
	if (r < 0)
		fatal(FATAL_IO, "cannot %s: %s (%s); the node stops, restart recovers", what, strerror(-r),
		      store_error(k->store));
	return true;
}

void keeper_event(struct keeper *k, int64_t study, enum event_kind kind, const char *format, ...)
{
	char text[STORE_EVENT_MAX];
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(text, sizeof(text), format, ap); /* cut is fine */
	va_end(ap);
	keeper_must(k, store_add_event(k->store, study, k->now, kind, text), "record an event");
}

int64_t keeper_backoff_ms(int64_t base, int64_t cap, unsigned n)
{
	int64_t pause = base;
	uint32_t jitter = 0;

	while (n-- > 0 && pause < cap)
		pause *= 2;
	if (pause > cap)
		pause = cap;
	if (getrandom(&jitter, sizeof(jitter), 0) != (ssize_t)sizeof(jitter))
		jitter = 0; /* no jitter, no harm */
	return pause / 2 + (int64_t)(jitter % (uint32_t)(pause + 1));
}

void keeper_post(struct keeper *k, struct helper *helper, int sock, const union ipc_message *m,
		 const int *fds, size_t n_fds)
{
	struct outgoing *o = xcalloc(1, sizeof(*o));

	o->helper = helper;
	o->sock = sock;
	o->m = *m;
	o->n_fds = n_fds;
	if (n_fds > 0)
		memcpy(o->fds, fds, n_fds * sizeof(*fds));
	*k->last = o;
	k->last = &o->next;
}

static void close_all(const int *fds, size_t n)
{
	while (n > 0)
		(void)close(fds[--n]);
}

/* `committed`: the turn is durable.  Else only the listener hears its answers, which promise nothing: it waits for them. */
static void flush_posts(struct keeper *k, bool committed)
{
	struct outgoing *o;

	while ((o = k->first) != NULL) {
		k->first = o->next;
		/* a helper that does not take its message is dead or stuck: its end is seen by poll */
		if ((committed || o->helper == &k->receiver) && o->helper->sock == o->sock && o->sock >= 0 &&
		    ipc_send(o->sock, &o->m, o->fds, o->n_fds) < 0 && o->helper->pid > 0)
			(void)kill(o->helper->pid, SIGKILL);
		close_all(o->fds, o->n_fds);
		free(o);
	}
	k->last = &k->first;
}

/* An fsync that failed is never tried again: the pages that it lost are marked clean. */
void keeper_sync(struct keeper *k)
{
	int r = spool_sync(k->spool);

	if (r < 0)
		fatal(FATAL_IO, "fsync of the spool's folders: %s; the node stops, restart recovers", strerror(-r));
}

/* ---- helpers ------------------------------------------------------------------------------------------- */

static void set_helper(struct keeper *k, struct helper *h)
{
	h->argv[0] = "-c";
	h->argv[1] = k->config_path;
	h->reach = (struct helper_reach){ .limited = true, .reads = { k->running } };
}

void keeper_reach_tls(const struct keeper *k, struct helper_reach *reach)
{
	size_t i, n = 0;

	while (reach->reads[n] != NULL)
		n++;
	for (i = 0; i < CREDENTIAL_FILES; i++)
		if (k->tls.path[i] != NULL)
			reach->reads[n++] = k->tls.path[i];
}

_Static_assert(HELPER_PORTS_MAX >= 2 * CONFIG_LISTEN_MAX && HELPER_READS_MAX >= 3 + CREDENTIAL_FILES, "a receiver's reach");

void keeper_helpers(struct keeper *k)
{
	size_t i;

	set_helper(k, &k->receiver);
	(void)snprintf(k->n_sockets, sizeof(k->n_sockets), "%zu", k->n_listen_fds - k->n_tls_fds);
	(void)snprintf(k->n_tls_sockets, sizeof(k->n_tls_sockets), "%zu", k->n_tls_fds);
	k->receiver.argv[2] = "-s";
	k->receiver.argv[3] = k->n_sockets;
	k->receiver.argv[4] = "-t";
	k->receiver.argv[5] = k->n_tls_sockets;
	for (i = 0; i < k->config->n_listen; i++)
		k->receiver.reach.binds[i] = k->config->listen[i].port;
	for (i = 0; i < k->config->tls.n_listen; i++)
		k->receiver.reach.binds[k->config->n_listen + i] = k->config->tls.listen[i].port;
	keeper_reach_tls(k, &k->receiver.reach);
	set_helper(k, &k->image);
	k->image.reach.reads[1] = KEEPER_FONT_CACHE;
	set_helper(k, &k->export);
}

/* Its folder is made here, so that it may be removed at any time; without it every worker computes for itself. */
int keeper_start_infer(struct keeper *k, struct helper *h, const char *model, struct err *e)
{
	set_helper(k, h);
	if (snprintf(k->cache, sizeof(k->cache), "%s/cache", k->config->state_dir) < (int)sizeof(k->cache)) {
		(void)mkdir(k->cache, 0700); /* it is there, or its user says why not */
		h->argv[2] = "--";
		h->argv[3] = k->cache;
		h->reach.cache = k->cache;
	}
	h->reach.reads[1] = model;
	return helper_start(h, NULL, 0, k->boot, e);
}

static void init_helpers(struct keeper *k)
{
	size_t i;

	helper_init(&k->receiver, "carzerod-receive");
	helper_init(&k->image, "carzerod-image");
	helper_init(&k->export, "carzerod-export");
	for (i = 0; i < KEEPER_WORKERS_MAX; i++)
		helper_init(&k->infer[i], "carzerod-infer");
	for (i = 0; i < KEEPER_RETIRED_MAX; i++)
		helper_init(&k->retired[i], "carzerod-receive");
	helper_init(&k->trial, "carzerod-infer");
	keeper_helpers(k);
	delivery_open(k);
	notices_open(k);
	audit_open(k);
}

/* A receiver has opened them; from now on they outlive it, and peers wait in their backlog.  Those for TLS stand last. */
static void take_sockets(struct keeper *k, const int *fds, size_t n, size_t n_tls)
{
	size_t plain = n - n_tls, at = k->n_listen_fds - k->n_tls_fds;

	if (n == 0)
		return;
	if (k->n_listen_fds + n > KEEPER_SOCKETS_MAX)
		fatal(FATAL_CONFIG, "more than %d listening sockets", KEEPER_SOCKETS_MAX);
	memmove(k->listen_fd + at + plain, k->listen_fd + at, k->n_tls_fds * sizeof(*fds));
	memcpy(k->listen_fd + at, fds, plain * sizeof(*fds));
	memcpy(k->listen_fd + k->n_listen_fds + plain, fds + plain, n_tls * sizeof(*fds));
	k->n_listen_fds += n;
	k->n_tls_fds += n_tls;
	keeper_helpers(k);
}

bool keeper_has(struct keeper *k, struct helper *h, const int *fds, size_t n_fds)
{
	struct err e;

	if (helper_may_start(h, k->boot) && helper_start(h, fds, n_fds, k->boot, &e) < 0) {
		log_error("%s; tried again", e.text);
		helper_ended(h, k->boot);
	}
	return h->pid != 0 && h->ready;
}

static void start_worker(struct keeper *k, struct helper *h)
{
	struct err e;

	if (!helper_may_start(h, k->boot))
		return;
	if (keeper_start_infer(k, h, k->config->model, &e) < 0) {
		log_error("%s; tried again", e.text);
		helper_ended(h, k->boot);
	}
}

static void start_helpers(struct keeper *k)
{
	int fds[2];
	size_t i;

	if (k->stopping)
		return;
	(void)keeper_has(k, &k->image, NULL, 0);
	for (i = 0; i < k->config->workers; i++)
		start_worker(k, &k->infer[i]);
	(void)keeper_has(k, &k->receiver, k->listen_fd, k->n_listen_fds);
	if (figures_export(k, fds) > 0)
		(void)keeper_has(k, &k->export, fds, ARRAY_SIZE(fds));
}

/* What an ended helper was doing goes back before it is started again. */
static void helper_lost(struct keeper *k, struct helper *h)
{
	size_t i;

	helper_ended(h, k->boot);
	if (h == &k->trial)
		reload_trial_lost(k);
	if (h == &k->image) {
		analysis_image_lost(k);
		reporting_image_lost(k);
	}
	for (i = 0; i < k->config->workers; i++) {
		if (h == &k->infer[i])
			analysis_worker_lost(k, i);
	}
	for (i = 0; i < k->config->n_peers; i++) {
		if (h == &k->courier[i].helper)
			delivery_lost(k, &k->courier[i]);
	}
	for (i = 0; i < k->config->n_notify; i++) {
		if (h == &k->hook[i].helper)
			notices_lost(k, &k->hook[i]);
	}
	if (h == &k->audit.helper)
		audit_lost(k);
}

static struct helper *helper_of(struct keeper *k, pid_t pid)
{
	size_t i;

	if (k->receiver.pid == pid)
		return &k->receiver;
	if (k->image.pid == pid)
		return &k->image;
	if (k->export.pid == pid)
		return &k->export;
	if (k->maint.pid == pid)
		return &k->maint;
	if (k->trial.pid == pid)
		return &k->trial;
	for (i = 0; i < KEEPER_RETIRED_MAX; i++) {
		if (k->retired[i].pid == pid)
			return &k->retired[i];
	}
	for (i = 0; i < k->config->workers; i++) {
		if (k->infer[i].pid == pid)
			return &k->infer[i];
	}
	for (i = 0; i < k->config->n_peers; i++) {
		if (k->courier[i].helper.pid == pid)
			return &k->courier[i].helper;
	}
	for (i = 0; i < k->config->n_notify; i++) {
		if (k->hook[i].helper.pid == pid)
			return &k->hook[i].helper;
	}
	if (k->audit.helper.pid == pid)
		return &k->audit.helper;
	return NULL;
}

static void reap(struct keeper *k)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		struct helper *h = helper_of(k, pid);

		if (h == NULL)
			continue; /* one that we gave up before */
		if (h == &k->maint) { /* done, or it has said itself why not */
			h->pid = 0;
			helper_ended(h, k->boot);
			continue;
		}
		/* the receiver may be up first; without a model nothing of value would follow */
		if (WIFEXITED(status) && WEXITSTATUS(status) == FATAL_CONFIG && h != &k->trial &&
		    (!k->announced || !k->model.known))
			fatal(FATAL_CONFIG, "%s cannot start with this configuration (its line above says why)", h->program);
		if (WIFSIGNALED(status))
			log_error("%s ended by signal %d (%s); started again", h->program, WTERMSIG(status),
				  strsignal(WTERMSIG(status)));
		else if (WEXITSTATUS(status) != 0)
			log_error("%s ended with code %d%s; started again", h->program, WEXITSTATUS(status),
				  sandbox_code_text(WEXITSTATUS(status)));
		if (WIFSIGNALED(status) || WEXITSTATUS(status) != 0)
			figures_death(k, WIFSIGNALED(status) ? (unsigned)WTERMSIG(status) : 0);
		h->pid = 0; /* reaped: the number may be somebody else's by now */
		helper_lost(k, h);
	}
}

/* ---- messages from helpers ------------------------------------------------------------------------------ */

/* A list whose calibrations are all for other weights reports raw scores only: say so once. */
static void warn_uncalibrated(const struct keeper *k)
{
	unsigned calibrated = 0, apply = 0;
	size_t i;

	for (i = 0; i < k->findings->n; i++) {
		const struct finding *f = &k->findings->finding[i];

		calibrated += f->calibration.present;
		apply += !isnan(finding_probability(f, 0.0f, k->model.family, recipe_name(k->config->recipe),
						    precision_name(k->config->precision)));
	}
	if (calibrated > 0 && apply == 0)
		log_warning("no calibration of the findings list is for this model (family \"%s\", recipe %s, precision %s): "
			    "raw scores only, no probability, no decision, no urgency",
			    k->model.family, recipe_name(k->config->recipe), precision_name(k->config->precision));
}

void keeper_model(struct keeper *k, const struct ipc_model *m)
{
	k->model.known = true;
	k->model.domain = m->domain;
	k->model.side = m->side;
	k->model.crop = m->crop;
	k->model.map_side = m->map_side;
	(void)str_copy(k->model.name, sizeof(k->model.name), m->name);
	(void)str_copy(k->model.family, sizeof(k->model.family), m->family);
	memcpy(k->model.weights, m->weights, DIGEST_SIZE);
	log_info("model \"%s\" ready: %u findings, domain=%s", m->name, m->n_findings,
		 m->domain == 2 ? "clinical" : m->domain == 1 ? "phantom" : "untrained");
	if (m->domain != MODEL_CLINICAL)
		log_warning(MODEL_STAMP ": %s", k->config->allow_out_of_domain ?
			    "allow_out_of_domain is set, so it scores and reports every image, and stamps it" :
			    "only images that are tagged as Quality Control Image (0028,0300) are reported");
	warn_uncalibrated(k);
	figures_model(k);
}

static void take_model(struct keeper *k, size_t worker, const struct ipc_model *m)
{
	if (memcmp(m->findings, k->findings->digest, DIGEST_SIZE) != 0 || m->n_findings != k->findings->n)
		fatal(FATAL_TEMPORARY, "the findings list changed while the node started; starting again");
	if (k->model.known && memcmp(k->model.weights, m->weights, DIGEST_SIZE) != 0)
		fatal(FATAL_TEMPORARY, "the model bundle changed under the running node; starting again");
	k->infer[worker].ready = true;
	if (!k->model.known)
		keeper_model(k, m);
}

/* One message of one helper; false when its channel has ended. */
static bool receive_from(struct keeper *k, struct helper *h, enum ipc_role role, size_t index)
{
	int fds[IPC_FDS_MAX];
	union ipc_message m;
	size_t n_fds = 0;
	int r = ipc_receive(h->sock, role, &m, fds, &n_fds);

	if (r == -EAGAIN)
		return true;
	if (r < 0)
		log_error("%s broke the channel's rules: %s; killed", h->program, strerror(-r));
	if (r != 1)
		return false;
	switch ((enum ipc_type)m.h.type) {
	case IPC_LISTENING:
		take_sockets(k, fds, n_fds, m.listening.n_tls < n_fds ? m.listening.n_tls : n_fds);
		intake_listener(k, h, &m);
		break;
	case IPC_ADMIT:
		intake_listener(k, h, &m);
		break;
	case IPC_READY:
		h->ready = true;
		break;
	case IPC_DECODED:
		analysis_decoded(k, &m.decoded);
		break;
	case IPC_COMPOSED:
		reporting_composed(k, &m.composed);
		break;
	case IPC_DIED:
		if (!analysis_died(k, &m.died))
			(void)reporting_died(k, &m.died); /* neither: it came after its deadline */
		break;
	case IPC_MODEL:
		if (h == &k->trial)
			reload_model(k, &m.model);
		else
			take_model(k, index, &m.model);
		break;
	case IPC_SCORED:
		analysis_scored(k, index, &m.scored);
		break;
	case IPC_CHOSE:
		delivery_chose(k, &k->courier[index], &m.chose);
		break;
	case IPC_ASKED:
		commitment_asked(k, &k->courier[index], &m.sent);
		break;
	case IPC_COMMITTED:
		commitment_told(k, &m.committed, k->courier[index].peer->ae_title);
		break;
	case IPC_TOLD:
		if (h == &k->audit.helper)
			audit_told(k, &m.told);
		else
			notices_told(k, &k->hook[index], &m.told);
		break;
	case IPC_SENT:
		delivery_sent(k, &k->courier[index], &m.sent);
		break;
	default:
		break; /* ipc_check lets nothing else through */
	}
	return true;
}

/* ---- the turn -------------------------------------------------------------------------------------------- */

enum source_kind { FROM_SIGNAL, FROM_CONTROL, FROM_CLIENT, FROM_ASSOCIATION, FROM_HELPER };

struct source {
	enum source_kind kind;
	size_t index;
	struct helper *helper;
	enum ipc_role role;
};

struct turn {
	struct pollfd p[POLL_MAX];
	struct source source[POLL_MAX];
	size_t n;
};

static void watch(struct turn *t, int fd, struct source source)
{
	if (fd < 0 || t->n == POLL_MAX)
		return;
	t->p[t->n] = (struct pollfd){ .fd = fd, .events = POLLIN };
	t->source[t->n++] = source;
}

static void watch_all(struct keeper *k, struct turn *t, int signals)
{
	size_t i;

	t->n = 0;
	watch(t, signals, (struct source){ .kind = FROM_SIGNAL });
	watch(t, k->receiver.sock, (struct source){ FROM_HELPER, 0, &k->receiver, IPC_RECEIVER });
	watch(t, k->trial.sock, (struct source){ FROM_HELPER, 0, &k->trial, IPC_INFER });
	for (i = 0; i < KEEPER_RETIRED_MAX; i++)
		watch(t, k->retired[i].sock, (struct source){ FROM_HELPER, 0, &k->retired[i], IPC_RECEIVER });
	watch(t, k->image.sock, (struct source){ FROM_HELPER, 0, &k->image, IPC_IMAGE });
	watch(t, k->export.sock, (struct source){ FROM_HELPER, 0, &k->export, IPC_EXPORT });
	for (i = 0; i < k->config->workers; i++)
		watch(t, k->infer[i].sock, (struct source){ FROM_HELPER, i, &k->infer[i], IPC_INFER });
	for (i = 0; i < k->config->n_peers; i++)
		watch(t, k->courier[i].helper.sock, (struct source){ FROM_HELPER, i, &k->courier[i].helper, IPC_SEND });
	for (i = 0; i < k->config->n_notify; i++)
		watch(t, k->hook[i].helper.sock, (struct source){ FROM_HELPER, i, &k->hook[i].helper, IPC_HOOK });
	watch(t, k->audit.helper.sock, (struct source){ FROM_HELPER, 0, &k->audit.helper, IPC_HOOK });
	for (i = 0; i < k->config->limits.associations; i++)
		watch(t, k->association[i].sock, (struct source){ .kind = FROM_ASSOCIATION, .index = i });
	if (k->boot >= k->control_rest)
		watch(t, k->control, (struct source){ .kind = FROM_CONTROL });
	for (i = 0; i < KEEPER_CONTROL_MAX; i++)
		watch(t, k->control_client[i], (struct source){ .kind = FROM_CLIENT, .index = i });
}

static void refresh_counts(struct keeper *k)
{
	if (k->boot - k->counts_at < COUNTS_EVERY_MS && k->counts_at != 0)
		return;
	k->counts_at = k->boot;
	keeper_must(k, store_counts(k->store, &k->counts), "count");
	disk_look(k);
}

static void sooner(int64_t *next, int64_t at)
{
	if (at < *next)
		*next = at;
}

/* ms until something is due without any message. */
static bool idle_jobs(const struct keeper *k)
{
	size_t i;

	for (i = 0; i < KEEPER_JOBS_MAX; i++) {
		if (k->job[i].stage != JOB_FREE)
			return false;
	}
	return true;
}

static int time_to_sleep(struct keeper *k, int64_t watchdog)
{
	int64_t instance, study, delivery, next = k->now + TURN_MAX_MS;
	size_t i;

	keeper_must(k, store_next_due(k->store, &instance, &study, &delivery), "ask what is due");
	if (k->model.known && k->image.ready) {
		bool slot = false;

		for (i = 0; i < k->config->workers + KEEPER_DECODE_AHEAD; i++)
			slot |= k->job[i].stage == JOB_FREE;
		slot &= k->n_suspects == 0 || idle_jobs(k);
		if (slot)
			sooner(&next, instance);
		for (i = 0; i < KEEPER_COMPOSE_MAX && !reporting_held(k); i++) {
			if (!k->composition[i].used)
				sooner(&next, study);
		}
	}
	sooner(&next, delivery_next(k));
	sooner(&next, figures_next(k));
	sooner(&next, notices_next(k));
	sooner(&next, audit_next(k));
	if (k->image.pid == 0)
		sooner(&next, k->now + k->image.not_before - k->boot);
	if (k->export.pid == 0 && k->metrics_fd >= 0)
		sooner(&next, k->now + k->export.not_before - k->boot);
	if (k->receiver.pid == 0)
		sooner(&next, k->now + k->receiver.not_before - k->boot);
	for (i = 0; i < k->config->workers; i++) {
		if (k->infer[i].pid == 0)
			sooner(&next, k->now + k->infer[i].not_before - k->boot);
	}
	for (i = 0; i < KEEPER_JOBS_MAX; i++) {
		if (k->job[i].stage != JOB_FREE && k->job[i].stage != JOB_WAIT && k->job[i].deadline != INT64_MAX)
			sooner(&next, k->now + k->job[i].deadline - k->boot);
	}
	sooner(&next, k->now + k->retention_at - k->boot);
	if (watchdog > 0)
		sooner(&next, k->now + watchdog);
	if (next <= k->now || reload_due(k))
		return 0;
	return (int)(next - k->now);
}

/* Of a brief turn nothing but the figures' next page can have become due earlier. */
static int time_to_rest(const struct keeper *k)
{
	int64_t left = k->wake - clock_boot_ms();
	int64_t page = figures_next(k);

	if (page != INT64_MAX && page - k->now < left)
		left = page - k->now;
	return left > 0 ? (int)left : 0;
}

static void take_signals(struct keeper *k, int signals)
{
	struct signalfd_siginfo info;

	while (read(signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT)
			k->stopping = true;
		if (info.ssi_signo == SIGHUP)
			k->reload_wanted = true;
	}
}

/* The listener asks for an association that may come: the answer promises nothing and leaves no trace in the store, and
 * somebody waits for it.  False: its message is one for the turn. */
static bool answer_listener(struct keeper *k, const struct pollfd *p, const struct source *s)
{
	if (s->kind != FROM_HELPER || s->helper != &k->receiver || s->helper->sock != p->fd || !intake_open(k))
		return false;
	if (!receive_from(k, s->helper, s->role, s->index) && s->helper->pid > 0)
		(void)kill(s->helper->pid, SIGKILL); /* reaped in this or the next turn */
	flush_posts(k, true); /* the answer alone: the last turn has sent all of its own */
	return true;
}

/* Messages first that need no transaction of the turn's own.  True: there were no others. */
static bool receive_intake(struct keeper *k, struct turn *t)
{
	bool others = false, any = false;
	size_t i;

	for (i = 0; i < t->n; i++) {
		if (t->p[i].revents == 0)
			continue;
		any = true;
		if (t->source[i].kind == FROM_ASSOCIATION)
			intake_receive(k, &k->association[t->source[i].index]);
		else if (answer_listener(k, &t->p[i], &t->source[i]))
			t->p[i].revents = 0;
		else
			others = true;
	}
	intake_commit(k);
	return any && !others;
}

static void receive_helpers(struct keeper *k, const struct turn *t)
{
	size_t i;

	for (i = 0; i < t->n; i++) {
		const struct source *s = &t->source[i];

		if (t->p[i].revents == 0 || s->kind != FROM_HELPER || s->helper->sock != t->p[i].fd)
			continue;
		if (!receive_from(k, s->helper, s->role, s->index) && s->helper->pid > 0)
			(void)kill(s->helper->pid, SIGKILL); /* reaped in this or the next turn */
	}
}

static void serve_control(struct keeper *k, const struct turn *t)
{
	size_t i;

	for (i = 0; i < t->n; i++) {
		if (t->p[i].revents == 0)
			continue;
		if (t->source[i].kind == FROM_CONTROL)
			control_accept(k);
		else if (t->source[i].kind == FROM_CLIENT)
			control_serve(k, t->source[i].index);
	}
}

void keeper_clamp(struct keeper *k)
{
	int64_t settle = k->config->settle_max_ms > STUDY_WAIT_MAX_MS ? k->config->settle_max_ms : STUDY_WAIT_MAX_MS;

	keeper_must(k, store_clamp(k->store, k->now + settle, k->now + INSTANCE_WAIT_MAX_MS, k->now + DELIVERY_WAIT_MAX_MS),
		    "bring what waits nearer");
}

/* Moments that were written down before the clock was set back would keep work waiting for the difference. */
static void notice_clock(struct keeper *k)
{
	int64_t gap = k->now - k->boot;

	if (gap < k->clock_gap - CLOCK_STEP_MS) {
		log_warning("the clock went back by %lld s: what waits is due again at the latest in its usual time",
			    (long long)((k->clock_gap - gap) / 1000));
		keeper_clamp(k);
	} else if (gap > k->clock_gap + CLOCK_STEP_MS) {
		log_warning("the clock went ahead by %lld s", (long long)((gap - k->clock_gap) / 1000));
		if (gap > k->clock_gap + CLOCK_LEAP_MS) /* no age can be trusted now */
			k->retention_hold = k->boot + RETENTION_HOLD_MS;
	}
	k->clock_steps += gap < k->clock_gap - CLOCK_STEP_MS || gap > k->clock_gap + CLOCK_STEP_MS;
	k->clock_gap = gap;
}

/* The turn could not be written: nothing of it has been said to anybody, and nothing of it happened.  What this and
 * earlier turns have under way is forgotten and its claims go back, uncounted, as soon as the disk takes it; answers
 * of workers that come then fit no job.  The associations are not concerned: they have transactions of their own. */
static void throw_away(struct keeper *k)
{
	store_rollback(k->store);
	k->in_turn = false;
	flush_posts(k, false);
	control_tell(k, false);
	analysis_forget(k);
	reporting_forget(k);
	delivery_forget(k);
	notices_forget(k);
	audit_forget(k);
	k->give_back = true;
	(void)poll(NULL, 0, FULL_PAUSE_MS); /* haste makes no space */
}

/* An hourly copy of the database, by a process of its own. */
static void start_backup(struct keeper *k)
{
	struct err e;

	if (k->boot < k->backup_at || k->maint.pid > 0)
		return;
	k->backup_at = k->boot + BACKUP_MS;
	helper_init(&k->maint, "carzerod-maint");
	k->maint.argv[0] = "-c";
	k->maint.argv[1] = k->config_path;
	k->maint.argv[2] = "--";
	k->maint.argv[3] = "backup";
	if (helper_start(&k->maint, NULL, 0, k->boot, &e) < 0)
		log_error("backup: %s; tried again in an hour", e.text);
}

static bool idle(const struct keeper *k)
{
	size_t i;

	if (!idle_jobs(k))
		return false;
	for (i = 0; i < k->config->limits.associations; i++) {
		if (k->association[i].sock >= 0)
			return false;
	}
	return true;
}

/* Every minute, between turns: the log goes back into the database while nobody waits, and a checkpoint that cannot be
 * made is told of before the disk is full of log. */
static void upkeep(struct keeper *k)
{
	unsigned failures;

	if (k->boot < k->upkeep_at)
		return;
	k->upkeep_at = k->boot + UPKEEP_MS;
	if (idle(k) && store_log_bytes(k->store) > UPKEEP_LOG_BYTES)
		(void)store_shorten_log(k->store); /* counted below when it fails */
	failures = store_checkpoint_failures(k->store);
	if (failures > 0 && k->boot >= k->log_told) {
		log_warning("the database's log cannot be written back (%u times: %s); it has %llu MiB", failures,
			    store_error(k->store), (unsigned long long)store_log_bytes(k->store) >> 20);
		k->log_told = k->boot + (failures < 60 ? failures : 60) * UPKEEP_MS;
	}
}

/* Once an hour: what people may have mended meanwhile. */
static void retry_parked(struct keeper *k)
{
	unsigned n = 0;

	if (k->boot < k->parked_at)
		return;
	k->parked_at = k->boot + PARKED_AGAIN_MS / 24;
	keeper_must(k, store_retry_parked(k->store, k->now - PARKED_AGAIN_MS, k->now, &n), "try parked studies again");
	if (n > 0)
		log_info("%u parked studies are tried again", n);
}

/* An association came, asked for a file, stored what nobody analyses, or ended without a word: nothing else can have
 * become due by that, so the store need not be asked a dozen times what there is to do. */
static bool brief(struct keeper *k, bool intake_only)
{
	return intake_end_quietly(k) && intake_only && !k->stirred && k->boot < k->wake && !k->give_back && !k->stopping &&
	       !reload_due(k);
}

static void turn(struct keeper *k, struct turn *t, int signals, int64_t watchdog)
{
	bool intake_only;

	watch_all(k, t, signals);
	if (k->wake == 0) /* the last turn was a whole one */
		k->wake = clock_boot_ms() + time_to_sleep(k, watchdog);
	if (poll(t->p, t->n, time_to_rest(k)) < 0 && errno != EINTR)
		fatal(FATAL_OS, "poll: %s", strerror(errno));
	k->now = clock_wall_ms();
	k->boot = clock_boot_ms();
	take_signals(k, signals);
	refresh_counts(k);
	intake_watch_certificates(k);
	k->stirred = false;
	intake_only = receive_intake(k, t);
	if (brief(k, intake_only)) {
		figures_publish(k);
		return;
	}
	k->wake = 0;

	k->full = false;
	k->in_turn = true;
	keeper_must(k, store_begin(k->store), "begin a turn");
	if (k->full) { /* not even that: what waits in the channels waits */
		throw_away(k);
		return;
	}
	if (k->give_back) {
		keeper_must(k, store_release(k->store, k->now), "give claims back");
		k->give_back = k->full;
	}
	notice_clock(k);
	audit_begin(k);
	reload_apply(k); /* nobody's message of this turn is read yet, and nothing is posted */
	if (k->reload_wanted)
		reload_begin(k);
	reload_deadline(k);
	intake_ends(k);
	receive_helpers(k, t);
	reap(k);
	analysis_deadlines(k);
	reporting_deadlines(k);
	delivery_deadlines(k);
	notices_deadlines(k);
	audit_deadline(k);
	analysis_dispatch(k);
	reporting_dispatch(k);
	delivery_dispatch(k);
	retention_turn(k);
	retry_parked(k);
	notices_dispatch(k);
	serve_control(k, t);
	audit_dispatch(k); /* what this turn has recorded goes along */
	/* report files are renamed in this turn: directories before rows, rows before words */
	keeper_sync(k);
	failpoint("keeper.synced");
	if (!k->full)
		keeper_must(k, store_commit(k->store), "commit a turn");
	if (k->full) {
		throw_away(k);
		return;
	}
	k->in_turn = false;
	failpoint("keeper.committed");
	flush_posts(k, true);
	failpoint("keeper.posted");
	control_tell(k, true);
	start_helpers(k);
	figures_publish(k);
	upkeep(k);
	start_backup(k);
}

static void tell_manager(struct keeper *k, int64_t *last)
{
	uint64_t waiting = k->counts.instances[INSTANCE_READY] + k->counts.instances[INSTANCE_CLAIMED];

	if (!k->announced && k->receiver.ready) {
		k->announced = true;
		notify_ready();
		log_info("ready: receiving as \"%s\"", k->config->ae_title);
		*last = 0;
	}
	if (k->boot - *last < STATUS_EVERY_MS && *last != 0)
		return;
	*last = k->boot;
	notify_status("%s; %llu images waiting (%llu in the slow lane), %llu deliveries waiting, %llu parked, %llu quarantined",
		      k->model.known ? "receiving and analysing" : "receiving, model loading",
		      (unsigned long long)waiting, (unsigned long long)k->counts.slow,
		      (unsigned long long)(k->counts.deliveries[DELIVERY_QUEUED] + k->counts.deliveries[DELIVERY_SENDING]),
		      (unsigned long long)k->counts.deliveries[DELIVERY_PARKED],
		      (unsigned long long)k->counts.instances[INSTANCE_QUARANTINED]);
}

/* Work under way goes back uncounted; helpers and associations end; the peers keep what was not acknowledged. */
static void stop(struct keeper *k)
{
	size_t i;

	notify_stopping();
	log_info("stopping");
	keeper_must(k, store_begin(k->store), "begin the last turn");
	intake_stop(k);
	analysis_stop(k, "the node stopped");
	reporting_stop(k, "the node stopped");
	delivery_stop(k);
	figures_stop(k);
	audit_end(k);
	keeper_sync(k);
	keeper_must(k, store_commit(k->store), "commit the last turn");
	recovery_end(k);
	helper_ended(&k->receiver, k->boot);
	for (i = 0; i < KEEPER_RETIRED_MAX; i++)
		helper_ended(&k->retired[i], k->boot);
	helper_ended(&k->trial, k->boot);
	helper_ended(&k->image, k->boot);
	helper_ended(&k->export, k->boot);
	helper_ended(&k->maint, k->boot);
	for (i = 0; i < k->config->workers; i++)
		helper_ended(&k->infer[i], k->boot);
	for (i = 0; i < k->config->n_peers; i++)
		helper_ended(&k->courier[i].helper, k->boot);
	for (i = 0; i < k->config->n_notify; i++)
		helper_ended(&k->hook[i].helper, k->boot);
	helper_ended(&k->audit.helper, k->boot);
}

static int open_signals(void)
{
	sigset_t mask;
	int fd;

	(void)sigemptyset(&mask);
	(void)sigaddset(&mask, SIGTERM);
	(void)sigaddset(&mask, SIGINT);
	(void)sigaddset(&mask, SIGHUP);
	(void)sigaddset(&mask, SIGCHLD);
	(void)sigprocmask(SIG_BLOCK, &mask, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		fatal(FATAL_OS, "signalfd: %s", strerror(errno));
	return fd;
}

int keeper_run(struct keeper *k)
{
	int64_t watchdog = notify_watchdog_interval_ms(), last_status = 0;
	struct turn *t = xcalloc(1, sizeof(*t));
	int signals = open_signals();
	size_t i;

	k->last = &k->first;
	k->association = xcalloc(k->config->limits.associations, sizeof(*k->association));
	for (i = 0; i < k->config->limits.associations; i++)
		k->association[i].sock = -1;
	for (i = 0; i < KEEPER_JOBS_MAX; i++)
		k->job[i].square = -1;
	k->started = clock_boot_ms();
	recovery_run(k);
	if (k->rebuild) {
		recovery_end(k);
		return 0;
	}
	figures_open(k);
	disk_open(k);
	control_open(k);
	init_helpers(k);
	k->boot = clock_boot_ms();
	k->clock_gap = clock_wall_ms() - k->boot;
	k->backup_at = k->boot + FIRST_BACKUP_MS;
	start_helpers(k);
	while (!k->stopping) {
		turn(k, t, signals, watchdog);
		tell_manager(k, &last_status);
		if (watchdog > 0)
			notify_watchdog();
	}
	stop(k);
	(void)close(signals);
	free(t);
	return 0;
}
