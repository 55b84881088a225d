/* ctl_selftest.c: carzeroctl selftest --peer AE: a film that nobody took goes the whole way, and a page says how.
 *
 * Each step ends as ok, not ok (with what to do), not offered (the peer has no such service) or not tried (a step before
 * it failed, or the configuration keeps it back).  What speaks DICOM is carzerod-probe, a process of its own; here the
 * database is read.
 *
 * It cannot make the peer call: the second C-ECHO is our own, from this machine, under the peer's AE title,
 * and says so.  Whether `access` would let the peer in from its own address is worked out, not tried.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#include <jansson.h>

#include "base/clock.h"
#include "base/digest.h"
#include "base/mem.h"
#include "base/str.h"

#include "daemon/ctl.h"
#include "daemon/helper.h"

#define SCORED_SECONDS 180
#define REPORTED_SECONDS 60 /* beyond settle_max */
#define DELIVERED_SECONDS 90
#define DOUBTFUL_SECONDS 15 /* to a peer that did not even answer C-ECHO */
#define FOUND_SECONDS 15
#define PAUSE_US 200000
#define STEPS_MAX 16
#define ROWS_MAX 64
#define LISTEN_MAX 16
#define TEXT_MAX 600

enum verdict { STEP_OK, STEP_NOT_OK, STEP_NOT_OFFERED, STEP_NOT_TRIED, STEP_VERDICTS };
static const char *const verdict_names[] = { "ok", "not ok", "not offered", "not tried" };

struct step {
	const char *name;
	char title[48];
	enum verdict verdict;
	int64_t ms;
	char text[TEXT_MAX], todo[TEXT_MAX];
};

struct listening {
	char address[48], port[8];
	bool tls, any; /* any: every address of this machine */
};

struct selftest {
	const struct config *c;
	const char *path;
	const struct peer *peer;
	const char *calling; /* what the film's sender calls itself */
	struct listening at;
	char study_uid[UID_MAX];
	char series_uid[UID_MAX], sop_uid[UID_MAX]; /* of the report that was delivered */
	int64_t study;       /* row, once it is there */
	bool stored;
	json_t *live;
	int64_t begun, since; /* wall, boot */
	struct step step[STEPS_MAX];
	size_t n;
};

/* ---- steps -------------------------------------------------------------------------------------------------- */

static struct step *begin(struct selftest *t, const char *name, const char *format, ...) __attribute__((format(printf, 3, 4)));
static struct step *begin(struct selftest *t, const char *name, const char *format, ...)
{
	struct step *s = &t->step[t->n++];
	va_list ap;

	s->name = name;
	va_start(ap, format);
	(void)vsnprintf(s->title, sizeof(s->title), format, ap);
	va_end(ap);
	s->ms = -clock_boot_ms();
	if (!ctl_as_json && isatty(STDERR_FILENO))
		(void)fprintf(stderr, "\r\033[K%s ...", s->title);
	return s;
}

static bool end(struct step *s, enum verdict v, const char *text, const char *todo)
{
	s->ms += clock_boot_ms();
	s->verdict = v;
	(void)str_copy(s->text, sizeof(s->text), text);
	(void)str_copy(s->todo, sizeof(s->todo), v == STEP_OK ? "" : todo);
	return v == STEP_OK;
}

static void not_tried(struct selftest *t, const char *name, const char *title, const char *why)
{
	(void)end(begin(t, name, "%s", title), STEP_NOT_TRIED, why, "");
}

/* ---- carzerod-probe --------------------------------------------------------------------------------------------- */

/* Its word, and what it says behind it. */
static void probe(const struct selftest *t, const char *const *arguments, char word[24], char text[TEXT_MAX])
{
	char path[4096], line[TEXT_MAX] = "";
	const char *argv[16] = { "carzerod-probe", "-c", t->path, "--" };
	size_t n = 4, space;
	int out[2], status;
	FILE *from;
	pid_t pid;

	(void)snprintf(path, sizeof(path), "%s/carzerod-probe", helper_folder());
	while (*arguments != NULL && n + 1 < ARRAY_SIZE(argv))
		argv[n++] = *arguments++;
	if (pipe2(out, O_CLOEXEC) < 0 || (pid = fork()) < 0)
		ctl_stop(CTL_CANNOT, "selftest: %s", strerror(errno));
	if (pid == 0) {
		if (dup2(out[1], STDOUT_FILENO) < 0)
			_exit(CTL_CANNOT);
		(void)execv(path, (char *const *)(uintptr_t)argv); /* execv does not write to them */
		(void)fprintf(stderr, "carzeroctl: %s: %s\n", path, strerror(errno));
		_exit(CTL_CANNOT);
	}
	(void)close(out[1]);
	from = fdopen(out[0], "r");
	if (from == NULL)
		ctl_stop(CTL_CANNOT, "selftest: %s", strerror(errno));
	if (fgets(line, sizeof(line), from) == NULL)
		line[0] = '\0'; /* see below */
	(void)fclose(from);
	line[strcspn(line, "\n")] = '\0';
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 0 || line[0] == '\0')
		(void)str_copy(line, sizeof(line), "status carzerod-probe did not end well: see the line above");
	space = strcspn(line, " ");
	(void)snprintf(word, 24, "%.*s", (int)space, line);
	(void)str_copy(text, TEXT_MAX, line[space] != '\0' ? line + space + 1 : "");
}

static bool is(const char *word, const char *other)
{
	return strcmp(word, other) == 0;
}

/* ---- 1: the node ------------------------------------------------------------------------------------------------ */

/* Plain DICOM if it is offered, and this machine's own address if every one is. */
static bool choose_listener(struct selftest *t)
{
	static const char mapped_four[] = "::ffff:";
	json_t *item, *best = NULL;
	const char *address;
	size_t i;

	json_array_foreach(json_object_get(t->live, "listening"), i, item)
		if (best == NULL || (json_is_true(json_object_get(best, "tls")) && json_is_false(json_object_get(item, "tls"))))
			best = item;
	if (best == NULL)
		return false;
	address = json_string_value(json_object_get(best, "address"));
	if (strncmp(address, mapped_four, strlen(mapped_four)) == 0)
		address += strlen(mapped_four);
	(void)str_copy(t->at.address, sizeof(t->at.address), address);
	(void)snprintf(t->at.port, sizeof(t->at.port), "%d", (int)ctl_number(best, "port"));
	t->at.tls = json_is_true(json_object_get(best, "tls"));
	t->at.any = is(t->at.address, "0.0.0.0") || is(t->at.address, "::");
	if (t->at.any)
		(void)str_copy(t->at.address, sizeof(t->at.address), "127.0.0.1");
	return true;
}

static bool node(struct selftest *t)
{
	struct step *s = begin(t, "node", "the node runs");
	json_t *model;
	char text[TEXT_MAX];

	t->live = ctl_ask(t->c, "status");
	if (t->live == NULL) {
		(void)snprintf(text, sizeof(text), "carzerod does not answer at %s/control: %s", t->c->state_dir, strerror(errno));
		return end(s, STEP_NOT_OK, text, "systemctl start carzerod; journalctl -u carzerod says why it does not");
	}
	model = json_object_get(t->live, "model");
	(void)snprintf(text, sizeof(text), "%s, model %s (%s)", json_string_value(json_object_get(t->live, "ae_title")),
		       json_string_value(json_object_get(model, "name")), json_string_value(json_object_get(model, "domain")));
	if (json_is_false(json_object_get(model, "ready")))
		return end(s, STEP_NOT_OK, "the model is not loaded yet", "wait; the log says when it is ready, or why not");
	if (!choose_listener(t))
		return end(s, STEP_NOT_OK, "it listens nowhere", "`listen` or `tls` in the configuration, or carzerod.socket");
	if (json_is_true(json_object_get(t->live, "draining")))
		return end(s, STEP_NOT_OK, "an operator drains it: nobody is let in", "carzeroctl release");
	if (json_is_true(json_object_get(t->live, "disk_full")))
		return end(s, STEP_NOT_OK, "the disk is full: no images are taken", "make room under state_dir");
	return end(s, STEP_OK, text, "");
}

/* ---- 2 to 4: who may call whom -------------------------------------------------------------------------------------- */

static bool echo_peer(struct selftest *t)
{
	struct step *s = begin(t, "echo-peer", "C-ECHO to %s", t->peer->ae_title);
	char word[24], text[TEXT_MAX], todo[TEXT_MAX];

	probe(t, (const char *[]){ "echo", t->peer->ae_title, NULL }, word, text);
	if (is(word, "not-offered"))
		return end(s, STEP_NOT_OFFERED, text, "");
	if (is(word, "unreachable"))
		(void)snprintf(todo, sizeof(todo), "does it run, is %s:%u right in `peers`, is a firewall between?%s", t->peer->host,
			       t->peer->port, t->peer->tls ? "  Do both ends speak TLS?" : "");
	else if (is(word, "rejected"))
		(void)snprintf(todo, sizeof(todo), "tell the archive about %s and this machine's address; is its AE title %s?",
			       t->c->ae_title, t->peer->ae_title);
	else
		(void)str_copy(todo, sizeof(todo), "try again; then ask whoever keeps the archive");
	return end(s, is(word, "ok") ? STEP_OK : STEP_NOT_OK, text, todo);
}

static struct in6_addr mapped(const struct in_addr *a)
{
	struct in6_addr ret = { .s6_addr = { [10] = 0xff, [11] = 0xff } };

	memcpy(ret.s6_addr + 12, a, sizeof(*a));
	return ret;
}

static bool address_of(const char *text, struct in6_addr *ret)
{
	struct in_addr four;

	if (inet_pton(AF_INET6, text, ret) == 1)
		return true;
	if (inet_pton(AF_INET, text, &four) != 1)
		return false;
	*ret = mapped(&four);
	return true;
}

static bool own_certificate(const void *arg, const char *name)
{
	(void)arg;
	(void)name;
	return true; /* carzerod-probe shows ours; the listener judges it */
}

static bool let_in(const struct selftest *t, const char *calling, const struct in6_addr *from, const char **ret_hint)
{
	return config_access(t->c, calling, from, t->at.tls ? own_certificate : NULL, NULL, ret_hint);
}

static bool routed(const struct selftest *t, const char *calling)
{
	const struct peer *to[CONFIG_PEERS_MAX];
	unsigned unresolved;
	size_t n = config_route(t->c, calling, to, ARRAY_SIZE(to), &unresolved), i;

	for (i = 0; i < n; i++)
		if (to[i] == t->peer)
			return true;
	return false;
}

/* As whom the film is sent, so that the routes bring its report to the peer: as the peer itself, or as one that a
 * route names; of these, one that `access` lets in from here.  NULL: no route leads there. */
static const char *choose_calling(const struct selftest *t)
{
	const char *candidate[CONFIG_ROUTES_MAX + 1], *first = NULL, *hint;
	struct in6_addr from;
	size_t n = 0, i;

	candidate[n++] = t->peer->ae_title;
	for (i = 0; i < t->c->n_routes; i++)
		if (ae_title_valid(t->c->routes[i].from) && !is(t->c->routes[i].from, "*"))
			candidate[n++] = t->c->routes[i].from;
	for (i = 0; i < n; i++) {
		if (!routed(t, candidate[i]))
			continue;
		if (first == NULL)
			first = candidate[i];
		if (address_of(t->at.address, &from) && let_in(t, candidate[i], &from, &hint))
			return candidate[i];
	}
	return first;
}

static void echo_node(struct selftest *t)
{
	struct step *s = begin(t, "echo-node", "C-ECHO to us, as %s", t->peer->ae_title);
	const char *hint = "";
	char word[24], text[TEXT_MAX], todo[TEXT_MAX];
	struct in6_addr from;

	probe(t, (const char *[]){ "own-echo", t->peer->ae_title, t->at.address, t->at.port, t->at.tls ? "tls" : "plain", NULL },
	      word, text);
	if (is(word, "ok")) {
		(void)snprintf(text, sizeof(text), "from this machine to %s:%s%s; %s's own way here was not tried", t->at.address,
			       t->at.port, t->at.tls ? " by TLS" : "", t->peer->ae_title);
		(void)end(s, STEP_OK, text, "");
		return;
	}
	if (address_of(t->at.address, &from))
		(void)let_in(t, t->peer->ae_title, &from, &hint);
	(void)snprintf(todo, sizeof(todo), "%s%sthe log says who was turned away and why; this call came from %s",
		       hint != NULL ? hint : "", hint != NULL && hint[0] != '\0' ? "; " : "", t->at.address);
	(void)end(s, STEP_NOT_OK, text, todo);
}

/* Worked out from the configuration, for each address that the peer's name has. */
static void access_of_peer(struct selftest *t)
{
	struct step *s = begin(t, "access", "%s may call us", t->peer->ae_title);
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
	char text[TEXT_MAX], where[48] = "", todo[TEXT_MAX];
	struct addrinfo *list = NULL, *a;
	const char *hint = NULL;
	bool good = true;

	if (getaddrinfo(t->peer->host, NULL, &hints, &list) != 0) {
		(void)end(s, STEP_NOT_TRIED, "its address is not known", "");
		return;
	}
	for (a = list; a != NULL && good; a = a->ai_next) {
		struct in6_addr from;

		if (a->ai_family == AF_INET)
			from = mapped(&((struct sockaddr_in *)(void *)a->ai_addr)->sin_addr);
		else if (a->ai_family == AF_INET6)
			from = ((struct sockaddr_in6 *)(void *)a->ai_addr)->sin6_addr;
		else
			continue;
		(void)getnameinfo(a->ai_addr, a->ai_addrlen, where, sizeof(where), NULL, 0, NI_NUMERICHOST);
		good = let_in(t, t->peer->ae_title, &from, &hint);
	}
	freeaddrinfo(list);
	(void)snprintf(text, sizeof(text), "by `access`, %s is %s from %s (worked out, not tried)", t->peer->ae_title,
		       good ? "let in" : "turned away", where);
	(void)snprintf(todo, sizeof(todo), "only if it is to send to us: %s", hint != NULL ? hint : "");
	(void)end(s, good ? STEP_OK : STEP_NOT_OFFERED, text, "");
	if (!good)
		(void)str_copy(s->todo, sizeof(s->todo), todo);
}

/* ---- 5 to 7: the film, its score, its report ---------------------------------------------------------------------------- */

static bool store_film(struct selftest *t)
{
	struct step *s = begin(t, "store", "a drawn film stored here");
	char word[24], text[TEXT_MAX], more[TEXT_MAX];
	const char *calling = t->calling != NULL ? t->calling : t->peer->ae_title, *hint = "";
	struct in6_addr from;
	uint8_t random[16];

	if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
		ctl_stop(CTL_CANNOT, "getrandom: %s", strerror(errno));
	uid_from_name(random, "self-test", t->study_uid);
	probe(t, (const char *[]){ "own-store", calling, t->at.address, t->at.port, t->at.tls ? "tls" : "plain", t->study_uid, NULL },
	      word, text);
	t->stored = is(word, "ok");
	if (t->stored) {
		(void)snprintf(more, sizeof(more), "C-STORE as %s %.400s", calling, text);
		return end(s, STEP_OK, more, "");
	}
	if (address_of(t->at.address, &from))
		(void)let_in(t, calling, &from, &hint);
	return end(s, STEP_NOT_OK, text,
		   hint != NULL && hint[0] != '\0' ? hint : "carzeroctl status: disk, queue; the log says why it was refused");
}

/* The study and its one image, as they are now; false: not there yet. */
static bool look(struct selftest *t, struct store *db, struct study *ret_study, struct instance *ret_image)
{
	size_t n = 0;
	int r = store_find_study(db, t->study_uid, ret_study);

	if (r == -ENOENT)
		return false;
	ctl_check(db, r, "the study");
	t->study = ret_study->id;
	r = store_study_instances(db, ret_study->id, ret_image, 1, &n);
	ctl_check(db, r == -E2BIG ? 0 : r, "its images");
	return n > 0;
}

static bool score_film(struct selftest *t, struct store *db)
{
	struct step *s = begin(t, "score", "the film scored");
	int64_t until = clock_boot_ms() + SCORED_SECONDS * 1000ll;
	struct store_counts counts;
	struct score score[128];
	struct instance image = { .state = INSTANCE_READY };
	struct study study;
	char text[TEXT_MAX];
	size_t n = 0;
	int r;

	while (!(look(t, db, &study, &image) && image.state != INSTANCE_READY && image.state != INSTANCE_CLAIMED)) {
		if (clock_boot_ms() > until) {
			ctl_check(db, store_counts(db, &counts), "the database");
			(void)snprintf(text, sizeof(text), "not after %d s: %" PRIu64 " images wait", SCORED_SECONDS,
				       counts.instances[INSTANCE_READY]);
			return end(s, STEP_NOT_OK, text, "carzeroctl top: is it busy, or does a worker die again and again?");
		}
		(void)usleep(PAUSE_US);
	}
	if (image.outcome != OUTCOME_SCORED)
		return end(s, STEP_NOT_OK, image.why[0] != '\0' ? image.why : "not analysed", "carzeroctl why, with the study below");
	r = store_instance_scores(db, image.id, score, ARRAY_SIZE(score), &n);
	ctl_check(db, r == -E2BIG ? 0 : r, "scores");
	(void)snprintf(text, sizeof(text), "%zu findings (of a drawing: the numbers mean nothing)", n);
	return end(s, STEP_OK, text, "");
}

static bool report_film(struct selftest *t, struct store *db)
{
	struct step *s = begin(t, "report", "a report made of it");
	int64_t until = clock_boot_ms() + t->c->settle_max_ms + REPORTED_SECONDS * 1000ll;
	struct report report[ROWS_MAX];
	struct instance image;
	struct study study = { .state = STUDY_COLLECTING };
	char text[TEXT_MAX];
	size_t n = 0;
	int r;

	while (!(look(t, db, &study, &image) && study.state != STUDY_COLLECTING && study.state != STUDY_COMPOSING)) {
		if (clock_boot_ms() > until)
			return end(s, STEP_NOT_OK, "not yet", "carzeroctl why, with the study below");
		(void)usleep(PAUSE_US);
	}
	if (study.state != STUDY_REPORTED)
		return end(s, STEP_NOT_OK, study.why, "carzeroctl why, with the study below");
	r = store_study_reports(db, study.id, report, ROWS_MAX, &n);
	ctl_check(db, r == -E2BIG ? 0 : r, "reports");
	(void)snprintf(text, sizeof(text), "%zu files, %" PRId64 ".%" PRId64 " s after the film; settle is %.1f s", n,
		       (clock_wall_ms() - image.received) / 1000, (clock_wall_ms() - image.received) % 1000 / 100,
		       (double)t->c->settle_ms / 1000);
	return end(s, STEP_OK, text, "");
}

/* ---- 8: delivered ------------------------------------------------------------------------------------------------------ */

static bool peer_is_held(const struct selftest *t)
{
	json_t *item;
	size_t i;

	json_array_foreach(json_object_get(t->live, "destinations"), i, item)
		if (is(json_string_value(json_object_get(item, "ae_title")), t->peer->ae_title))
			return is(json_string_value(json_object_get(item, "state")), "held");
	return false;
}

static bool accepted(int status)
{
	return status == 0 || (status & 0xf000) == 0xb000 || status == 0x0111;
}

/* What is there to say of one object, and is it over? */
static bool delivery_over(const struct delivery *d)
{
	return d->state == DELIVERY_DONE || d->state == DELIVERY_PARKED ||
	       (d->state == DELIVERY_QUEUED && d->attempt > 0 && !accepted(d->status));
}

/* The rows for this peer.  True: all have come to an end for now. */
static bool look_at_deliveries(const struct selftest *t, struct store *db, struct delivery *ret, size_t *ret_n)
{
	struct delivery all[ROWS_MAX];
	bool over = true;
	size_t n = 0, i;
	int r = store_study_deliveries(db, t->study, all, ROWS_MAX, &n);

	ctl_check(db, r == -E2BIG ? 0 : r, "deliveries");
	*ret_n = 0;
	for (i = 0; i < n && i < ROWS_MAX; i++) {
		if (!is(all[i].destination, t->peer->ae_title))
			continue;
		over &= delivery_over(&all[i]);
		ret[(*ret_n)++] = all[i];
	}
	return over;
}

/* The object to look for afterwards: the report, or whatever came. */
static void remember(struct selftest *t, struct store *db, const struct delivery *d)
{
	struct report report[ROWS_MAX];
	size_t n = 0, i;
	int r = store_study_reports(db, t->study, report, ROWS_MAX, &n);

	ctl_check(db, r == -E2BIG ? 0 : r, "reports");
	for (i = 0; i < n && i < ROWS_MAX; i++)
		if (report[i].id == d->report && (t->sop_uid[0] == '\0' || is(d->kind, "SR"))) {
			(void)str_copy(t->series_uid, UID_MAX, report[i].series_uid);
			(void)str_copy(t->sop_uid, UID_MAX, report[i].sop_uid);
		}
}

static bool judge_deliveries(struct selftest *t, struct store *db, struct step *s, const struct delivery *d, size_t n)
{
	char text[TEXT_MAX] = "", todo[TEXT_MAX];
	const struct delivery *bad = NULL;
	size_t done = 0, i;
	bool report_failed = false;

	for (i = 0; i < n; i++) {
		size_t used = strlen(text);

		if (d[i].state == DELIVERY_DONE) {
			done++;
			remember(t, db, &d[i]);
			(void)snprintf(text + used, sizeof(text) - used, "%s%s %04XH", used > 0 ? ", " : "", d[i].kind,
				       (unsigned)d[i].status & 0xffff);
			continue;
		}
		report_failed |= is(d[i].kind, "SR");
		if (bad == NULL || is(d[i].kind, "SR"))
			bad = &d[i];
	}
	if (bad == NULL)
		return end(s, STEP_OK, text, "");
	if (delivery_over(bad)) {
		(void)snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s not taken: %.400s", done > 0 ? ", " : "",
			       bad->kind, bad->why);
		(void)snprintf(todo, sizeof(todo), "mend what it says; it is tried again by itself%s",
			       bad->state == DELIVERY_PARKED ? " tomorrow, and at once by carzeroctl flush" : "");
	} else if (bad->state == DELIVERY_QUEUED && bad->attempt > 0) {
		(void)snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s stored; its commitment has not been told yet",
			       done > 0 ? ", " : "", bad->kind);
		(void)str_copy(todo, sizeof(todo), "does the archive know where we listen?  `commitment` of this peer");
	} else {
		(void)snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s waits still: %.400s", done > 0 ? ", " : "",
			       bad->kind, bad->why[0] != '\0' ? bad->why : "others are before it, or the destination rests");
		(void)str_copy(todo, sizeof(todo), "carzeroctl queue");
	}
	return end(s, done > 0 && !report_failed ? STEP_OK : STEP_NOT_OK, text, todo);
}

static bool deliver(struct selftest *t, struct store *db, bool answers)
{
	struct step *s = begin(t, "deliver", "sent to %s", t->peer->ae_title);
	int64_t until = clock_boot_ms() + (answers ? DELIVERED_SECONDS : DOUBTFUL_SECONDS) * 1000ll;
	struct delivery d[ROWS_MAX];
	char text[TEXT_MAX], todo[TEXT_MAX];
	size_t n = 0;

	if (t->calling == NULL) {
		(void)snprintf(text, sizeof(text), "no route leads to %s", t->peer->ae_title);
		(void)snprintf(todo, sizeof(todo), "routes: - {from: \"*\", to: [%s]}; then carzeroctl reload", t->peer->ae_title);
		return end(s, STEP_NOT_OK, text, todo);
	}
	if (t->peer->shadow)
		return end(s, STEP_NOT_TRIED, "`shadow: true` of this peer: reports are made and kept", "");
	if (peer_is_held(t)) {
		(void)snprintf(todo, sizeof(todo), "carzeroctl release %s", t->peer->ae_title);
		return end(s, STEP_NOT_OK, "deliveries to it are held", todo);
	}
	while (!look_at_deliveries(t, db, d, &n) && clock_boot_ms() <= until)
		(void)usleep(PAUSE_US);
	if (n == 0)
		return end(s, STEP_NOT_OK, "no delivery was made", "is the file in force?  carzeroctl config diff");
	return judge_deliveries(t, db, s, d, n);
}

/* ---- 9: found ------------------------------------------------------------------------------------------------------------ */

static bool find(struct selftest *t)
{
	struct step *s = begin(t, "find", "found there by C-FIND");
	int64_t until = clock_boot_ms() + FOUND_SECONDS * 1000ll;
	char word[24], text[TEXT_MAX];

	for (;;) {
		probe(t, (const char *[]){ "find", t->peer->ae_title, t->study_uid, t->series_uid, t->sop_uid, NULL }, word, text);
		if (!is(word, "absent") || clock_boot_ms() > until)
			break;
		(void)usleep(PAUSE_US);
	}
	if (is(word, "not-offered"))
		return end(s, STEP_NOT_OFFERED, text, "look for it in the archive's own list, by the patient below");
	return end(s, is(word, "ok") ? STEP_OK : STEP_NOT_OK, text,
		   is(word, "absent") ? "it said that it took the report: ask whoever keeps the archive where it is"
				      : "does the archive let us query?");
}

/* ---- the page -------------------------------------------------------------------------------------------------------------- */

static unsigned count(const struct selftest *t, enum verdict v)
{
	unsigned n = 0;

	for (size_t i = 0; i < t->n; i++)
		n += t->step[i].verdict == v;
	return n;
}

static int code_of(const struct selftest *t)
{
	return count(t, STEP_NOT_OK) > 0 ? CTL_CANNOT : count(t, STEP_NOT_TRIED) > 0 ? CTL_ATTENTION : CTL_GOOD;
}

/* All destinations that have, or will have, something of the study. */
static json_t *left_at(struct selftest *t, struct store *db)
{
	struct delivery d[ROWS_MAX];
	json_t *at = json_object();
	size_t n = 0, i;

	if (t->study == 0)
		return at;
	ctl_check(db, store_study_deliveries(db, t->study, d, ROWS_MAX, &n), "deliveries");
	for (i = 0; i < n; i++) {
		json_t *was = json_object_get(at, d[i].destination);
		bool done = d[i].state == DELIVERY_DONE && (was == NULL || json_is_true(was));

		(void)json_object_set_new(at, d[i].destination, json_boolean(done));
	}
	return at;
}

static void print_page(struct selftest *t, json_t *at)
{
	static const char *const outcome[] = { "PASSED", "NOT COMPLETE", "NOT PASSED" };
	int64_t ms = clock_boot_ms() - t->since;
	char when[32];
	const char *ae;
	json_t *done;
	size_t i;

	if (isatty(STDERR_FILENO))
		(void)fprintf(stderr, "\r\033[K");
	printf("carzerod self-test with %s: %s: %u ok, %u not ok, %u not offered, %u not tried, in %.1f s\n", t->peer->ae_title,
	       outcome[code_of(t)], count(t, STEP_OK), count(t, STEP_NOT_OK), count(t, STEP_NOT_OFFERED), count(t, STEP_NOT_TRIED),
	       (double)ms / 1000);
	printf("%s  carzerod %s, %s  with  %s at %s:%u%s\n\n", ctl_when(t->begun, when), PACKAGE_VERSION, t->c->ae_title,
	       t->peer->ae_title, t->peer->host, t->peer->port, t->peer->tls ? " (TLS)" : "");
	for (i = 0; i < t->n; i++) {
		const struct step *s = &t->step[i];

		printf("%-11s %5.1f s  %s: %s\n", verdict_names[s->verdict], (double)s->ms / 1000, s->title, s->text);
		if (s->todo[0] != '\0')
			printf("%22s-> %s\n", "", s->todo);
	}
	if (t->stored) {
		printf("\nIt leaves study %s\nof \"SELFTEST^CARZEROD\", marked Quality Control Image, no patient: here (carzeroctl purge removes it)",
		       t->study_uid);
		json_object_foreach(at, ae, done)
			printf(", %s %s", json_is_true(done) ? "at" : "on its way to", ae);
		printf(".\n");
	}
	printf("\nSigned off by: ____________________   date: __________\n");
}

static void print_json(struct selftest *t, json_t *at)
{
	json_t *steps = json_array();

	for (size_t i = 0; i < t->n; i++) {
		const struct step *s = &t->step[i];

		(void)json_array_append_new(steps, json_pack("{s:s, s:s, s:s, s:I, s:s, s:s}", "step", s->name, "title", s->title,
							     "result", verdict_names[s->verdict], "ms", (json_int_t)s->ms, "text",
							     s->text, "todo", s->todo));
	}
	ctl_print_json(json_pack("{s:s, s:b, s:I, s:I, s:I, s:I, s:s, s:o, s:I, s:s, s:O, s:o}", "peer", t->peer->ae_title, "passed",
				 code_of(t) == CTL_GOOD, "ok", (json_int_t)count(t, STEP_OK), "not_ok",
				 (json_int_t)count(t, STEP_NOT_OK), "not_offered", (json_int_t)count(t, STEP_NOT_OFFERED), "not_tried",
				 (json_int_t)count(t, STEP_NOT_TRIED), "version", PACKAGE_VERSION, "begun", ctl_stamp(t->begun), "ms",
				 (json_int_t)(clock_boot_ms() - t->since), "study_uid", t->stored ? t->study_uid : "", "left_at", at,
				 "steps", steps));
}

/* Everything behind the first failure that matters is not tried, and says so. */
static void run(struct selftest *t, struct store *db)
{
	static const struct {
		const char *name, *title;
	} rest[] = { { "store", "a drawn film stored here" }, { "score", "the film scored" }, { "report", "a report made of it" },
		     { "deliver", "sent on" }, { "find", "found there by C-FIND" } };
	bool answers = echo_peer(t);
	size_t reached = 0;

	answers |= t->step[t->n - 1].verdict == STEP_NOT_OFFERED;
	echo_node(t);
	access_of_peer(t);
	t->calling = choose_calling(t);
	if (store_film(t) && ++reached && score_film(t, db) && ++reached && report_film(t, db) && ++reached)
		reached += deliver(t, db, answers);
	if (reached == 4 && t->sop_uid[0] != '\0') {
		(void)find(t);
		return;
	}
	for (size_t i = reached + 1; i < ARRAY_SIZE(rest); i++)
		not_tried(t, rest[i].name, rest[i].title, "a step before it did not end well");
}

int ctl_selftest(const struct config *c, const char *path, const char *ae_title)
{
	struct selftest t = { .c = c, .path = path, .begun = clock_wall_ms(), .since = clock_boot_ms() };
	struct store *db;
	json_t *at;

	t.peer = config_peer(c, ae_title);
	if (t.peer == NULL)
		ctl_stop(CTL_USAGE, "selftest: no peer is called '%s' in %s", ae_title, path);
	if (!node(&t)) {
		at = json_object();
	} else {
		db = ctl_open_store(c);
		run(&t, db);
		at = left_at(&t, db);
		store_close(db);
	}
	if (ctl_as_json)
		print_json(&t, at);
	else
		print_page(&t, at);
	json_decref(at);
	json_decref(t.live);
	return code_of(&t);
}
