/* queue.c: what the store's questions cost among few rows and among many, for ./run bench queue.
 *
 *	queue FOLDER [LARGEST]
 *
 * Databases of 10^3, 10^4 .. LARGEST (10^6) studies, each with one object; half of them wait, the others are reported,
 * with one delivery that waits or is done; the large ones are kept in FOLDER for the next time.  All are asked the same in turns, so that a noisy
 * machine hurts all alike.
 * Prints the median CPU time of each call inside a transaction, the wall time of a transaction that keeps one received
 * object, and what each costs in the largest over what it costs in the smallest.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/str.h"

#include "store/store-private.h"

#define SIZES_MAX 4
#define KEPT_ROWS 100000
#define ROUNDS 12
#define CALLS 25 /* of each kind in a round */
#define SCORES 14
#define LISTED 100
#define NOW 1900000000000ll

enum call { INSERT, COMMIT, CLAIM, SETTLE, STUDY, REPORT, DELIVERY, DELIVERED, WAKE, EVENT, STATUS, QUEUE, NEWEST, WHY, EXPIRE, CALL_COUNT };
static const char *const names[CALL_COUNT] = {
	"insert an object", "the same, durable (wall)", "claim an object", "settle it, 14 scores", "claim a study",
	"report and delivery", "claim a delivery", "close it", "when to wake up", "add an event", "status: counts",
	"queue: 100 deliveries", "studies: newest 100", "why: one study", "retention: one step",
};

struct times {
	double us[ROUNDS * CALLS];
	size_t n;
};

struct size {
	unsigned rows;
	struct store *s;
	struct times t[CALL_COUNT];
};

static void must(int r, struct store *s, const char *what)
{
	if (r >= 0)
		return;
	fprintf(stderr, "%s: %s (%s)\n", what, strerror(-r), store_error(s));
	exit(1);
}

static double clock_us(clockid_t id)
{
	struct timespec ts;

	(void)clock_gettime(id, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static double cpu_us(void)
{
	return clock_us(CLOCK_PROCESS_CPUTIME_ID);
}

static void took(struct size *z, enum call call, double us)
{
	z->t[call].us[z->t[call].n++] = us;
}

/* ---- rows ---------------------------------------------------------------------------------------------- */

static uint64_t chance(void)
{
	static uint64_t x;

	if (x == 0)
		x = (uint64_t)clock_us(CLOCK_REALTIME) | 1; /* other rows than the run before made */
	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x;
}

static void any_uid(char ret[UID_MAX])
{
	(void)snprintf(ret, UID_MAX, "2.25.%llu%llu", (unsigned long long)(chance() | 1), (unsigned long long)chance());
}

static struct store *open_or_end(const char *path)
{
	struct store *s = NULL;
	struct err e = { "" };

	if (store_open(path, &s, &e) < 0) {
		fprintf(stderr, "%s\n", e.text);
		exit(1);
	}
	return s;
}

static bool is_filled(struct size *z)
{
	struct study newest;
	size_t n = 0;

	must(store_list_studies(z->s, INT64_MAX, &newest, 1, &n), z->s, "list studies");
	return n > 0;
}

/* In SQL and with much memory, since a million by the calls that are measured would take an hour; the triggers keep the rest. */
static void fill(struct size *z)
{
	char *sql = sqlite3_mprintf(
		"PRAGMA cache_size = -1000000; PRAGMA synchronous = OFF; BEGIN; WITH RECURSIVE g(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM g LIMIT %u) "
		"INSERT INTO study (study_uid, state, settle_at, created, revision) SELECT '2.25.' || abs(random()) || v, "
		"iif(v %% 2, 0, 2), v, v, 1 - v %% 2 FROM g; "
		"INSERT INTO instance (study, file, sop_class, sop_uid, series_uid, syntax, calling_ae, called_ae, peer, digest, "
		"size, received, revision, state, outcome) SELECT id, (abs(random()) | 1) %% 4611686018427387904, "
		"'1.2.840.10008.5.1.4.1.1.1.1', '2.25.' || abs(random()) || id, '2.25.' || abs(random()) || id, "
		"'1.2.840.10008.1.2.1', 'MODALITY', 'CARZEROD', '192.0.2.10', randomblob(32), 8388608, id, 1, "
		"iif(state = 2, 2, 0), iif(state = 2, 1, 0) FROM study; "
		"INSERT INTO report (study, revision, kind, sop_class, sop_uid, series_uid, predecessor, file, size, digest, "
		"findings, weights, created) SELECT id, 1, 'SR', '1.2.840.10008.5.1.4.1.1.88.22', '2.25.' || abs(random()) || id, "
		"'2.25.1', '', (abs(random()) | 1) %% 4611686018427387904, 9000, randomblob(32), zeroblob(32), zeroblob(32), id "
		"FROM study WHERE state = 2; "
		"INSERT INTO delivery (study, revision, kind, destination, state, report, created, finished) SELECT study, 1, 'SR', "
		"'ARCHIVE', iif(study %% 4, 0, 2), id, created, iif(study %% 4, 0, created) FROM report; COMMIT; "
		"PRAGMA wal_checkpoint(TRUNCATE)", z->rows);

	if (sqlite3_exec(z->s->db, sql, NULL, NULL, NULL) != SQLITE_OK) {
		fprintf(stderr, "%u rows: %s\n", z->rows, sqlite3_errmsg(z->s->db));
		exit(1);
	}
	sqlite3_free(sql);
}

static struct instance new_object(void)
{
	struct instance in = { .file = chance() >> 2 | 1, .size = 8388608, .received = NOW, .state = INSTANCE_READY };
	size_t i;

	(void)str_copy(in.sop_class, UID_MAX, "1.2.840.10008.5.1.4.1.1.1.1");
	any_uid(in.sop_uid);
	any_uid(in.study_uid);
	any_uid(in.series_uid);
	(void)str_copy(in.syntax, UID_MAX, "1.2.840.10008.1.2.1");
	(void)str_copy(in.calling_ae, AE_TITLE_MAX, "MODALITY");
	(void)str_copy(in.called_ae, AE_TITLE_MAX, "CARZEROD");
	(void)str_copy(in.peer, sizeof(in.peer), "192.0.2.10");
	for (i = 0; i < DIGEST_SIZE; i++)
		in.digest[i] = (uint8_t)chance();
	return in;
}

/* ---- calls --------------------------------------------------------------------------------------------- */

static void insert(struct size *z, enum call call)
{
	struct instance in = new_object();
	bool again = false;
	double from = cpu_us();

	must(store_add_instance(z->s, &in, NOW, &again), z->s, names[INSERT]);
	if (call == INSERT)
		took(z, INSERT, cpu_us() - from);
}

static void insert_alone(struct size *z)
{
	double from = clock_us(CLOCK_MONOTONIC);

	must(store_begin(z->s), z->s, "begin");
	insert(z, COMMIT);
	must(store_commit(z->s), z->s, "commit");
	took(z, COMMIT, clock_us(CLOCK_MONOTONIC) - from);
}

static void analyse(struct size *z)
{
	struct score score[SCORES];
	struct instance in;
	double from = cpu_us();
	size_t i;

	must(store_claim_instance(z->s, NOW, NOW + 1, &in), z->s, names[CLAIM]);
	took(z, CLAIM, cpu_us() - from);
	memset(score, 0, sizeof(score));
	for (i = 0; i < SCORES; i++)
		(void)snprintf(score[i].finding, sizeof(score[i].finding), "finding-%zu", i);
	in.outcome = OUTCOME_SCORED;
	in.settled = NOW;
	from = cpu_us();
	must(store_settle_instance(z->s, &in, score, SCORES), z->s, names[SETTLE]);
	took(z, SETTLE, cpu_us() - from);
}

static void report(struct size *z)
{
	struct report rep = { .revision = 1, .kind = "SR", .file = chance() >> 2 | 1, .size = 9000, .created = NOW };
	struct study st;
	double from = cpu_us();

	must(store_next_study(z->s, NOW, NOW + 1, &st), z->s, names[STUDY]);
	took(z, STUDY, cpu_us() - from);
	rep.study = st.id;
	(void)str_copy(rep.sop_class, UID_MAX, "1.2.840.10008.5.1.4.1.1.88.22");
	any_uid(rep.sop_uid);
	(void)str_copy(rep.series_uid, UID_MAX, "2.25.1");
	from = cpu_us();
	must(store_add_report(z->s, &rep), z->s, names[REPORT]);
	must(store_add_delivery(z->s, st.id, 1, "SR", "ARCHIVE", RANK_ROUTINE, NOW), z->s, names[REPORT]);
	must(store_finish_study(z->s, &st, 1, ""), z->s, names[REPORT]);
	took(z, REPORT, cpu_us() - from);
}

static void deliver(struct size *z)
{
	struct delivery d;
	double from = cpu_us();

	must(store_next_delivery(z->s, "ARCHIVE", NOW, NOW + 1, &d), z->s, names[DELIVERY]);
	took(z, DELIVERY, cpu_us() - from);
	from = cpu_us();
	must(store_close_delivery(z->s, &d, NOW, 0, ""), z->s, names[DELIVERED]);
	took(z, DELIVERED, cpu_us() - from);
}

/* What the keeper asks in every turn. */
static void wake(struct size *z)
{
	int64_t instance, study, delivery;
	struct destination d[4];
	double from = cpu_us();
	size_t n;

	must(store_next_due(z->s, &instance, &study, &delivery), z->s, names[WAKE]);
	must(store_destinations(z->s, d, ARRAY_SIZE(d), &n), z->s, names[WAKE]);
	took(z, WAKE, cpu_us() - from);
}

static void look(struct size *z)
{
	static struct delivery listed[LISTED];
	static struct study newest[LISTED], found;
	static struct instance object[4];
	struct store_counts counts;
	struct study one;
	double from = cpu_us();
	size_t n;

	must(store_counts(z->s, &counts), z->s, names[STATUS]);
	took(z, STATUS, cpu_us() - from);
	from = cpu_us();
	must(store_list_deliveries(z->s, 0, listed, LISTED, &n), z->s, names[QUEUE]);
	took(z, QUEUE, cpu_us() - from);
	from = cpu_us();
	must(store_list_studies(z->s, INT64_MAX, newest, LISTED, &n), z->s, names[NEWEST]);
	took(z, NEWEST, cpu_us() - from);
	must(store_list_studies(z->s, 2 + (int64_t)(chance() % z->rows), &found, 1, &n), z->s, names[WHY]);
	from = cpu_us();
	must(store_find_study(z->s, found.study_uid, &one), z->s, names[WHY]);
	must(store_study_instances(z->s, one.id, object, ARRAY_SIZE(object), &n), z->s, names[WHY]);
	must(store_study_deliveries(z->s, one.id, listed, ARRAY_SIZE(listed), &n), z->s, names[WHY]);
	took(z, WHY, cpu_us() - from);
	from = cpu_us();
	must(store_add_event(z->s, one.id, NOW, EVENT_OBJECT, "nothing in particular"), z->s, names[EVENT]);
	took(z, EVENT, cpu_us() - from);
}

static void expire(struct size *z)
{
	struct retention before = { .images = NOW, .failed = NOW, .rows = 0 };
	double from = cpu_us();
	size_t n;

	must(store_expire(z->s, &before, 64, &n), z->s, names[EXPIRE]);
	took(z, EXPIRE, cpu_us() - from);
}

static void round_of(struct size *z)
{
	static void (*const each[])(struct size *) = { analyse, report, deliver, wake, look, expire };
	size_t i, k;

	must(store_begin(z->s), z->s, "begin");
	for (i = 0; i < CALLS; i++)
		insert(z, INSERT);
	for (k = 0; k < ARRAY_SIZE(each); k++)
		for (i = 0; i < CALLS; i++)
			each[k](z);
	must(store_commit(z->s), z->s, "commit");
	for (i = 0; i < CALLS; i++)
		insert_alone(z);
}

/* ---- figures ------------------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median(struct times *t)
{
	qsort(t->us, t->n, sizeof(*t->us), by_size);
	return t->us[t->n / 2];
}

int main(int argc, char **argv)
{
	static struct size z[SIZES_MAX];
	uint64_t largest = 1000000;
	unsigned rows = 1000;
	size_t n = 0, i, r;
	int call;

	if (argc < 2 || (argc > 2 && !str_to_u64(argv[2], 1000, 1000000, &largest))) {
		fprintf(stderr, "queue FOLDER [LARGEST]\n");
		return 2;
	}
	for (; n < SIZES_MAX && rows <= largest; rows *= 10, n++) {
		char path[4096];

		(void)snprintf(path, sizeof(path), "%s/queue-%u.db", argv[1], rows);
		z[n].rows = rows;
		if (rows < KEPT_ROWS)
			(void)unlink(path); /* a run uses up what there is to do in a small one */
		z[n].s = open_or_end(path);
		if (!is_filled(&z[n])) {
			fill(&z[n]);
			store_close(z[n].s);
			z[n].s = open_or_end(path); /* with the settings that count */
		}
	}
	for (r = 0; r < ROUNDS; r++)
		for (i = 0; i < n; i++)
			round_of(&z[(i + r) % n]);
	printf("%-24s", "CPU us of a call, median");
	for (i = 0; i < n; i++)
		printf(" %9u", z[i].rows);
	printf("  largest / smallest\n");
	for (call = 0; call < CALL_COUNT; call++) {
		double least = median(&z[0].t[call]), most = 0;

		printf("%-24s", names[call]);
		for (i = 0; i < n; i++) {
			most = median(&z[i].t[call]);
			printf(" %9.1f", most);
		}
		printf("  %.2f\n", most / least);
	}
	for (i = 0; i < n; i++)
		store_close(z[i].s);
	return 0;
}
