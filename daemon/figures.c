/* figures.c: what the node counts about itself: telemetry for carzerod-export, and the drift monitor.
 *
 * Rooms of the keeper say what happened; once a second the figures go to the page that carzerod-export
 * reads (telemetry.h).  The process runs only when `metrics` is configured; the drift monitor always.
 *
 * A watcher is never a reason to stop: what fails here is logged and the node goes on.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/log.h"
#include "base/mem.h"

#include "daemon/figures.h"
#include "daemon/keeper.h"

#define PUBLISH_EVERY_MS 1000
#define BACKLOG 16
#define SAVE_EVERY 50 /* images of a source between two savings of its drift state */

struct figures {
	struct telemetry t;
	struct telemetry_page *page; /* NULL: nobody reads */
	int page_fd;
	struct drift *drift;	     /* NULL until a model is known */
	uint8_t key[DIGEST_SIZE];
	unsigned unsaved[DRIFT_SOURCES_MAX];
	int64_t published;	     /* boot ms */
	bool behind;		     /* a turn came too soon after it to publish again */
};

int64_t figures_now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static int listen_unix(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct stat st;

	if (!str_copy(sa.sun_path, sizeof(sa.sun_path), path))
		fatal(FATAL_CONFIG, "metrics: %s: too long for a socket's name (%zu bytes)", path, sizeof(sa.sun_path) - 1);
	if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode))
		(void)unlink(path); /* of the one before us */
	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || chmod(path, 0660) < 0 || listen(fd, BACKLOG) < 0)
		fatal(FATAL_CONFIG, "metrics: %s: %s", path, strerror(errno));
	return fd;
}

static int listen_tcp(const struct listen_address *a)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(a->port) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(a->port) };
	bool is_v4 = inet_pton(AF_INET, a->host, &v4.sin_addr) == 1;
	int fd = socket(is_v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;

	if (!is_v4 && inet_pton(AF_INET6, a->host, &v6.sin6_addr) != 1)
		fatal(FATAL_CONFIG, "metrics: \"%s\" is no numeric address", a->host);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    (is_v4 ? bind(fd, (struct sockaddr *)&v4, sizeof(v4)) : bind(fd, (struct sockaddr *)&v6, sizeof(v6))) < 0 ||
	    listen(fd, BACKLOG) < 0)
		fatal(FATAL_CONFIG, "metrics: %s port %u: %s", a->host, a->port, strerror(errno));
	return fd;
}

/* Before the keeper's walls close: it opens no socket afterwards, and carzerod-export never does. */
int figures_listen(const struct config *c)
{
	if (!c->metrics.wanted)
		return -1;
	return c->metrics.path != NULL ? listen_unix(c->metrics.path) : listen_tcp(&c->metrics.at);
}

static void name_findings(const struct keeper *k, struct figures *f)
{
	size_t i;

	(void)str_copy(f->t.precision, sizeof(f->t.precision), precision_name(k->config->precision));
	f->t.n_findings = k->findings->n;
	for (i = 0; i < k->findings->n; i++)
		(void)str_copy(f->t.finding[i], FINDING_ID_MAX, k->findings->finding[i].id);
}

/* What was counted of a destination stays with its AE title. */
void figures_reload(struct keeper *k, const struct config *old)
{
	struct figures *f = k->figures;
	CLEANUP(free) struct telemetry_destination *was = xcalloc(CONFIG_PEERS_MAX, sizeof(*was));
	size_t i, j;

	memcpy(was, f->t.destination, CONFIG_PEERS_MAX * sizeof(*was));
	memset(f->t.destination, 0, CONFIG_PEERS_MAX * sizeof(*was));
	for (i = 0; i < k->config->n_peers; i++) {
		for (j = 0; j < old->n_peers; j++) {
			if (strcmp(old->peers[j].ae_title, k->config->peers[i].ae_title) == 0)
				f->t.destination[i] = was[j];
		}
	}
	name_findings(k, f);
	drift_free(f->drift);
	f->drift = NULL;
	memset(f->unsaved, 0, sizeof(f->unsaved));
}

void figures_open(struct keeper *k)
{
	struct figures *f = xcalloc(1, sizeof(*f));
	int r;

	k->figures = f;
	f->page_fd = -1;
	f->t.started = k->started;
	(void)str_copy(f->t.version, sizeof(f->t.version), PACKAGE_VERSION);
	name_findings(k, f);
	if (k->metrics_fd < 0)
		return;
	r = telemetry_page_new(&f->page, &f->page_fd);
	if (r < 0)
		log_error("metrics: no memory file: %s; the node goes on without", strerror(-r));
}

size_t figures_export(const struct keeper *k, int ret_fds[2])
{
	ret_fds[0] = k->metrics_fd;
	ret_fds[1] = k->figures->page_fd;
	return k->figures->page != NULL ? 2 : 0;
}

/* ---- drift ---- */

static void load_source(const char *source, const void *state, size_t n, void *arg)
{
	struct figures *f = arg;
	int r = drift_unpack(f->drift, source, state, n);

	if (r < 0)
		log_warning("source=\"%s\": its score history cannot be used (%s): its reference begins anew", source, strerror(-r));
	else
		(void)telemetry_source(&f->t, source);
}

/* A model is known: from here on scores are compared. */
void figures_model(struct keeper *k)
{
	static const char *const domains[] = { "untrained", "phantom", "clinical" };
	struct figures *f = k->figures;
	CLEANUP(digest_free) struct digest *d = digest_new();
	int r;

	(void)str_copy(f->t.model, sizeof(f->t.model), k->model.name);
	(void)str_copy(f->t.domain, sizeof(f->t.domain), domains[k->model.domain % 3]);
	f->t.model_ready = 1;
	digest_update(d, k->model.weights, DIGEST_SIZE);
	digest_update(d, k->findings->digest, DIGEST_SIZE);
	digest_update(d, f->t.precision, strlen(f->t.precision));
	digest_update(d, recipe_name(k->config->recipe), strlen(recipe_name(k->config->recipe)));
	digest_final(d, f->key);
	f->drift = drift_new(k->findings->n);
	r = store_each_drift(k->store, f->key, load_source, f);
	if (r < 0)
		log_warning("score histories cannot be read: %s; references begin anew", strerror(-r));
}

static void save(struct keeper *k, size_t source)
{
	struct figures *f = k->figures;
	CLEANUP(free) void *state = NULL;
	size_t n = drift_pack(f->drift, source, &state);

	f->unsaved[source] = 0;
	keeper_must(k, store_put_drift(k->store, drift_name(f->drift, source), f->key, state, n), "keep a score history");
}

static void tell(struct keeper *k, size_t source)
{
	struct figures *f = k->figures;
	const char *name = drift_name(f->drift, source);
	size_t finding;
	bool changed, alarm = drift_alarm(f->drift, source, &changed, &finding);

	char key[64];

	if (!changed)
		return;
	(void)snprintf(key, sizeof(key), "drift %s %lld", name, (long long)(k->now / 1000));
	notices_raise(k, NOTIFY_DRIFT, NULL, key, alarm ? "scores of %s have moved, %s most" : "scores of %s are as they were again",
		      name, k->findings->finding[finding].id);
	if (alarm)
		log_warning("source=\"%s\": its scores have moved: finding=%s psi=%.2f over the last %d images (alarm from %.2f). "
			    "Did its processing, detector or patients change? Probabilities may not hold until somebody has looked",
			    name, k->findings->finding[finding].id, drift_psi(f->drift, source, finding), DRIFT_WINDOW, DRIFT_ALARM);
	else
		log_info("source=\"%s\": its scores are as they were again", name);
}

void figures_scored(struct keeper *k, const struct instance *in, const float *logits, int64_t microseconds)
{
	struct figures *f = k->figures;
	struct telemetry_source *t = telemetry_source(&f->t, in->calling_ae);
	int source;

	telemetry_time_add(&f->t.stage[TELEMETRY_INFER], microseconds);
	if (t != NULL)
		t->scored++;
	source = f->drift != NULL ? drift_add(f->drift, in->calling_ae, logits) : -1;
	if (source < 0)
		return;
	tell(k, (size_t)source);
	if (++f->unsaved[source] >= SAVE_EVERY)
		save(k, (size_t)source);
}

/* ---- what happened ---- */

void figures_answered(struct keeper *k, uint16_t status, uint64_t bytes, bool repeat, int64_t since)
{
	struct figures *f = k->figures;

	telemetry_status_add(&f->t.stored, status);
	telemetry_time_add(&f->t.stage[TELEMETRY_STORE], figures_now() - since);
	f->t.stored_bytes += status == 0 && !repeat ? bytes : 0;
	f->t.repeats += repeat;
}

void figures_took(struct keeper *k, enum telemetry_stage stage, int64_t since)
{
	telemetry_time_add(&k->figures->t.stage[stage], figures_now() - since);
}

void figures_not_analysed(struct keeper *k, const struct instance *in, unsigned reason)
{
	struct figures *f = k->figures;
	struct telemetry_source *t = telemetry_source(&f->t, in->calling_ae);

	f->t.not_analysed[reason < TELEMETRY_REASONS_MAX ? reason : TELEMETRY_REASONS_MAX - 1]++;
	if (t != NULL)
		t->not_analysed++;
}

void figures_failed(struct keeper *k, const struct instance *in)
{
	struct telemetry_source *t = telemetry_source(&k->figures->t, in->calling_ae);

	if (t != NULL)
		t->failed++;
}

void figures_sent(struct keeper *k, const struct courier *c, int status)
{
	size_t i = (size_t)(c - k->courier);

	telemetry_status_add(&k->figures->t.destination[i].sent, status);
	figures_took(k, TELEMETRY_SEND, c->since);
}

void figures_delivered(struct keeper *k, int64_t study)
{
	int64_t received;

	if (store_study_received(k->store, study, &received) == 0) /* else its images are gone: nothing to tell */
		telemetry_time_add(&k->figures->t.stage[TELEMETRY_RESULT], (k->now - received) * 1000);
}

void figures_death(struct keeper *k, unsigned signal)
{
	k->figures->t.deaths[signal < TELEMETRY_SIGNALS_MAX ? signal : 0]++;
}

/* ---- publishing ---- */

static void copy_counts(struct keeper *k, struct telemetry *t)
{
	size_t i;

	t->accepted = k->accepted;
	t->refused = k->rejected;
	t->scored = k->scored;
	t->quarantined = k->quarantined;
	t->reported = k->reported;
	t->delivered = k->delivered;
	memcpy(t->instances, k->counts.instances, sizeof(t->instances));
	memcpy(t->studies, k->counts.studies, sizeof(t->studies));
	memcpy(t->deliveries, k->counts.deliveries, sizeof(t->deliveries));
	t->reports = k->counts.reports;
	t->slow = k->counts.slow;
	t->oldest_instance = k->counts.oldest_ready;
	t->oldest_slow = k->counts.oldest_slow;
	t->oldest_delivery = k->counts.oldest_delivery;
	t->free_bytes = k->space.free_bytes;
	t->total_bytes = k->space.total_bytes;
	t->free_inodes = k->space.free_inodes;
	t->total_inodes = k->space.total_inodes;
	t->wal_bytes = store_log_bytes(k->store);
	t->lost_objects = k->lost_objects;
	t->clock_steps = k->clock_steps;
	t->associations = 0;
	for (i = 0; i < k->config->limits.associations; i++)
		t->associations += k->association[i].sock >= 0;
}

static void copy_destinations(struct keeper *k, struct telemetry *t)
{
	struct outbox o;
	size_t i;

	t->n_destinations = k->config->n_peers;
	for (i = 0; i < k->config->n_peers; i++) {
		struct telemetry_destination *d = &t->destination[i];

		(void)str_copy(d->ae_title, sizeof(d->ae_title), k->courier[i].peer->ae_title);
		d->available = k->courier[i].failures == 0;
		if (store_outbox(k->store, d->ae_title, &o) < 0)
			continue; /* the old figures stay */
		d->waiting = o.waiting;
		d->parked = o.parked;
		d->done = o.done;
		d->oldest = o.oldest;
	}
}

static void copy_drift(struct figures *f)
{
	size_t i, n, finding;

	for (i = 0; f->drift != NULL && i < drift_sources(f->drift); i++) {
		struct telemetry_source *t = telemetry_source(&f->t, drift_name(f->drift, i));
		bool changed;

		if (t == NULL)
			continue;
		drift_filled(f->drift, i, &n, &finding);
		t->reference = n;
		t->window = finding;
		t->alarm = drift_alarm(f->drift, i, &changed, &finding);
		for (n = 0; n < f->t.n_findings; n++)
			t->psi[n] = drift_psi(f->drift, i, n);
	}
}

void figures_publish(struct keeper *k)
{
	struct figures *f = k->figures;

	f->t.turns++;
	if (f->page == NULL)
		return;
	f->behind = k->boot - f->published < PUBLISH_EVERY_MS && f->published != 0;
	if (f->behind)
		return;
	f->published = k->boot;
	f->t.now = k->now;
	copy_counts(k, &f->t);
	copy_destinations(k, &f->t);
	copy_drift(f);
	telemetry_publish(f->page, &f->t);
}

int64_t figures_next(const struct keeper *k)
{
	const struct figures *f = k->figures;

	return f->behind ? k->now + (f->published + PUBLISH_EVERY_MS - k->boot) : INT64_MAX;
}

void figures_stop(struct keeper *k)
{
	struct figures *f = k->figures;
	size_t i;

	for (i = 0; f->drift != NULL && i < drift_sources(f->drift); i++)
		if (f->unsaved[i] > 0)
			save(k, i);
}
