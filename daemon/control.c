/* control.c: the operator's socket, STATE/control.
 *
 * One request is one packet of text, one answer one packet of JSON.  What can be read from the
 * database carzeroctl reads itself (its own read-only connection, so it never holds the keeper up);
 * here is only what lives in the keeper's memory, and what must be done by the one who writes.
 *
 *	status              processes, model, space, counters since the start
 *	flush [DEST]        parked and waiting deliveries become due
 *	reload              the configuration is read again; status tells how it went
 *	hold AE, release AE deliveries to a destination wait until an operator lets them go, also across restarts
 *	drain, release      no association is accepted any more, and again
 *	requeue ID          a settled or quarantined object is analysed again
 *	fetch ...           what comes next of a study from an archive is fetched
 *	purge UID           all of a study goes, sent or not
 *	purge-older MS      all studies that were quiet for longer go, unless something of them is still to be sent
 *
 * Access is by file mode: 0660, the service's user and group.
 */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <jansson.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"

#include "daemon/keeper.h"

#define REQUEST_MAX 1024
#define CONTROL_REST_MS 1000

void control_open(struct keeper *k)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	size_t i;

	k->control = -1;
	for (i = 0; i < KEEPER_CONTROL_MAX; i++)
		k->control_client[i] = -1;
	if (snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/control", k->config->state_dir) >=
	    (int)sizeof(sa.sun_path)) {
		log_warning("state_dir is too long for a socket name: carzeroctl will not see live status");
		return;
	}
	(void)unlink(sa.sun_path); /* ours: the store's lock says that no other keeper lives */
	k->control = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (k->control < 0 || bind(k->control, (struct sockaddr *)&sa, sizeof(sa)) < 0 ||
	    chmod(sa.sun_path, 0660) < 0 || listen(k->control, KEEPER_CONTROL_MAX) < 0) {
		log_warning("%s: %s: carzeroctl will not see live status", sa.sun_path, strerror(errno));
		if (k->control >= 0)
			(void)close(k->control);
		k->control = -1;
	}
}

void control_accept(struct keeper *k)
{
	int fd = accept4(k->control, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	size_t i;

	if (fd < 0) { /* the socket stays readable: look away for a while */
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
			k->control_rest = k->boot + CONTROL_REST_MS;
		return;
	}
	for (i = 0; i < KEEPER_CONTROL_MAX; i++) {
		if (k->control_client[i] < 0) {
			k->control_client[i] = fd;
			return;
		}
	}
	(void)close(fd);
}

static json_t *helper_json(const struct keeper *k, const struct helper *h)
{
	return json_pack("{s:s, s:i, s:b, s:I, s:i}", "program", h->program, "pid", (int)h->pid, "ready",
			 h->ready, "seconds", (json_int_t)(h->pid > 0 ? (k->boot - h->started) / 1000 : 0),
			 "restarts", (int)h->restarts);
}

static json_t *processes_json(struct keeper *k)
{
	json_t *a = json_array();
	size_t i;

	(void)json_array_append_new(a, helper_json(k, &k->receiver));
	(void)json_array_append_new(a, helper_json(k, &k->image));
	for (i = 0; i < k->config->workers; i++)
		(void)json_array_append_new(a, helper_json(k, &k->infer[i]));
	return a;
}

static json_t *destinations_json(struct keeper *k)
{
	json_t *a = json_array();
	size_t i;

	for (i = 0; i < k->config->n_peers; i++) {
		const struct courier *c = &k->courier[i];

		(void)json_array_append_new(
			a, json_pack("{s:s, s:s, s:b, s:i, s:I}", "ae_title", c->peer->ae_title, "state",
				     c->busy ? "sending" : c->held ? "held" : k->boot < c->not_before ? "resting" : "idle", "available",
				     c->failures == 0, "failures", (int)c->failures, "rests_ms",
				     (json_int_t)(k->boot < c->not_before ? c->not_before - k->boot : 0)));
	}
	return a;
}

static json_t *tls_json(const struct keeper *k)
{
	const char *what;
	bool soon;
	int64_t ends = intake_tls_ends(k, &what, &soon);

	if (ends == 0)
		return json_null();
	return json_pack("{s:s, s:b, s:I, s:I}", "first_to_end", what, "soon", soon, "ends", (json_int_t)(ends / 1000), "days",
			 (json_int_t)((ends - k->now) / (24ll * 3600 * 1000)));
}

/* Where, also when the service manager opened them. */
static json_t *listening_json(const struct keeper *k)
{
	json_t *a = json_array();
	size_t i;

	for (i = 0; i < k->n_listen_fds; i++) {
		struct sockaddr_storage at;
		socklen_t n = sizeof(at);
		char host[NI_MAXHOST], port[NI_MAXSERV];

		if (getsockname(k->listen_fd[i], (struct sockaddr *)&at, &n) < 0 ||
		    getnameinfo((struct sockaddr *)&at, n, host, sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) != 0)
			continue;
		(void)json_array_append_new(a, json_pack("{s:s, s:I, s:b}", "address", host, "port", (json_int_t)strtol(port, NULL, 10),
							 "tls", i >= k->n_listen_fds - k->n_tls_fds));
	}
	return a;
}

static json_t *status_json(struct keeper *k)
{
	static const char *const domains[] = { "untrained", "phantom", "clinical" };
	unsigned associations = 0;
	json_t *j;
	size_t i;

	for (i = 0; i < k->config->limits.associations; i++)
		associations += k->association[i].sock >= 0;
	j = json_pack("{s:s, s:i, s:I, s:s, s:b, s:{s:b, s:s, s:s}, s:i, s:{s:I, s:I}, "
			 "s:{s:I, s:I, s:I, s:I, s:I, s:I, s:I}, s:o, s:o, s:o}",
			 "version", PACKAGE_VERSION, "pid", (int)getpid(), "seconds",
			 (json_int_t)((k->boot - k->started) / 1000), "ae_title", k->config->ae_title, "draining", k->draining, "model", "ready",
			 k->model.known, "name", k->model.name, "domain", domains[k->model.domain % 3],
			 "associations", (int)associations, "space", "free", (json_int_t)k->space.free_bytes, "total",
			 (json_int_t)k->space.total_bytes, "since_start", "accepted", (json_int_t)k->accepted,
			 "rejected", (json_int_t)k->rejected, "scored", (json_int_t)k->scored, "not_analysed",
			 (json_int_t)k->not_analysed, "quarantined", (json_int_t)k->quarantined, "reported",
			 (json_int_t)k->reported, "delivered", (json_int_t)k->delivered, "processes",
			 processes_json(k), "destinations", destinations_json(k), "tls", tls_json(k));
	(void)json_object_set_new(j, "lost_objects", json_integer((json_int_t)k->lost_objects));
	if (k->config->audit.host[0] != '\0')
		(void)json_object_set_new(j, "audit", json_pack("{s:s, s:I, s:b, s:b}", "host", k->config->audit.host, "waiting",
								(json_int_t)k->audit.waiting, "taken", !k->audit.failing, "full",
								k->audit.left_out > 0));
	(void)json_object_set_new(j, "listening", listening_json(k));
	(void)json_object_set_new(j, "disk_full", json_boolean(k->disk_low));
	return j;
}

static json_t *flush(struct keeper *k, const char *destination)
{
	unsigned n = 0;
	size_t i;

	keeper_must(k, store_flush_deliveries(k->store, destination, k->now, &n), "flush deliveries");
	for (i = 0; i < k->config->n_peers; i++) {
		if (destination[0] == '\0' || strcmp(destination, k->courier[i].peer->ae_title) == 0)
			k->courier[i].not_before = 0;
	}
	log_info("operator: %u deliveries due now", n);
	audit_action(k, false, "flush %s: %u deliveries are due", destination, n);
	return json_pack("{s:i}", "due", (int)n);
}

static json_t *requeue(struct keeper *k, const char *id)
{
	uint64_t row;
	int r;

	if (!str_to_u64(id, 1, INT64_MAX, &row))
		return json_pack("{s:s}", "error", "requeue wants the number of an object");
	r = store_requeue_instance(k->store, (int64_t)row, k->now);
	if (r == -ENOENT)
		return json_pack("{s:s}", "error", "no such object");
	if (r == -EBUSY)
		return json_pack("{s:s}", "error", "that object waits for analysis already");
	if (r == -ENODATA)
		return json_pack("{s:s}", "error", "the file of that object has expired: send the image again, then ask again");
	if (r == -ENOTSUP)
		return json_pack("{s:s}", "error", "that object was set aside: its class is not analysed");
	keeper_must(k, r, "requeue an object");
	log_info("operator: object=%llu is analysed again", (unsigned long long)row);
	audit_action(k, false, "requeue object %llu", (unsigned long long)row);
	return json_pack("{s:I}", "requeued", (json_int_t)row);
}

static json_t *purge(struct keeper *k, const char *study_uid)
{
	struct study study = { .id = 0 };
	size_t n = 0;
	int r;

	if (!uid_valid(study_uid))
		return json_pack("{s:s}", "error", "purge wants a Study Instance UID");
	(void)store_find_study(k->store, study_uid, &study); /* what is not there is refused next */
	r = store_purge_study(k->store, study_uid, &n);
	if (r == -ENOENT)
		return json_pack("{s:s}", "error", "no such study");
	if (r == -EBUSY)
		return json_pack("{s:s}", "error", "something of that study is being worked on at this moment: ask again");
	keeper_must(k, r, "purge a study");
	k->retention_at = 0; /* its files in the next turn */
	audit_purged(k, study_uid, study.id);
	log_info("operator: a study is purged, %zu rows", n);
	return json_pack("{s:I}", "purged", (json_int_t)n);
}

static json_t *purge_older(struct keeper *k, const char *ms)
{
	uint64_t age;

	if (!str_to_u64(ms, 1000, INT64_MAX / 2, &age))
		return json_pack("{s:s}", "error", "purge-older wants milliseconds");
	k->purge_before = k->now - (int64_t)age;
	(void)str_copy(k->audit.purger, sizeof(k->audit.purger), k->audit.operator);
	audit_action(k, false, "purge --older-than %llu s", (unsigned long long)age / 1000);
	k->retention_at = 0;
	log_info("operator: what is older than %llu s is purged", (unsigned long long)age / 1000);
	return json_pack("{s:b}", "purging", true);
}

static json_t *hold(struct keeper *k, const char *ae_title, bool held)
{
	char key[40];
	size_t i;

	for (i = 0; i < k->config->n_peers && strcmp(k->courier[i].peer->ae_title, ae_title) != 0; i++)
		continue;
	if (i == k->config->n_peers)
		return json_pack("{s:s}", "error", "no peer has that AE title; carzeroctl status lists them");
	k->courier[i].held = held;
	(void)snprintf(key, sizeof(key), "hold %s", ae_title);
	keeper_must(k, store_set_setting(k->store, key, held ? "1" : "0"), "record what is held");
	log_info("operator: destination=\"%s\" %s", ae_title, held ? "held" : "released");
	audit_action(k, false, "%s %s", held ? "hold" : "release", ae_title);
	keeper_event(k, 0, EVENT_OPERATOR, "%s is %s", ae_title, held ? "held: its deliveries wait" : "released");
	return json_pack("{s:s, s:b}", "ae_title", ae_title, "held", held);
}

static json_t *drain(struct keeper *k, bool draining)
{
	unsigned open = 0;
	size_t i;

	for (i = 0; i < k->config->limits.associations; i++)
		open += k->association[i].sock >= 0;
	if (draining != k->draining) {
		log_info("operator: %s", draining ? "draining: no association is accepted" : "associations are accepted again");
		keeper_event(k, 0, EVENT_OPERATOR, "%s", draining ? "draining: no association is accepted" : "drain ended");
		audit_action(k, false, "%s", draining ? "drain" : "release");
	}
	k->draining = draining;
	return json_pack("{s:b, s:i}", "draining", draining, "associations", (int)open);
}

static json_t *reload_json(const struct keeper *k)
{
	return json_pack("{s:i, s:b, s:b, s:s}", "ended", (int)k->reloads, "pending", k->reload_wanted || k->reload != NULL,
			 "good", k->reload_good, "text", k->reload_text);
}

/* AE_TITLE's archive is asked; behind the last space the question, in base64. */
static json_t *queried(struct keeper *k, const char *request)
{
	const char *space = strrchr(request, ' ');
	const struct peer *peer;
	char ae[AE_TITLE_MAX];

	if (space == NULL || space - request >= AE_TITLE_MAX)
		return json_pack("{s:s}", "error", "fetch query wants an AE title and a query");
	(void)str_copy_padded(ae, sizeof(ae), request, (size_t)(space - request));
	peer = config_peer(k->config, ae);
	if (peer == NULL)
		return json_pack("{s:s}", "error", "fetch: no such peer");
	audit_query(k, peer, space + 1);
	return json_pack("{s:b}", "noted", true);
}

/* query AE_TITLE QUERY: before it is asked, for the audit trail.
 * keep|send STUDY_UID AE_TITLE: before carzerod-fetch asks the archive of that title to send.  ?: how many images
 * wait, for it to hold back. */
static json_t *fetch(struct keeper *k, const char *request)
{
	static const char query[] = "query ";
	bool keep = strncmp(request, "keep ", 5) == 0;
	char uid[UID_MAX];
	const char *ae = request + 5, *space = strchr(ae, ' ');

	if (strncmp(request, query, strlen(query)) == 0)
		return queried(k, request + strlen(query));
	if (strcmp(request, "?") == 0)
		return json_pack("{s:I}", "waiting", (json_int_t)(k->counts.instances[INSTANCE_READY] +
							      k->counts.instances[INSTANCE_CLAIMED]));
	if ((!keep && strncmp(request, "send ", 5) != 0) || space == NULL || space - ae >= UID_MAX)
		return json_pack("{s:s}", "error", "fetch wants keep or send, a study and an AE title");
	(void)str_copy_padded(uid, sizeof(uid), ae, (size_t)(space - ae));
	ae = space + 1;
	if (!uid_valid(uid) || config_peer(k->config, ae) == NULL)
		return json_pack("{s:s}", "error", "fetch: no such peer, or not a UID");
	keeper_must(k, store_note_fetched(k->store, uid, ae, keep), "note what is fetched");
	return json_pack("{s:b}", "noted", true);
}

static json_t *answer(struct keeper *k, const char *request)
{
	if (strcmp(request, "status") == 0)
		return status_json(k);
	if (strcmp(request, "reload") == 0) {
		k->reload_wanted = true;
		audit_action(k, true, "reload");
		return reload_json(k);
	}
	if (strcmp(request, "drain") == 0 || strcmp(request, "release") == 0)
		return drain(k, request[0] == 'd');
	if (strncmp(request, "hold ", 5) == 0)
		return hold(k, request + 5, true);
	if (strncmp(request, "release ", 8) == 0)
		return hold(k, request + 8, false);
	if (strcmp(request, "reload?") == 0)
		return reload_json(k);
	if (strcmp(request, "flush") == 0)
		return flush(k, "");
	if (strncmp(request, "flush ", 6) == 0)
		return flush(k, request + 6);
	if (strncmp(request, "requeue ", 8) == 0)
		return requeue(k, request + 8);
	if (strncmp(request, "fetch ", 6) == 0)
		return fetch(k, request + 6);
	if (strncmp(request, "purge ", 6) == 0)
		return purge(k, request + 6);
	if (strncmp(request, "purge-older ", 12) == 0)
		return purge_older(k, request + 12);
	return json_pack("{s:s}", "error", "unknown request");
}

void control_serve(struct keeper *k, size_t client)
{
	int fd = k->control_client[client];
	char request[REQUEST_MAX];
	ssize_t n = recv(fd, request, sizeof(request) - 1, 0);
	json_t *j;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		(void)close(fd);
		k->control_client[client] = -1;
		return;
	}
	request[n] = '\0';
	audit_operator(k, fd);
	j = answer(k, request);
	k->control_answer[client] = json_dumps(j, JSON_COMPACT);
	json_decref(j);
}

void control_tell(struct keeper *k, bool done)
{
	static const char nothing_done[] = "{\"error\":\"the disk is full: nothing was done\"}";
	size_t i;

	for (i = 0; i < KEEPER_CONTROL_MAX; i++) {
		const char *text = done ? k->control_answer[i] : nothing_done;

		if (k->control_answer[i] == NULL)
			continue;
		/* an operator who went away, or reads too slowly, asks again */
		if (send(k->control_client[i], text, strlen(text), MSG_NOSIGNAL) <= 0) {
			(void)close(k->control_client[i]);
			k->control_client[i] = -1;
		}
		free(k->control_answer[i]);
		k->control_answer[i] = NULL;
	}
}
