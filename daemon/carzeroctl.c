/* carzeroctl.c: the operator's tool.
 *
 * Reads the database through a read-only connection of its own (works while the node is stopped,
 * never holds the keeper up) and asks the keeper's socket for what lives in its memory.  It prints
 * our numbers, AE titles, times, reasons, scores; of a patient it prints nothing but the Study
 * Instance UID that the operator gave or asked for.
 *
 * Exit codes: 0 good, 1 something wants attention (status), 2 cannot tell, 64 wrong usage.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <jansson.h>

#include "base/clock.h"
#include "base/fdio.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"

#include "store/store.h"

#include "model/manifest.h"

#include "daemon/config.h"
#include "daemon/ctl.h"
#include "daemon/helper.h"
#include "daemon/findings.h"
#include "daemon/yaml.h"

#define PAGE 100
#define SHOW_MAX 1024
#define ANSWER_MAX (256 * 1024)
#define ANSWER_SECONDS 5
#define YAML_EVENTS_MAX 10000
#define RESCORE_NICE 19
#define RELOAD_PAUSE_US 100000
#define RELOAD_TRIES 3100

static const char usage[] =
	"Usage: carzeroctl [-c FILE] [--json] COMMAND\n"
	"\n"
	"  status              is it running, what waits, what wants attention (exit code 1)\n"
	"  studies [N]         the newest N studies (20) and how each ended\n"
	"  show STUDY_UID      one study: images, scores, reports, deliveries\n"
	"  why STUDY_UID       what happened to it in order of time, and what would change it\n"
	"  queue               deliveries that are not done: destination, attempts, next try, reason\n"
	"  flush [AE_TITLE]    try waiting and parked deliveries now\n"
	"  conformance         tables of the DICOM conformance statement\n"
	"  fetch PEER ...      bring studies from an archive; fetch --help\n"
	"  selftest --peer AE  a drawn film the whole way: both C-ECHOs, stored, scored, reported, sent, found again\n"
	"  rescore ...         score images of the past with another findings list; rescore --help\n"
	"  requeue OBJECT      analyse an object again (its number is in show)\n"
	"  hold AE_TITLE       keep deliveries to a destination back, until release AE_TITLE\n"
	"  release [AE_TITLE]  let them go; without a name: accept associations again\n"
	"  drain               accept no association any more and wait until the work is done\n"
	"  top [N]             status again every 2 seconds (N times)\n"
	"  config WHAT         check: is the file good; show: what is in force; diff: what a reload would change\n"
	"  reload              read configuration and findings again; a bad one changes nothing\n"
	"  backup              copy the database now, checked, beside the hourly copies\n"
	"  verify              read every file that the database names and compare it with its digest\n"
	"  disktest            how fast state_dir's disk makes things durable, and whether that can be true\n"
	"  purge STUDY_UID     remove all of a study, sent or not; nothing brings it back\n"
	"  purge --older-than AGE   remove studies that were quiet for AGE (90d, 24h) and are sent\n"
	"\n"
	"  -c, --config FILE   configuration (" CONFIG_DEFAULT_PATH ")\n"
	"      --json          JSON instead of text\n"
	"  -h, --help          this text\n"
	"  -V, --version       version\n";

bool ctl_as_json;
static const char *older_than; /* of purge */
static const char *with_peer;  /* of selftest */

static const char *const instance_states[] = { "waiting", "in work", "settled", "quarantined", "set aside" };
static const char *const outcomes[] = { "-", "scored", "not analysed", "failed", "silent" };
static const char *const study_states[] = { "collecting", "composing", "reported", "silent", "parked" };
static const char *const delivery_states[] = { "queued", "sending", "done", "parked" };

void ctl_stop(int code, const char *format, ...)
{
	va_list ap;

	(void)fputs("carzeroctl: ", stderr);
	va_start(ap, format);
	(void)vfprintf(stderr, format, ap);
	va_end(ap);
	(void)fputc('\n', stderr);
	exit(code);
}

void ctl_print_json(json_t *j)
{
	char *text = json_dumps(j, JSON_INDENT(2) | JSON_REAL_PRECISION(9));

	if (text == NULL)
		ctl_stop(2, "out of memory");
	(void)puts(text);
	free(text);
	json_decref(j);
}

/* Local time for people; JSON carries UTC stamps. */
const char *ctl_when(int64_t ms, char ret[32])
{
	char date[9], time[14], offset[6];

	if (ms == 0 || ms == INT64_MAX)
		return "-";
	clock_dicom_local(ms, date, time, offset);
	(void)snprintf(ret, 32, "%.4s-%.2s-%.2s %.2s:%.2s:%.2s", date, date + 4, date + 6, time, time + 2, time + 4);
	return ret;
}

json_t *ctl_stamp(int64_t ms)
{
	char text[CLOCK_STAMP_MAX];

	if (ms == 0 || ms == INT64_MAX)
		return json_null();
	clock_stamp(ms, text);
	return json_string(text);
}

const char *ctl_age(int64_t ms, char ret[32])
{
	int64_t s = ms / 1000;

	if (s < 120)
		(void)snprintf(ret, 32, "%" PRId64 " s", s);
	else if (s < 7200)
		(void)snprintf(ret, 32, "%" PRId64 " min", s / 60);
	else if (s < 172800)
		(void)snprintf(ret, 32, "%" PRId64 " h", s / 3600);
	else
		(void)snprintf(ret, 32, "%" PRId64 " d", s / 86400);
	return ret;
}

struct store *ctl_open_store(const struct config *c)
{
	char path[4096];
	struct store *s;
	struct err e;

	(void)snprintf(path, sizeof(path), "%s/carzerod.db", c->state_dir);
	if (store_open_reader(path, &s, &e) < 0)
		ctl_stop(2, "%s", e.text);
	return s;
}

void ctl_check(struct store *s, int r, const char *what)
{
	if (r < 0)
		ctl_stop(2, "cannot read %s: %s (%s)", what, strerror(-r), store_error(s));
}

/* ---- the keeper's socket --------------------------------------------------------------------------- */

/* NULL when no keeper answers; errno says why. */
json_t *ctl_ask(const struct config *c, const char *request)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct timeval limit = { .tv_sec = ANSWER_SECONDS };
	CLEANUP(close) int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	CLEANUP(free) char *text = xcalloc(1, ANSWER_MAX);
	ssize_t n;

	if (snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/control", c->state_dir) >= (int)sizeof(sa.sun_path)) {
		errno = ENAMETOOLONG;
		return NULL;
	}
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0 ||
	    connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || send(fd, request, strlen(request), MSG_NOSIGNAL) < 0)
		return NULL;
	n = recv(fd, text, ANSWER_MAX, 0);
	if (n == 0)
		errno = ECONNRESET;
	if (n <= 0)
		return NULL;
	return json_loadb(text, (size_t)n, 0, NULL);
}

json_t *ctl_ask_or_stop(const struct config *c, const char *request)
{
	json_t *j = ctl_ask(c, request);
	const char *error;

	if (j == NULL)
		ctl_stop(2, "carzerod does not answer at %s/control: %s; is it running, and are you allowed?", c->state_dir,
		     strerror(errno));
	error = json_string_value(json_object_get(j, "error"));
	if (error != NULL)
		ctl_stop(2, "%s", error);
	return j;
}

/* ---- status ------------------------------------------------------------------------------------------ */

json_int_t ctl_number(json_t *j, const char *key)
{
	return json_integer_value(json_object_get(j, key));
}

static void print_live(json_t *live)
{
	json_t *model = json_object_get(live, "model"), *space = json_object_get(live, "space"), *item;
	json_t *tls = json_object_get(live, "tls"), *audit = json_object_get(live, "audit");
	char text[32];
	size_t i;

	printf("carzerod %s running as \"%s\" for %s, pid %" JSON_INTEGER_FORMAT "\n",
	       json_string_value(json_object_get(live, "version")), json_string_value(json_object_get(live, "ae_title")),
	       ctl_age((int64_t)ctl_number(live, "seconds") * 1000, text), ctl_number(live, "pid"));
	if (json_is_true(json_object_get(model, "ready")))
		printf("model        %s (%s)%s\n", json_string_value(json_object_get(model, "name")),
		       json_string_value(json_object_get(model, "domain")),
		       strcmp(json_string_value(json_object_get(model, "domain")), "clinical") != 0 ? ": " MODEL_STAMP : "");
	else
		printf("model        loading\n");
	printf("disk         %.1f GiB free of %.1f GiB\n", (double)ctl_number(space, "free") / (1 << 30),
	       (double)ctl_number(space, "total") / (1 << 30));
	printf("receiving    %" JSON_INTEGER_FORMAT " associations open\n", ctl_number(live, "associations"));
	json_array_foreach(json_object_get(live, "processes"), i, item) {
		if (!json_is_true(json_object_get(item, "ready")) || ctl_number(item, "restarts") > 0)
			printf("process      %s %s, restarted %" JSON_INTEGER_FORMAT " times\n",
			       json_string_value(json_object_get(item, "program")),
			       json_is_true(json_object_get(item, "ready")) ? "ready" : "not ready",
			       ctl_number(item, "restarts"));
	}
	if (json_is_object(tls))
		printf("tls          %s ends in %" JSON_INTEGER_FORMAT " days\n",
		       json_string_value(json_object_get(tls, "first_to_end")), ctl_number(tls, "days"));
	if (json_is_object(audit) && ctl_number(audit, "waiting") > 0)
		printf("audit        %" JSON_INTEGER_FORMAT " records wait for %s%s\n", ctl_number(audit, "waiting"),
		       json_string_value(json_object_get(audit, "host")),
		       json_is_true(json_object_get(audit, "taken")) ? "" : ", which does not take them");
	json_array_foreach(json_object_get(live, "destinations"), i, item)
		printf("destination  %-16s %s%s\n", json_string_value(json_object_get(item, "ae_title")),
		       json_string_value(json_object_get(item, "state")),
		       json_is_true(json_object_get(item, "available")) ? "" : ", UNAVAILABLE");
}

static const char not_running[] = "carzerod is not running";

/* What an operator should look at, or NULL. */
static const char *attention(const struct store_counts *n, json_t *live)
{
	json_t *item;
	size_t i;

	if (live == NULL)
		return not_running;
	if (ctl_number(live, "lost_objects") > 0)
		return "files of objects are missing from the spool: see the log of the last start";
	if (json_is_true(json_object_get(live, "disk_full")))
		return "the disk is full: no images are taken";
	if (json_is_true(json_object_get(live, "draining")))
		return "an operator drains the node: carzeroctl release ends it";
	if (n->instances[INSTANCE_QUARANTINED] > 0)
		return "objects are quarantined: see carzeroctl studies";
	if (n->deliveries[DELIVERY_PARKED] > 0)
		return "deliveries are parked: see carzeroctl queue";
	if (n->studies[STUDY_PARKED] > 0)
		return "studies are parked: see carzeroctl studies";
	if (json_is_true(json_object_get(json_object_get(live, "audit"), "full")))
		return "audit records are left out: their repository takes none, and too many wait";
	if (json_is_true(json_object_get(json_object_get(live, "tls"), "soon")))
		return "what TLS needs ends soon or has ended: renew it, then reload";
	json_array_foreach(json_object_get(live, "destinations"), i, item) {
		if (!json_is_true(json_object_get(item, "available")))
			return "a destination is unavailable: see carzeroctl queue";
	}
	return NULL;
}

static json_t *counts_json(const struct store_counts *n)
{
	return json_pack(
		"{s:{s:I,s:I,s:I,s:I,s:I,s:I}, s:{s:I,s:I,s:I,s:I,s:I}, s:{s:I,s:I,s:I,s:I}, s:I, s:o, s:o, s:o}", "objects",
		"waiting", (json_int_t)n->instances[0], "slow_lane", (json_int_t)n->slow, "in_work", (json_int_t)n->instances[1], "settled",
		(json_int_t)n->instances[2], "quarantined", (json_int_t)n->instances[3], "set_aside",
		(json_int_t)n->instances[4], "studies", "collecting", (json_int_t)n->studies[0], "composing",
		(json_int_t)n->studies[1], "reported", (json_int_t)n->studies[2], "silent", (json_int_t)n->studies[3],
		"parked", (json_int_t)n->studies[4], "deliveries", "queued", (json_int_t)n->deliveries[0], "sending",
		(json_int_t)n->deliveries[1], "done", (json_int_t)n->deliveries[2], "parked",
		(json_int_t)n->deliveries[3], "reports", (json_int_t)n->reports, "oldest_waiting",
		ctl_stamp(n->oldest_ready), "oldest_slow", ctl_stamp(n->oldest_slow), "oldest_delivery", ctl_stamp(n->oldest_delivery));
}

static int command_status(const struct config *c)
{
	struct store *s = ctl_open_store(c);
	json_t *live = ctl_ask(c, "status");
	struct store_counts n;
	const char *why;
	char text[32];

	ctl_check(s, store_counts(s, &n), "the database");
	why = attention(&n, live);
	if (ctl_as_json) {
		json_t *j = json_pack("{s:b, s:s?, s:o, s:O?}", "good", why == NULL, "attention", why, "counts",
				      counts_json(&n), "live", live);

		ctl_print_json(j);
	} else {
		if (live != NULL)
			print_live(live);
		printf("images       %llu waiting, %llu in work, %llu settled, %llu quarantined, %llu set aside\n",
		       (unsigned long long)n.instances[0], (unsigned long long)n.instances[1],
		       (unsigned long long)n.instances[2], (unsigned long long)n.instances[3],
		       (unsigned long long)n.instances[4]);
		printf("studies      %llu collecting, %llu reported, %llu silent, %llu parked\n",
		       (unsigned long long)(n.studies[0] + n.studies[1]), (unsigned long long)n.studies[2],
		       (unsigned long long)n.studies[3], (unsigned long long)n.studies[4]);
		printf("deliveries   %llu waiting, %llu done, %llu parked\n",
		       (unsigned long long)(n.deliveries[0] + n.deliveries[1]), (unsigned long long)n.deliveries[2],
		       (unsigned long long)n.deliveries[3]);
		if (n.slow > 0)
			printf("slow lane    %llu of these images, the oldest waits for %s\n", (unsigned long long)n.slow,
			       ctl_age(clock_wall_ms() - n.oldest_slow, text));
		if (n.oldest_ready != 0)
			printf("oldest image waits for %s\n", ctl_age(clock_wall_ms() - n.oldest_ready, text));
		if (n.oldest_delivery != 0)
			printf("oldest delivery waits for %s\n", ctl_age(clock_wall_ms() - n.oldest_delivery, text));
		printf("%s%s\n", why == NULL ? "all good" : "ATTENTION    ", why == NULL ? "" : why);
	}
	json_decref(live);
	store_close(s);
	return why == NULL ? CTL_GOOD : why == not_running ? CTL_CANNOT : CTL_ATTENTION;
}

/* ---- studies ------------------------------------------------------------------------------------------ */

static json_t *study_json(const struct study *st)
{
	return json_pack("{s:I, s:s, s:s, s:i, s:s, s:o}", "study", (json_int_t)st->id, "study_uid", st->study_uid,
			 "state", study_states[st->state], "reports", (int)st->revision, "why", st->why, "received",
			 ctl_stamp(st->created));
}

static int command_studies(const struct config *c, uint64_t wanted)
{
	struct store *s = ctl_open_store(c);
	struct study page[PAGE];
	json_t *list = json_array();
	int64_t before = INT64_MAX;
	char text[32];
	size_t n, i;

	if (!ctl_as_json)
		printf("%-8s %-19s  %-10s %7s  %s\n", "STUDY", "RECEIVED", "STATE", "REPORTS", "STUDY INSTANCE UID / REASON");
	while (wanted > 0) {
		ctl_check(s, store_list_studies(s, before, page, wanted < PAGE ? wanted : PAGE, &n), "studies");
		if (n == 0)
			break;
		for (i = 0; i < n; i++) {
			if (ctl_as_json)
				(void)json_array_append_new(list, study_json(&page[i]));
			else {
				printf("%-8" PRId64 " %-19s  %-10s %7u  %s\n", page[i].id, ctl_when(page[i].created, text),
				       study_states[page[i].state], page[i].revision, page[i].study_uid);
				if (page[i].why[0] != '\0')
					printf("%51s%s\n", "", page[i].why);
			}
			before = page[i].id;
		}
		wanted -= n;
	}
	if (ctl_as_json)
		ctl_print_json(list);
	else
		json_decref(list);
	store_close(s);
	return 0;
}

/* ---- show ------------------------------------------------------------------------------------------- */

static json_t *scores_json(const struct score *scores, size_t n)
{
	json_t *a = json_array();
	size_t i;

	for (i = 0; i < n; i++) {
		json_t *p = isnan(scores[i].probability) ? json_null() : json_real((double)scores[i].probability);

		(void)json_array_append_new(a, json_pack("{s:s, s:f, s:o, s:s}", "finding", scores[i].finding, "logit",
							 (double)scores[i].logit, "probability", p, "decision",
							 decision_name((enum decision)scores[i].decision)));
	}
	return a;
}

static void print_scores(const struct score *scores, size_t n)
{
	size_t i;

	printf("    %-28s %9s  %-11s %s\n", "finding", "logit", "probability", "decision");
	for (i = 0; i < n; i++) {
		char p[16] = "-";

		if (!isnan(scores[i].probability))
			(void)snprintf(p, sizeof(p), "%.1f %%", 100.0 * (double)scores[i].probability);
		printf("    %-28s %9.4f  %-11s %s\n", scores[i].finding, (double)scores[i].logit, p,
		       decision_name((enum decision)scores[i].decision));
	}
}

static json_t *show_instance(struct store *s, const struct instance *in)
{
	struct score scores[STORE_SCORES_MAX];
	char text[32];
	size_t n = 0;

	ctl_check(s, store_instance_scores(s, in->id, scores, ARRAY_SIZE(scores), &n), "scores");
	if (ctl_as_json)
		return json_pack("{s:I, s:s, s:s, s:i, s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:I, s:o, s:s, s:s, s:o}", "object",
				 (json_int_t)in->id, "sop_uid", in->sop_uid, "sop_class", in->sop_class, "revision",
				 (int)in->revision, "calling_ae", in->calling_ae, "from", in->peer, "state",
				 instance_states[in->state], "outcome", outcomes[in->outcome], "why", in->why,
				 "attempts", (int)in->attempt, "repeats", (int)in->repeats, "bytes",
				 (json_int_t)in->size, "received", ctl_stamp(in->received), "recipe", in->recipe,
				 "precision", in->precision, "scores", scores_json(scores, n));
	printf("  object %" PRId64 "  %s  %s from \"%s\" (%s), revision %u, %s", in->id, ctl_when(in->received, text),
	       instance_states[in->state], in->calling_ae, in->peer, in->revision, outcomes[in->outcome]);
	if (in->repeats > 0)
		printf(", sent again %u times", in->repeats);
	if (in->attempt > 1)
		printf(", %u attempts", in->attempt);
	printf("\n    SOP Instance UID %s\n", in->sop_uid);
	if (in->why[0] != '\0')
		printf("    %s\n", in->why);
	if (n > 0)
		print_scores(scores, n);
	return NULL;
}

static const char *class_of(const struct report *r)
{
	size_t i;

	for (i = 0; i < SR_CLASS_COUNT; i++) {
		if (strcmp(r->sop_class, sr_class_uid((enum sr_class)i)) == 0)
			return sr_class_name((enum sr_class)i);
	}
	return r->sop_class;
}

static json_t *show_report(const struct report *r)
{
	char text[32], hex[17];

	(void)snprintf(hex, sizeof(hex), "%016" PRIx64, r->file);
	if (ctl_as_json)
		return json_pack("{s:I, s:s, s:i, s:s, s:s, s:s, s:I, s:o}", "report", (json_int_t)r->id, "kind", r->kind,
				 "revision", (int)r->revision, "sop_class", r->sop_class, "sop_uid", r->sop_uid, "file",
				 hex, "bytes", (json_int_t)r->size, "created", ctl_stamp(r->created));
	printf("  %s revision %u  %-16s  %s  %llu bytes, spool/reports/%.2s/%s\n    SOP Instance UID %s\n", r->kind,
	       r->revision, class_of(r), ctl_when(r->created, text), (unsigned long long)r->size, hex, hex, r->sop_uid);
	return NULL;
}

const char *ctl_rank(enum store_rank rank)
{
	static const char *const names[] = { "urgent", "routine", "slow" };

	return names[rank];
}

static json_t *delivery_json(const struct delivery *d)
{
	return json_pack("{s:I, s:I, s:i, s:s, s:s, s:s, s:s, s:i, s:i, s:s, s:o, s:o, s:o}", "delivery", (json_int_t)d->id,
			 "study", (json_int_t)d->study, "revision", (int)d->revision, "kind", d->kind, "destination",
			 d->destination, "urgency", ctl_rank(d->rank), "state", delivery_states[d->state], "attempts", (int)d->attempt, "status",
			 d->status, "why", d->why, "due", ctl_stamp(d->due), "created", ctl_stamp(d->created), "finished",
			 ctl_stamp(d->finished));
}

static void print_delivery(const struct delivery *d)
{
	char text[32], status[24] = "";

	if (d->status >= 0)
		(void)snprintf(status, sizeof(status), " status %04XH", (unsigned)d->status & 0xffff);
	printf("%-8" PRId64 " %-16s %-2s %-8s %8u  %-19s%s %s\n", d->id, d->destination, d->kind,
	       delivery_states[d->state], d->attempt,
	       d->state == DELIVERY_DONE ? ctl_when(d->finished, text) : ctl_when(d->due, text), status, d->why);
}

/* What scores of these weights must be read with, or NULL.  Of weights that are not the bundle's any more nothing is known. */
static const char *stamp_of(const struct config *c, const uint8_t weights[DIGEST_SIZE])
{
	char path[PATH_MAX];
	struct manifest m;
	struct err e;

	if (snprintf(path, sizeof(path), "%s/model.json", c->model) >= (int)sizeof(path) ||
	    manifest_read(path, &m, &e) < 0)
		return NULL;
	return m.domain != MODEL_CLINICAL && memcmp(m.digest, weights, DIGEST_SIZE) == 0 ? MODEL_STAMP : NULL;
}

static int command_show(const struct config *c, const char *study_uid)
{
	const char *stamp = NULL;
	struct store *s = ctl_open_store(c);
	struct instance *instances = xcalloc(SHOW_MAX, sizeof(*instances));
	struct report *reports = xcalloc(SHOW_MAX, sizeof(*reports));
	struct delivery *deliveries = xcalloc(SHOW_MAX, sizeof(*deliveries));
	json_t *ji = json_array(), *jr = json_array(), *jd = json_array();
	size_t n, i;
	struct study st;
	int r = store_find_study(s, study_uid, &st);

	if (r == -ENOENT)
		ctl_stop(2, "no such study; carzeroctl studies lists them");
	ctl_check(s, r, "the study");
	if (!ctl_as_json)
		printf("study %" PRId64 "  %s  %s\n%s%s%s", st.id, st.study_uid, study_states[st.state], st.why[0] ? "  " : "",
		       st.why, st.why[0] ? "\n" : "");
	r = store_study_instances(s, st.id, instances, SHOW_MAX, &n);
	ctl_check(s, r == -E2BIG ? 0 : r, "objects");
	for (i = 0; i < n && i < SHOW_MAX && stamp == NULL; i++)
		stamp = instances[i].outcome == OUTCOME_SCORED ? stamp_of(c, instances[i].weights) : NULL;
	if (!ctl_as_json && stamp != NULL)
		printf("  %s\n", stamp);
	for (i = 0; i < n && i < SHOW_MAX; i++) {
		json_t *j = show_instance(s, &instances[i]);

		if (j != NULL)
			(void)json_array_append_new(ji, j);
	}
	r = store_study_reports(s, st.id, reports, SHOW_MAX, &n);
	ctl_check(s, r == -E2BIG ? 0 : r, "reports");
	if (!ctl_as_json && n > 0)
		printf("reports (one file for each SR class; a destination gets the first that it accepts)\n");
	for (i = 0; i < n && i < SHOW_MAX; i++) {
		json_t *j = show_report(&reports[i]);

		if (j != NULL)
			(void)json_array_append_new(jr, j);
	}
	r = store_study_deliveries(s, st.id, deliveries, SHOW_MAX, &n);
	ctl_check(s, r == -E2BIG ? 0 : r, "deliveries");
	if (!ctl_as_json && n > 0)
		printf("deliveries\n");
	for (i = 0; i < n && i < SHOW_MAX; i++) {
		if (ctl_as_json)
			(void)json_array_append_new(jd, delivery_json(&deliveries[i]));
		else {
			(void)fputs("  ", stdout);
			print_delivery(&deliveries[i]);
		}
	}
	if (ctl_as_json) {
		json_t *j = study_json(&st);

		(void)json_object_set_new(j, "stamp", stamp != NULL ? json_string(stamp) : json_null());
		(void)json_object_set(j, "objects", ji);
		(void)json_object_set(j, "report_files", jr);
		(void)json_object_set(j, "deliveries", jd);
		ctl_print_json(j);
	}
	json_decref(ji);
	json_decref(jr);
	json_decref(jd);
	free(instances);
	free(reports);
	free(deliveries);
	store_close(s);
	return 0;
}

/* ---- queue -------------------------------------------------------------------------------------------- */

/* As postqueue -p prints mail: one that waits, and under it why. */
static void print_queued(const struct delivery *d)
{
	char created[32], due[32], status[24] = "";

	if (d->status >= 0)
		(void)snprintf(status, sizeof(status), "status %04XH: ", (unsigned)d->status & 0xffff);
	printf("%-8" PRId64 " %-19s  %-16s %-3s %-8s %-8s %8u  %-19s\n", d->id, ctl_when(d->created, created), d->destination, d->kind,
	       ctl_rank(d->rank), delivery_states[d->state], d->attempt, ctl_when(d->due, due));
	if (d->why[0] != '\0')
		printf("%9s(%s%s)\n", "", status, d->why);
}

static int command_queue(const struct config *c)
{
	struct store *s = ctl_open_store(c);
	struct delivery page[PAGE];
	json_t *list = json_array();
	int64_t after = 0, oldest = INT64_MAX;
	unsigned total = 0;
	char text[32];
	size_t n, i;

	for (;;) {
		ctl_check(s, store_list_deliveries(s, after, page, PAGE, &n), "deliveries");
		if (n == 0)
			break;
		for (i = 0; i < n; i++, total++) {
			if (total == 0 && !ctl_as_json)
				printf("%-8s %-19s  %-16s %-3s %-8s %-8s %8s  %-19s\n", "-ID-", "----QUEUED----", "-DESTINATION-", "", "URGENCY", "-STATE-",
				       "ATTEMPTS", "-NEXT TRY-");
			if (ctl_as_json)
				(void)json_array_append_new(list, delivery_json(&page[i]));
			else
				print_queued(&page[i]);
			if (page[i].created < oldest)
				oldest = page[i].created;
			after = page[i].id;
		}
	}
	if (ctl_as_json)
		ctl_print_json(list);
	else {
		json_decref(list);
		if (total == 0)
			printf("the queue is empty\n");
		else
			printf("-- %u deliveries wait, the oldest for %s\n", total, ctl_age(clock_wall_ms() - oldest, text));
	}
	store_close(s);
	return 0;
}

/* ---- what the keeper does for us ------------------------------------------------------------------------ */

static int command_ask(const struct config *c, const char *verb, const char *argument)
{
	char request[200];
	json_t *j;

	(void)snprintf(request, sizeof(request), "%s%s%.150s", verb, argument[0] != '\0' ? " " : "", argument);
	j = ctl_ask_or_stop(c, request);
	if (ctl_as_json)
		ctl_print_json(json_incref(j));
	else if (strcmp(verb, "purge") == 0)
		printf("the study is removed\n");
	else if (strcmp(verb, "purge-older") == 0)
		printf("they are being removed\n");
	else if (strcmp(verb, "flush") == 0)
		printf("%" JSON_INTEGER_FORMAT " deliveries are due now\n", ctl_number(j, "due"));
	else
		printf("object %" JSON_INTEGER_FORMAT " is analysed again\n", ctl_number(j, "requeued"));
	json_decref(j);
	return 0;
}

/* 90d, 24h, 45s */
static int command_purge_older(const struct config *c)
{
	static const char units[] = "shd";
	static const uint64_t seconds[] = { 1, 3600, 86400 };
	size_t n = strlen(older_than);
	const char *unit = n > 1 ? strchr(units, older_than[n - 1]) : NULL;
	char number[16], ms[24];
	uint64_t v;

	(void)snprintf(number, sizeof(number), "%.*s", (int)n - 1, older_than);
	if (unit == NULL || *unit == '\0' || n > sizeof(number) || !str_to_u64(number, 1, 1000000, &v))
		ctl_stop(64, "purge: --older-than wants an age such as 90d or 24h, not '%s'", older_than);
	(void)snprintf(ms, sizeof(ms), "%" PRIu64, v * seconds[unit - units] * 1000);
	return command_ask(c, "purge-older", ms);
}

/* Asks until it has ended, one way or the other: for `systemctl reload`. */
static int command_reload(const struct config *c)
{
	json_t *j = ctl_ask_or_stop(c, "reload");
	json_int_t before = ctl_number(j, "ended");
	const char *text;
	unsigned tries;
	bool good;

	for (tries = 0; tries < RELOAD_TRIES && (json_is_true(json_object_get(j, "pending")) || ctl_number(j, "ended") == before);
	     tries++) {
		json_decref(j);
		(void)usleep(RELOAD_PAUSE_US);
		j = ctl_ask_or_stop(c, "reload?");
	}
	good = json_is_true(json_object_get(j, "good"));
	text = json_string_value(json_object_get(j, "text"));
	if (json_is_true(json_object_get(j, "pending")))
		ctl_stop(2, "reload: not ended yet; the log will tell");
	if (ctl_as_json)
		ctl_print_json(json_incref(j));
	else if (!good)
		ctl_stop(2, "reload refused: %s; the old configuration stays", text);
	else
		printf("reloaded%s%s\n", text[0] != '\0' ? "; only a restart changes" : "", text);
	json_decref(j);
	return good ? CTL_GOOD : CTL_CANNOT;
}

static int run(const struct config *c, const char *path, int argc, char **argv)
{
	const char *verb = argv[0], *argument = argc > 1 ? argv[1] : "";
	uint64_t n = 20;

	if (argc > 2)
		ctl_stop(64, "unexpected argument '%s'", argv[2]);
	if (strcmp(verb, "status") == 0 && argc == 1)
		return command_status(c);
	if (strcmp(verb, "studies") == 0) {
		if (argc == 2 && !str_to_u64(argument, 1, 1000000, &n))
			ctl_stop(64, "studies: '%s' is not a number from 1 to 1000000", argument);
		return command_studies(c, n);
	}
	if (strcmp(verb, "show") == 0 && argc == 2) {
		if (!uid_valid(argument))
			ctl_stop(64, "show: that is not a UID; carzeroctl studies lists them");
		return command_show(c, argument);
	}
	if (strcmp(verb, "why") == 0 && argc == 2) {
		if (!uid_valid(argument))
			ctl_stop(64, "why: that is not a UID; carzeroctl studies lists them");
		return ctl_why(c, path, argument);
	}
	if (strcmp(verb, "queue") == 0 && argc == 1)
		return command_queue(c);
	if (strcmp(verb, "flush") == 0)
		return command_ask(c, verb, argument);
	if ((strcmp(verb, "hold") == 0 || strcmp(verb, "release") == 0) && argc == 2)
		return ctl_hold(c, verb, argument);
	if (strcmp(verb, "release") == 0 && argc == 1)
		return ctl_release_all(c);
	if (strcmp(verb, "drain") == 0 && argc == 1)
		return ctl_drain(c);
	if (strcmp(verb, "config") == 0 && argc == 2)
		return ctl_config(c, path, argument);
	if (strcmp(verb, "top") == 0) {
		n = 0;
		if (argc == 2 && !str_to_u64(argument, 1, 1000000, &n))
			ctl_stop(64, "top: '%s' is not a number from 1 to 1000000", argument);
		return ctl_top(c, n, command_status);
	}
	if (strcmp(verb, "reload") == 0 && argc == 1)
		return command_reload(c);
	if (strcmp(verb, "requeue") == 0 && argc == 2)
		return command_ask(c, verb, argument);
	if (strcmp(verb, "backup") == 0 && argc == 1)
		return ctl_backup(c);
	if (strcmp(verb, "disktest") == 0 && argc == 1)
		return ctl_disktest(c);
	if (strcmp(verb, "selftest") == 0 && argc == 1 && with_peer != NULL)
		return ctl_selftest(c, path, with_peer);
	if (strcmp(verb, "verify") == 0 && argc == 1)
		return ctl_verify(c);
	if (strcmp(verb, "purge") == 0 && argc == 1 && older_than != NULL)
		return command_purge_older(c);
	if (strcmp(verb, "purge") == 0 && argc == 2 && older_than == NULL)
		return command_ask(c, verb, argument);
	ctl_stop(64, "'%s' is not a command here, or wants another number of arguments. Try 'carzeroctl --help'.", verb);
}

/* Where the node of a bad file keeps its state: as the file says, as far as it can be read. */
static char *state_dir_of(const char *path)
{
	CLEANUP(free) void *text = NULL;
	CLEANUP(yaml_close) struct yaml *y = NULL;
	const char *state = "/var/lib/carzerod", *slash = strrchr(path, '/');
	const struct yaml_node *n;
	char *joined;
	struct err e;
	size_t size;

	if (read_path(path, CONFIG_BYTES_MAX, &text, &size, &e) == 0 &&
	    yaml_open(path, text, size, CONFIG_BYTES_MAX, YAML_EVENTS_MAX, &e, &y) == 0) {
		n = yaml_find(yaml_root(y), "state_dir");
		if (n != NULL && n->kind == YAML_TEXT)
			state = n->text;
	}
	if (state[0] == '/' || slash == NULL)
		return xstrdup(state);
	if (asprintf(&joined, "%.*s/%s", (int)(slash - path), path, state) < 0)
		ctl_stop(2, "out of memory");
	return joined;
}

/* While somebody edits the file, the node goes on with what it has, and so do we. */
static void load(const char *path, struct config **ret)
{
	CLEANUP(free) char *state = NULL;
	char running[4200];
	struct err e, second;

	if (config_load(path, ret, &e) == 0)
		return;
	state = state_dir_of(path);
	(void)snprintf(running, sizeof(running), "%.4000s/running", state);
	(void)setenv(CONFIG_RUNNING_VARIABLE, running, 1);
	if (config_load_running(path, ret, &second) < 0)
		ctl_stop(2, "%s", e.text);
	(void)fprintf(stderr, "carzeroctl: %s; going on with what the node was started or reloaded with\n", e.text);
}

/* carzeroctl [-c FILE] fetch ...: a program of its own, for it speaks DICOM. */
static void become_fetch(int argc, char **argv)
{
	int at = argc > 3 && (strcmp(argv[1], "-c") == 0 || strcmp(argv[1], "--config") == 0) ? 3 : 1;
	char path[4096];

	if (at >= argc || strcmp(argv[at], "fetch") != 0)
		return;
	if (snprintf(path, sizeof(path), "%s/carzerod-fetch", helper_folder()) >= (int)sizeof(path))
		ctl_stop(2, "fetch: path too long");
	for (; at < argc; at++) /* the word goes, the rest stays in order */
		argv[at] = argv[at + 1];
	(void)execv(path, argv);
	ctl_stop(2, "fetch: %s: %s", path, strerror(errno));
}

/* The priority is set here, before there are threads that would not have it. */
static void let_others_go_first(void)
{
	const struct sched_param none = { 0 };

	(void)setpriority(PRIO_PROCESS, 0, RESCORE_NICE); /* where one of these is refused, the others do */
	(void)sched_setscheduler(0, SCHED_IDLE, &none);
	(void)syscall(SYS_ioprio_set, 1 /* a process */, 0, 3 << 13 /* the idle class */);
	(void)setenv("OMP_WAIT_POLICY", "passive", 0); /* kernels.h */
}

/* carzeroctl [-c FILE] [--json] rescore ...: a program of its own, for it computes. */
static void become_rescore(int argc, char **argv)
{
	char path[4096];
	int at = 1;

	while (at < argc && (strcmp(argv[at], "--json") == 0 || strcmp(argv[at], "-c") == 0 || strcmp(argv[at], "--config") == 0))
		at += strcmp(argv[at], "--json") == 0 ? 1 : 2;
	if (at >= argc || strcmp(argv[at], "rescore") != 0)
		return;
	if (snprintf(path, sizeof(path), "%s/carzerod-rescore", helper_folder()) >= (int)sizeof(path))
		ctl_stop(2, "rescore: path too long");
	for (; at < argc; at++) /* the word goes, the rest stays in order */
		argv[at] = argv[at + 1];
	let_others_go_first();
	(void)execv(path, argv);
	ctl_stop(2, "rescore: %s: %s", path, strerror(errno));
}

/* carzeroctl conformance: said by the program that does it. */
static void become_conformance(int argc, char **argv)
{
	char path[4096];

	if (argc != 2 || strcmp(argv[1], "conformance") != 0)
		return;
	if (snprintf(path, sizeof(path), "%s/carzerod-receive", helper_folder()) >= (int)sizeof(path))
		ctl_stop(2, "conformance: path too long");
	(void)execl(path, "carzerod-receive", "-m", (char *)NULL);
	ctl_stop(2, "conformance: %s: %s", path, strerror(errno));
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' }, { "json", no_argument, NULL, 'j' },
		{ "older-than", required_argument, NULL, 'o' }, { "peer", required_argument, NULL, 'p' },
		{ "help", no_argument, NULL, 'h' },         { "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	const char *path = CONFIG_DEFAULT_PATH;
	struct config *config;
	int c, r;

	log_open("carzeroctl", LOG_LEVEL_WARNING);
	become_fetch(argc, argv);
	become_conformance(argc, argv);
	become_rescore(argc, argv);
	while ((c = getopt_long(argc, argv, "c:hV", options, NULL)) != -1) {
		if (c == 'c')
			path = optarg;
		else if (c == 'j')
			ctl_as_json = true;
		else if (c == 'o')
			older_than = optarg;
		else if (c == 'p')
			with_peer = optarg;
		else if (c == 'h' || c == 'V') {
			(void)fputs(c == 'h' ? usage : "carzeroctl " PACKAGE_VERSION "\n", stdout);
			return 0;
		} else {
			(void)fputs("Try 'carzeroctl --help'.\n", stderr);
			return 64;
		}
	}
	if (optind == argc) {
		(void)fputs(usage, stderr);
		return 64;
	}
	load(path, &config);
	r = run(config, path, argc - optind, argv + optind);
	config_free(config);
	return r;
}
