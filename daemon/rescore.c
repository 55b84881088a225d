/* rescore.c: carzerod-rescore: how another findings list would have scored what this node scored before.
 *
 * `carzeroctl rescore` becomes this program.  It reads the database through a read-only connection, the embeddings that
 * `storage.keep_embeddings` has kept, and the bundle; it scores them with a list of its own, prints what came out, and
 * writes single scores where it is asked to.
 *
 * Promise: nothing of the record changes; a file that is missing, torn or of other weights is counted and left out, never an
 * error.  Live pictures come first: it runs at the lowest priority (carzeroctl sets it, so that every thread has it) and
 * waits before each batch while pictures wait for analysis, for a while.
 *
 * Never: prints or writes what is of a patient, but for the UIDs with --uids; speaks to the keeper.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"

#include "store/embedding.h"
#include "store/store.h"

#include "model/kernels.h"
#include "model/model.h"

#include "daemon/config.h"
#include "daemon/findings.h"
#include "daemon/landlock.h"

#define USAGE 64
#define PAGE 64
#define GIVE_WAY_MS 200        /* between two looks whether pictures wait */
#define GIVE_WAY_MAX_MS 5000   /* before a batch: with a backlog that never ends, about a tenth of the time is ours */
#define PROGRESS_MS 200
#define BINS 4096              /* of a finding's logits, for quantiles: */
#define BIN_WIDTH (1.0 / 64)   /* from -32 to 32, the ends take what lies beyond */

static const char usage[] =
	"Usage: carzeroctl [-c FILE] rescore --findings LIST [OPTION]...\n"
	"\n"
	"Scores images of the past with another findings list, from what storage.keep_embeddings has\n"
	"kept of them, and says how the scores are distributed. Nothing that is recorded or reported\n"
	"changes. Live images come first.\n"
	"\n"
	"      --findings LIST    the findings list (findings.yaml(5))\n"
	"      --since DATE       only images received on that day (YYYY-MM-DD) or later\n"
	"      --until DATE       only images received on that day or before\n"
	"      --csv FILE         every score, one line each: object, finding, logit, probability, decision\n"
	"      --uids             with Study and SOP Instance UID in the CSV: they lead to patients\n"
	"      --threads N        of computing (default: as the configuration says)\n"
	"      --json             JSON instead of text\n";

struct tally { /* of one finding */
	uint64_t n, decision[4]; /* by enum decision */
	double sum, squares;
	float least, most;
	uint32_t bin[BINS];
	/* where the object had a score of a finding with this id */
	uint64_t compared, was_present, changed;
	double difference, largest; /* sum and maximum of |logit - stored logit| */
};

enum miss { MISS_WEIGHTS, MISS_GONE, MISS_TORN, MISS_COUNT };

struct rescore {
	const struct config *config;
	const struct findings *list;
	const struct model_info *info;
	struct model_run *run;
	struct store *store;
	int boxes;                       /* STATE/spool/embeddings */
	FILE *csv;
	bool uids, as_json, terminal;
	int64_t since, until;
	uint64_t total, looked, scored, missed[MISS_COUNT];
	int64_t waited_ms, shown;
	struct tally *tally;             /* [list->n] */
	struct score *before;            /* [STORE_SCORES_MAX] */
	/* a batch */
	size_t n;
	struct instance in[MODEL_EMBEDDINGS];
	uint16_t *values;                /* [MODEL_EMBEDDINGS][tokens][dim] */
	const uint16_t *embedding[MODEL_EMBEDDINGS];
	float *logit;                    /* [MODEL_EMBEDDINGS][list->n] */
};

static void stop(int code, const char *format, ...) __attribute__((noreturn, format(printf, 2, 3)));
static void stop(int code, const char *format, ...)
{
	va_list ap;

	(void)fputs("carzeroctl: rescore: ", stderr);
	va_start(ap, format);
	(void)vfprintf(stderr, format, ap);
	va_end(ap);
	(void)fputc('\n', stderr);
	exit(code);
}

static void check(const struct rescore *r, int code, const char *what)
{
	if (code < 0)
		stop(2, "%s: %s", what, store_error(r->store));
}

/* ---- counting ------------------------------------------------------------------------------------------- */

static void count(struct tally *t, float logit, enum decision decision)
{
	double bin = ((double)logit - -BINS / 2 * BIN_WIDTH) / BIN_WIDTH;

	t->least = t->n == 0 || logit < t->least ? logit : t->least;
	t->most = t->n == 0 || logit > t->most ? logit : t->most;
	t->n++;
	t->sum += (double)logit;
	t->squares += (double)logit * (double)logit;
	t->bin[bin < 0 ? 0 : bin >= BINS ? BINS - 1 : (size_t)bin]++;
	t->decision[decision]++;
}

static void compare(struct tally *t, float logit, enum decision decision, const struct score *before)
{
	double d = fabs((double)logit - (double)before->logit);

	t->compared++;
	t->difference += d;
	t->largest = d > t->largest ? d : t->largest;
	t->was_present += before->decision == DECISION_PRESENT;
	t->changed += before->decision != decision;
}

static double quantile(const struct tally *t, double share)
{
	uint64_t below = 0, wanted = (uint64_t)(share * (double)(t->n - 1));
	size_t i;

	for (i = 0; i < BINS - 1 && below + t->bin[i] <= wanted; i++)
		below += t->bin[i];
	return fmin(fmax(((double)i - BINS / 2 + 0.5) * BIN_WIDTH, (double)t->least), (double)t->most);
}

/* ---- one batch ------------------------------------------------------------------------------------------- */

static void write_line(struct rescore *r, const struct instance *in, const char *finding, float logit, double p, enum decision d)
{
	fprintf(r->csv, "%" PRId64 ",%s,%.6g,", in->id, finding, (double)logit);
	if (!isnan(p))
		fprintf(r->csv, "%.6g", p);
	fprintf(r->csv, ",%s", decision_name(d));
	if (r->uids)
		fprintf(r->csv, ",%s,%s", in->study_uid, in->sop_uid);
	fputc('\n', r->csv);
}

static void take_scores(struct rescore *r, const struct instance *in, const float *logit /* [list->n] */)
{
	size_t n_before = 0, i, j;
	int code = store_instance_scores(r->store, in->id, r->before, STORE_SCORES_MAX, &n_before);

	check(r, code == -E2BIG ? 0 : code, "stored scores");
	for (i = 0; i < r->list->n; i++) {
		const struct finding *f = &r->list->finding[i];
		double p = finding_probability(f, logit[i], r->info->family, in->recipe, in->precision);
		enum decision d = finding_decide(f, p);

		count(&r->tally[i], logit[i], d);
		for (j = 0; j < n_before && j < STORE_SCORES_MAX; j++) {
			if (strcmp(r->before[j].finding, f->id) == 0)
				compare(&r->tally[i], logit[i], d, &r->before[j]);
		}
		if (r->csv != NULL)
			write_line(r, in, f->id, logit[i], p, d);
	}
	r->scored++;
}

/* Pictures that wait come first.  Some wait for a retry, or for a node that is stopped: not for ever. */
static void give_way(struct rescore *r)
{
	int64_t start = clock_boot_ms(), now = start;
	struct store_counts c;

	for (;;) {
		check(r, store_counts(r->store, &c), "what waits");
		if (c.instances[INSTANCE_READY] + c.instances[INSTANCE_CLAIMED] == 0 || now - start >= GIVE_WAY_MAX_MS)
			break;
		(void)usleep(GIVE_WAY_MS * 1000);
		now = clock_boot_ms();
	}
	r->waited_ms += now - start;
}

static void score_batch(struct rescore *r)
{
	size_t i;
	int code;

	if (r->n == 0)
		return;
	give_way(r);
	code = model_score_embeddings(r->run, r->embedding, r->n, r->logit);
	if (code == 0) {
		for (i = 0; i < r->n; i++)
			take_scores(r, &r->in[i], r->logit + i * r->list->n);
	} else if (code != -ERANGE || r->n == 1) {
		if (code != -ERANGE)
			stop(2, "the model does not score: %s", strerror(-code));
		r->missed[MISS_TORN]++;
	} else { /* which of them holds what is no number */
		for (i = 0; i < r->n; i++) {
			code = model_score_embeddings(r->run, &r->embedding[i], 1, r->logit);
			if (code == 0)
				take_scores(r, &r->in[i], r->logit);
			else
				r->missed[MISS_TORN]++;
		}
	}
	r->n = 0;
}

/* ---- files ----------------------------------------------------------------------------------------------- */

static void progress(struct rescore *r, bool last)
{
	int64_t now = clock_boot_ms();

	if (!r->terminal || (!last && now - r->shown < PROGRESS_MS))
		return;
	r->shown = now;
	fprintf(stderr, "\r%" PRIu64 " of %" PRIu64 " images%s", r->looked, r->total, last ? "\r\033[K" : "");
	(void)fflush(stderr);
}

static bool fits(const struct rescore *r, const struct instance *in, const struct embedding *e)
{
	return memcmp(e->digest, in->digest, DIGEST_SIZE) == 0 && memcmp(e->weights, in->weights, DIGEST_SIZE) == 0 &&
	       strcmp(e->recipe, in->recipe) == 0 && strcmp(e->precision, in->precision) == 0 && e->rows == r->info->tokens &&
	       e->columns == r->info->dim;
}

static enum miss read_one(struct rescore *r, const struct instance *in, uint16_t *ret)
{
	CLEANUP(close) int fd = -1;
	struct embedding e;
	char name[24];

	if (memcmp(in->weights, r->info->digest, DIGEST_SIZE) != 0)
		return MISS_WEIGHTS;
	(void)snprintf(name, sizeof(name), "%02x/%016" PRIx64, (unsigned)(in->embedding >> 56), in->embedding);
	fd = openat(r->boxes, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return MISS_GONE;
	if (embedding_read_head(fd, &e) < 0 || !fits(r, in, &e) || embedding_read_values(fd, &e, ret) < 0)
		return MISS_TORN;
	return MISS_COUNT;
}

static void add(struct rescore *r, const struct instance *in)
{
	size_t size = r->info->tokens * r->info->dim;
	enum miss miss = read_one(r, in, r->values + r->n * size);

	r->looked++;
	if (miss != MISS_COUNT) {
		r->missed[miss]++;
		return;
	}
	r->in[r->n++] = *in;
	if (r->n == MODEL_EMBEDDINGS)
		score_batch(r);
}

static void go_through(struct rescore *r)
{
	CLEANUP(free) struct instance *page = xcalloc(PAGE, sizeof(*page));
	int64_t after = 0;
	size_t n = 0, i;

	do {
		check(r, store_list_embeddings(r->store, after, r->since, r->until, page, PAGE, &n), "the embeddings");
		for (i = 0; i < n; i++) {
			add(r, &page[i]);
			after = page[i].id;
			progress(r, false);
		}
	} while (n == PAGE);
	score_batch(r);
	progress(r, true);
}

/* ---- what came out ----------------------------------------------------------------------------------------- */

static double mean(const struct tally *t)
{
	return t->sum / (double)t->n;
}

static double deviation(const struct tally *t)
{
	return sqrt(fmax(0, t->squares / (double)t->n - mean(t) * mean(t)));
}

static json_t *finding_json(const struct finding *f, const struct tally *t)
{
	json_t *j = json_pack("{s:s, s:s, s:I}", "id", f->id, "name", f->name, "scored", (json_int_t)t->n);

	if (t->n > 0)
		(void)json_object_update_new(
			j, json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "mean", mean(t), "deviation", deviation(t), "min",
				     (double)t->least, "p5", quantile(t, 0.05), "p25", quantile(t, 0.25), "p50",
				     quantile(t, 0.5), "p75", quantile(t, 0.75), "p95", quantile(t, 0.95), "max",
				     (double)t->most));
	(void)json_object_update_new(j, json_pack("{s:I, s:I, s:I, s:I}", "present", (json_int_t)t->decision[DECISION_PRESENT],
						  "undetermined", (json_int_t)t->decision[DECISION_UNDETERMINED], "absent",
						  (json_int_t)t->decision[DECISION_ABSENT], "uncalibrated",
						  (json_int_t)t->decision[DECISION_NONE]));
	if (t->compared > 0)
		(void)json_object_set_new(
			j, "stored", json_pack("{s:I, s:I, s:I, s:f, s:f}", "compared", (json_int_t)t->compared, "present",
					       (json_int_t)t->was_present, "changed", (json_int_t)t->changed, "mean_difference",
					       t->difference / (double)t->compared, "max_difference", t->largest));
	return j;
}

static void print_json(const struct rescore *r, double seconds)
{
	char hex[DIGEST_HEX_MAX];
	json_t *findings = json_array(), *j;
	char *text;

	for (size_t i = 0; i < r->list->n; i++)
		(void)json_array_append_new(findings, finding_json(&r->list->finding[i], &r->tally[i]));
	str_hex(hex, r->list->digest, DIGEST_SIZE);
	j = json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:o}", "list", r->list->name, "digest", hex, "embeddings",
		      (json_int_t)r->looked, "scored", (json_int_t)r->scored, "of_other_weights",
		      (json_int_t)r->missed[MISS_WEIGHTS], "missing", (json_int_t)r->missed[MISS_GONE], "broken",
		      (json_int_t)r->missed[MISS_TORN], "seconds", seconds, "waited", (double)r->waited_ms / 1000, "findings",
		      findings);
	if (r->info->domain != MODEL_CLINICAL)
		(void)json_object_set_new(j, "stamp", json_string(MODEL_STAMP));
	text = json_dumps(j, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
	if (text == NULL)
		stop(2, "out of memory");
	(void)puts(text);
	free(text);
	json_decref(j);
}

static void print_finding(const struct finding *f, const struct tally *t)
{
	printf("%-28.28s", f->id);
	if (t->n == 0) {
		printf("\n");
		return;
	}
	printf(" %7.2f %6.2f %7.2f %7.2f %7.2f", mean(t), deviation(t), quantile(t, 0.05), quantile(t, 0.5), quantile(t, 0.95));
	if (t->decision[DECISION_NONE] == t->n)
		printf(" %28s", "uncalibrated");
	else
		printf(" %8" PRIu64 " %9" PRIu64 " %9" PRIu64, t->decision[DECISION_PRESENT], t->decision[DECISION_UNDETERMINED],
		       t->decision[DECISION_ABSENT]);
	if (t->compared > 0)
		printf(" %8" PRIu64 " %8" PRIu64 " %9.3g", t->was_present, t->changed, t->largest);
	printf("\n");
}

static void print_text(const struct rescore *r, double seconds)
{
	if (r->info->domain != MODEL_CLINICAL)
		printf("%s\n", MODEL_STAMP);
	printf("%s: %zu findings, %" PRIu64 " images in %.1f s", r->list->name, r->list->n, r->scored, seconds);
	if (r->waited_ms >= 100)
		printf(", of which %.1f s for live images", (double)r->waited_ms / 1000);
	printf("\n");
	if (r->missed[MISS_WEIGHTS] + r->missed[MISS_GONE] + r->missed[MISS_TORN] > 0)
		printf("left out: %" PRIu64 " of other weights, %" PRIu64 " missing, %" PRIu64 " broken\n", r->missed[MISS_WEIGHTS],
		       r->missed[MISS_GONE], r->missed[MISS_TORN]);
	if (r->scored == 0) {
		printf("no image with a kept embedding in that time; see storage.keep_embeddings in carzerod.yaml(5)\n");
		return;
	}
	printf("\n%-28s %7s %6s %7s %7s %7s %8s %9s %9s %8s %8s %9s\n%-28s %37s %28s %27s\n", "", "mean", "dev", "5%", "median",
	       "95%", "present", "undeterm.", "absent", "present", "changed", "logit by", "finding", "-------------- logit --------------",
	       "--------- decision ---------", "------- stored then -------");
	for (size_t i = 0; i < r->list->n; i++)
		print_finding(&r->list->finding[i], &r->tally[i]);
}

/* ---- the beginning ------------------------------------------------------------------------------------------ */

/* Midnight, local time, at which a day begins, `days` later. */
static int64_t day_of(const char *option, const char *text, int days)
{
	struct tm tm = { .tm_isdst = -1 };
	const char *end = strptime(text, "%Y-%m-%d", &tm);
	time_t t;

	tm.tm_mday += days;
	tm.tm_isdst = -1;
	t = end != NULL && *end == '\0' ? mktime(&tm) : -1;
	if (t == -1)
		stop(USAGE, "%s wants a day such as 2026-01-31, not '%s'", option, text);
	return (int64_t)t * 1000;
}

static void set_prompts(struct model *model, const struct findings *list)
{
	CLEANUP(free) const char **prompts = xcalloc(list->n, sizeof(*prompts));
	struct err e;

	for (size_t i = 0; i < list->n; i++)
		prompts[i] = list->finding[i].prompt;
	if (model_set_prompts(model, prompts, list->n, &e) < 0)
		stop(2, "%s", e.text);
}

/* From here on this thread reads what the node keeps and writes nothing by name; the others only compute. */
static void wall_in(const struct config *c)
{
	struct err e;
	int set;

	(void)prctl(PR_SET_DUMPABLE, 0);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		stop(2, "no_new_privs: %s", strerror(errno));
	if (landlock_new(LANDLOCK_FILES, &set, &e) < 0 || landlock_system(set, &e) < 0 ||
	    landlock_path(set, c->state_dir, LANDLOCK_READ, &e) < 0)
		stop(2, "%s", e.text);
	if (landlock_enter(set) < 0)
		stop(2, "Landlock: %s", strerror(errno));
}

static void open_files(struct rescore *r, const char *csv)
{
	char path[4096];
	struct err e;

	if (snprintf(path, sizeof(path), "%s/carzerod.db", r->config->state_dir) >= (int)sizeof(path) - 32)
		stop(2, "state_dir is too long");
	if (store_open_reader(path, &r->store, &e) < 0)
		stop(2, "%s", e.text);
	(void)snprintf(path, sizeof(path), "%s/spool/embeddings", r->config->state_dir);
	r->boxes = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r->boxes < 0)
		stop(2, "%s: %s", path, strerror(errno));
	check(r, store_count_embeddings(r->store, r->since, r->until, &r->total), "the embeddings");
	if (csv == NULL)
		return;
	/* scores of people, whatever the umask says */
	int fd = open(csv, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	r->csv = fd >= 0 ? fdopen(fd, "w") : NULL;
	if (r->csv == NULL)
		stop(2, "%s: %s", csv, strerror(errno));
	fprintf(r->csv, "object,finding,logit,probability,decision%s\n", r->uids ? ",study_uid,sop_uid" : "");
}

static void open_model(struct rescore *r, const char *folder, struct model **ret)
{
	static const struct model_use use = { .embeddings = true };
	struct err e;

	if (model_open(folder, &use, ret, &e) < 0)
		stop(2, "%s", e.text);
	r->info = model_info(*ret);
	set_prompts(*ret, r->list);
	if (model_run_new(*ret, &r->run, &e) < 0)
		stop(2, "%s", e.text);
}

static void make_room(struct rescore *r)
{
	size_t size = r->info->tokens * r->info->dim, i;

	r->tally = xcalloc(r->list->n, sizeof(*r->tally));
	r->before = xcalloc(STORE_SCORES_MAX, sizeof(*r->before));
	r->logit = xcalloc(MODEL_EMBEDDINGS * r->list->n, sizeof(*r->logit));
	r->values = xcalloc(MODEL_EMBEDDINGS * size, sizeof(*r->values));
	for (i = 0; i < MODEL_EMBEDDINGS; i++)
		r->embedding[i] = r->values + i * size;
}

struct options {
	const char *config, *findings, *csv;
	uint64_t threads;
};

static void read_arguments(struct rescore *r, struct options *o, int argc, char **argv)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' }, { "findings", required_argument, NULL, 'f' },
		{ "since", required_argument, NULL, 's' },  { "until", required_argument, NULL, 'u' },
		{ "csv", required_argument, NULL, 'o' },    { "uids", no_argument, NULL, 'i' },
		{ "threads", required_argument, NULL, 't' }, { "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },	    { NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
		if (c == 'c')
			o->config = optarg;
		else if (c == 'f')
			o->findings = optarg;
		else if (c == 's')
			r->since = day_of("--since", optarg, 0);
		else if (c == 'u')
			r->until = day_of("--until", optarg, 1);
		else if (c == 'o')
			o->csv = optarg;
		else if (c == 'i')
			r->uids = true;
		else if (c == 'j')
			r->as_json = true;
		else if (c == 't') {
			if (!str_to_u64(optarg, 1, 1024, &o->threads))
				stop(USAGE, "--threads wants 1 to 1024, not '%s'", optarg);
		} else if (c == 'h') {
			(void)fputs(usage, stdout);
			exit(0);
		} else
			stop(USAGE, "try 'carzeroctl rescore --help'");
	}
	if (optind < argc)
		stop(USAGE, "unexpected argument '%s'", argv[optind]);
	if (o->findings == NULL)
		stop(USAGE, "wants --findings LIST; try 'carzeroctl rescore --help'");
	if (r->uids && o->csv == NULL)
		stop(USAGE, "--uids goes with --csv FILE");
}

int main(int argc, char **argv)
{
	struct rescore r = { .until = INT64_MAX, .since = INT64_MIN, .boxes = -1 };
	struct options o = { .config = CONFIG_DEFAULT_PATH };
	struct findings *list;
	struct config *config;
	struct model *model;
	int64_t start;
	struct err e;

	log_open("carzerod-rescore", LOG_LEVEL_WARNING);
	read_arguments(&r, &o, argc, argv);
	if (config_load(o.config, &config, &e) < 0 || findings_load(o.findings, &list, NULL, NULL, &e) < 0)
		stop(2, "%s", e.text);
	kernels_set_threads(o.threads > 0 ? (unsigned)o.threads : config->threads);
	r.config = config;
	r.list = list;
	r.terminal = isatty(STDERR_FILENO) != 0;
	open_files(&r, o.csv);
	open_model(&r, config->model, &model);
	make_room(&r);
	wall_in(config);
	start = clock_boot_ms();
	go_through(&r);
	if (r.csv != NULL && (fflush(r.csv) != 0 || fsync(fileno(r.csv)) < 0 || fclose(r.csv) != 0))
		stop(2, "%s: %s", o.csv, strerror(errno));
	(r.as_json ? print_json : print_text)(&r, (double)(clock_boot_ms() - start) / 1000);
	model_run_free(r.run);
	model_close(model);
	store_close(r.store);
	free(r.tally);
	free(r.before);
	free(r.logit);
	free(r.values);
	(void)close(r.boxes);
	findings_free(list);
	config_free(config);
	return 0;
}
