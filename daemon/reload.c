/* reload.c: another configuration without another node.
 *
 * What helpers read is never the file that people edit: the keeper writes what it has accepted, byte by
 * byte, to STATE/running/, and helpers take it from there (config_load_running).  So a helper that is
 * started again tomorrow finds what the keeper was started or reloaded with, whatever has happened
 * to the file since.
 *
 * SIGHUP: read the file and its findings list; write them to STATE/running.new/; start one inference
 * process on them, for only that knows whether bundle, vocabulary, list and machine fit together.  Any
 * error on the way is logged and the old configuration stays.  When the process has introduced itself, one
 * transaction gives back the claims under way, the processes that read settings are started anew, and
 * the trial becomes the first worker.
 *
 * Nobody's association is dropped: the old receiver closes its sockets (they are the keeper's, the new one
 * listens on the same) and lives until its last child has ended; a sender finishes its object first.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fdio.h"
#include "base/log.h"
#include "base/mem.h"

#include "daemon/credential.h"
#include "daemon/keeper.h"
#include "daemon/notify.h"

#define TRIAL_MS 300000 /* to load a model; the longest seen was 20 s */

struct reload {
	struct config *config;
	struct findings *findings;
	void *text;              /* of the findings list */
	size_t n_text;
	int64_t deadline;        /* boot ms */
	bool accepted;           /* the trial has introduced itself: */
	struct ipc_model model;
};

/* ---- what helpers read ------------------------------------------------------------------------------------ */

static int write_file(const char *folder, const char *name, const void *text, size_t n)
{
	char path[4096], temporary[4100];
	CLEANUP(close) int fd = -1;
	int r;

	if (snprintf(path, sizeof(path), "%s/%s", folder, name) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	(void)snprintf(temporary, sizeof(temporary), "%s.new", path);
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	r = write_full(fd, text, n);
	if (r < 0)
		return r;
	return rename(temporary, path) < 0 ? -errno : 0;
}

/* Not synced: a start writes it anew. */
static int write_running(struct keeper *k, const char *box, const void *findings, size_t n_findings, struct err *e)
{
	CLEANUP(free) void *text = NULL;
	char folder[4000];
	size_t n;
	int r = read_path(k->config_path, CONFIG_BYTES_MAX, &text, &n, e);

	if (r < 0)
		return r;
	if (snprintf(folder, sizeof(folder), "%s/%s", k->config->state_dir, box) >= (int)sizeof(folder))
		return err_set(e, -ENAMETOOLONG, "state_dir: path too long");
	if (mkdir(folder, 0700) < 0 && errno != EEXIST)
		return err_set(e, -errno, "%s: %s", folder, strerror(errno));
	r = write_file(folder, CONFIG_RUNNING_FILE, text, n);
	if (r == 0)
		r = write_file(folder, CONFIG_RUNNING_FINDINGS, findings, n_findings);
	return r < 0 ? err_set(e, r, "%s: %s", folder, strerror(-r)) : 0;
}

static void use_running(struct keeper *k, const char *box)
{
	(void)snprintf(k->running, sizeof(k->running), "%s/%s", k->config->state_dir, box);
	(void)setenv(CONFIG_RUNNING_VARIABLE, k->running, 1);
	(void)snprintf(k->running, sizeof(k->running), "%s/%s/%s", k->config->state_dir, box, CONFIG_RUNNING_FILE);
}

void reload_open(struct keeper *k, const void *findings, size_t n_findings)
{
	struct err e;

	if (write_running(k, "running", findings, n_findings, &e) < 0)
		fatal(FATAL_TEMPORARY, "%s", e.text);
	use_running(k, "running");
}

/* ---- a new one --------------------------------------------------------------------------------------------- */

static void drop(struct keeper *k)
{
	if (k->trial.pid > 0 || k->trial.sock >= 0)
		helper_ended(&k->trial, k->boot);
	config_free(k->reload->config);
	findings_free(k->reload->findings);
	free(k->reload->text);
	free(k->reload);
	k->reload = NULL;
}

static void finished(struct keeper *k, bool good, const char *text)
{
	k->reloads++;
	k->reload_good = good;
	(void)str_copy(k->reload_text, sizeof(k->reload_text), text);
	notify_ready();
}

void reload_refuse(struct keeper *k, const char *why)
{
	char text[sizeof(k->reload_text)];

	(void)snprintf(text, sizeof(text), "%s", why);
	log_error("reload refused: %s; the old configuration stays", text);
	keeper_event(k, 0, EVENT_NODE, "reload refused, the old configuration stays: %s", text);
	if (k->reload != NULL)
		drop(k);
	finished(k, false, text);
}

static bool same_metrics(const struct config *a, const struct config *b)
{
	if (a->metrics.wanted != b->metrics.wanted || (a->metrics.path == NULL) != (b->metrics.path == NULL))
		return false;
	if (a->metrics.path != NULL)
		return strcmp(a->metrics.path, b->metrics.path) == 0;
	return memcmp(&a->metrics.at, &b->metrics.at, sizeof(a->metrics.at)) == 0;
}

/* What a running node cannot change keeps its old value, and that is said. */
static void keep_unchangeable(struct keeper *k, struct config *c)
{
	struct tls_config *tls = &c->tls, *was = &k->config->tls;
	bool listen = c->n_listen != k->config->n_listen || memcmp(c->listen, k->config->listen, sizeof(c->listen)) != 0;
	bool tls_listen = tls->on && was->on && memcmp(tls->listen, was->listen, sizeof(tls->listen)) != 0;

	(void)snprintf(k->reload_kept, sizeof(k->reload_kept), "%s%s%s%s%s",
		       strcmp(c->state_dir, k->config->state_dir) != 0 ? " state_dir" : "", listen ? " listen" : "",
		       tls_listen ? " tls.listen" : "",
		       c->limits.associations != k->config->limits.associations ? " limits.associations" : "",
		       same_metrics(c, k->config) ? "" : " metrics");
	free(c->state_dir);
	c->state_dir = xstrdup(k->config->state_dir);
	memcpy(c->listen, k->config->listen, sizeof(c->listen));
	c->n_listen = k->config->n_listen;
	if (tls_listen) {
		memcpy(tls->listen, was->listen, sizeof(tls->listen));
		tls->n_listen = was->n_listen;
	}
	c->limits.associations = k->config->limits.associations;
	if (k->reload_kept[0] != '\0')
		log_warning("reload: only a restart changes%s: the old value stays", k->reload_kept);
}

/* carzerod-receive opens certificates and keys, and its line says what is wrong with them. */
static int try_tls(struct keeper *k, struct err *e)
{
	int r = 0;

	if (!k->reload->config->tls.on)
		return 0;
	use_running(k, "running.new");
	if (helper_try("carzerod-receive", k->config_path) != 0)
		r = err_set(e, -EBADMSG, "tls: carzerod-receive cannot open what it names (its line above says why)");
	use_running(k, "running");
	return r;
}

static int start_trial(struct keeper *k, struct err *e)
{
	struct reload *r = k->reload;
	int result;

	helper_init(&k->trial, "carzerod-infer");
	use_running(k, "running.new");
	result = keeper_start_infer(k, &k->trial, r->config->model, e);
	use_running(k, "running");
	return result;
}

void reload_begin(struct keeper *k)
{
	struct reload *r;
	struct err e;

	k->reload_wanted = false;
	notify_reloading();
	log_info("reload: reading %s", k->config_path);
	if (k->reload != NULL)
		drop(k); /* somebody was not content with the last one */
	k->reload = r = xcalloc(1, sizeof(*r));
	r->deadline = k->boot + TRIAL_MS;
	k->trial.sock = -1;
	if (config_load(k->config_path, &r->config, &e) < 0 ||
	    findings_load(r->config->findings, &r->findings, &r->text, &r->n_text, &e) < 0) {
		reload_refuse(k, e.text);
		return;
	}
	keep_unchangeable(k, r->config);
	if (write_running(k, "running.new", r->text, r->n_text, &e) < 0 || try_tls(k, &e) < 0 ||
	    start_trial(k, &e) < 0)
		reload_refuse(k, e.text);
}

void reload_model(struct keeper *k, const struct ipc_model *m)
{
	if (k->reload == NULL)
		return;
	if (memcmp(m->findings, k->reload->findings->digest, DIGEST_SIZE) != 0 || m->n_findings != k->reload->findings->n) {
		reload_refuse(k, "the findings list changed while it was being read");
		return;
	}
	k->reload->model = *m;
	k->reload->accepted = true; /* applied at the head of the next turn, when nobody's message is half read */
}

void reload_trial_lost(struct keeper *k)
{
	if (k->reload != NULL && !k->reload->accepted)
		reload_refuse(k, "carzerod-infer cannot start with it (its line above says why)");
}

void reload_deadline(struct keeper *k)
{
	if (k->reload != NULL && !k->reload->accepted && k->boot >= k->reload->deadline)
		reload_refuse(k, "the model was not ready within 5 minutes");
}

/* ---- the change ----------------------------------------------------------------------------------------------- */

/* It closes its sockets, tells nobody, and ends with its last child. */
static void retire_receiver(struct keeper *k)
{
	size_t i;

	if (k->receiver.pid <= 0)
		return;
	for (i = 0; i < KEEPER_RETIRED_MAX; i++) {
		if (k->retired[i].pid <= 0)
			break;
	}
	if (i == KEEPER_RETIRED_MAX) { /* so many reloads within the longest association */
		log_warning("reload: %d old receivers still serve associations; the present one keeps its settings",
			    KEEPER_RETIRED_MAX);
		return;
	}
	(void)kill(k->receiver.pid, SIGUSR1);
	k->retired[i] = k->receiver;
	k->receiver.pid = 0;
	k->receiver.sock = -1;
	k->receiver.ready = false;
}

static void take_worker(struct keeper *k, const struct ipc_model *m)
{
	size_t i;

	for (i = 0; i < KEEPER_WORKERS_MAX; i++)
		helper_restart(&k->infer[i], k->boot);
	k->infer[0] = k->trial;
	k->infer[0].ready = true;
	k->trial.pid = 0;
	k->trial.sock = -1;
	keeper_model(k, m);
}

static void move_running(struct keeper *k)
{
	static const char *const names[] = { CONFIG_RUNNING_FILE, CONFIG_RUNNING_FINDINGS };
	char from[4096], to[4096];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		(void)snprintf(from, sizeof(from), "%.3900s/running.new/%s", k->config->state_dir, names[i]);
		(void)snprintf(to, sizeof(to), "%.3900s/running/%s", k->config->state_dir, names[i]);
		if (rename(from, to) < 0)
			fatal(FATAL_IO, "%s: %s", from, strerror(errno));
	}
}

/* Where the files of `tls` are by now; and a node without TLS any more listens for none. */
static void change_tls(struct keeper *k)
{
	struct err e;
	size_t i;

	for (i = 0; i < CREDENTIAL_FILES; i++)
		free(k->tls.path[i]);
	if (credential_paths(k->config, k->tls.path, &e) < 0)
		fatal(FATAL_CONFIG, "%s: %s", k->config_path, e.text); /* try_tls() has just found them */
	while (!k->config->tls.on && k->n_tls_fds > 0) {
		(void)close(k->listen_fd[--k->n_listen_fds]);
		k->n_tls_fds--;
	}
	k->tls.certificate = k->tls.ca = k->tls.crl = 0; /* the new receiver tells */
}

void reload_apply(struct keeper *k)
{
	struct reload *r = k->reload;
	struct config *old = k->config;
	unsigned woken = 0;

	if (r == NULL || !r->accepted)
		return;
	analysis_stop(k, "the configuration was reloaded");
	reporting_stop(k, "the configuration was reloaded");
	figures_stop(k); /* score histories are kept by the list that they belong to */
	move_running(k);
	k->config = r->config;
	r->config = NULL;
	findings_free(k->findings);
	k->findings = r->findings;
	r->findings = NULL;
	log_set_level(k->config->log_level);
	change_tls(k);
	figures_reload(k, old);
	keeper_must(k, store_keep_findings(k->store, k->findings->digest, r->text, r->n_text), "keep the findings list");
	retire_receiver(k);
	helper_restart(&k->image, k->boot);
	take_worker(k, &r->model);
	delivery_reload(k, old);
	notices_reload(k, old);
	audit_reload(k);
	keeper_helpers(k);
	/* what people mended may be what parked them */
	keeper_must(k, store_flush_deliveries(k->store, "", k->now, &woken), "flush deliveries");
	log_info("reloaded: AE title %s, %zu peers, %zu routes, %zu findings; %u deliveries due", k->config->ae_title,
		 k->config->n_peers, k->config->n_routes, k->findings->n, woken);
	keeper_event(k, 0, EVENT_NODE, "configuration reloaded: %zu peers, %zu routes, %zu findings%s%s", k->config->n_peers,
		     k->config->n_routes, k->findings->n, k->reload_kept[0] != '\0' ? "; only a restart changes" : "",
		     k->reload_kept);
	config_free(old);
	drop(k);
	finished(k, true, k->reload_kept);
}

bool reload_due(const struct keeper *k)
{
	return k->reload_wanted || (k->reload != NULL && k->reload->accepted);
}
