/* test_turn.c: who is served first, and that nothing starves (store/turn.c, the claims of store/delivery.c).
 *
 * CHECK_LONG=yes: what a claim costs among 10^3 and among 10^6 that wait.
 */
#include <errno.h>
#include <time.h>

#include "tests/store_rows.h"

/* A delivery to PACS of a study of its own; returns its number. */
static int64_t deliver(struct store *s, enum store_rank rank)
{
	static unsigned n;
	char sql[160];
	int64_t study;

	(void)snprintf(sql, sizeof(sql), "INSERT INTO study (study_uid, state, settle_at, created) VALUES ('1.5.%u', 2, 1, 1)", ++n);
	if (sqlite3_exec(s->db, sql, NULL, NULL, NULL) != SQLITE_OK)
		ok(false, "a study: %s", sqlite3_errmsg(s->db));
	study = sqlite3_last_insert_rowid(s->db);
	if (store_add_delivery(s, study, 1, "SR", "PACS", rank, 5) < 0)
		ok(false, "a delivery: %s", store_error(s));
	return number(s, "SELECT max(id) FROM delivery");
}

/* Claims the next for PACS and ends it well; its number. */
static int64_t send_next(struct store *s)
{
	struct delivery d = next_delivery(s, "PACS", 1000);

	if (d.id > 0 && end_close(s, &d) < 0)
		ok(false, "closed");
	return d.id;
}

/* Every window of 4 turns has one for routine, every one of 16 has one for the slow lane. */
static void test_turns(void)
{
	bool routine = true, slow = true;

	for (int64_t from = 0; from < 64; from++) {
		unsigned n[3] = { 0, 0, 0 };

		for (int64_t i = from; i < from + STORE_ROUTINE_EVERY; i++)
			n[turn_first(i)]++;
		routine &= n[RANK_ROUTINE] == 1;
		for (int64_t i = from + STORE_ROUTINE_EVERY; i < from + STORE_SLOW_EVERY; i++)
			n[turn_first(i)]++;
		slow &= n[RANK_SLOW] == 1;
	}
	ok(routine, "of any %d turns in a row one is for routine", STORE_ROUTINE_EVERY);
	ok(slow, "of any %d one is for the slow lane", STORE_SLOW_EVERY);
	is_int(turn_first(0), RANK_URGENT, "the first of all is for what is urgent");
}

static void test_order(void)
{
	struct store *s = open_fresh("order");
	int64_t slow = deliver(s, RANK_SLOW), routine = deliver(s, RANK_ROUTINE), first = deliver(s, RANK_URGENT),
		second = deliver(s, RANK_URGENT);
	struct delivery d;

	d = next_delivery(s, "PACS", 1000);
	is_int(d.id, first, "the first urgent one goes first");
	is_int(d.rank, RANK_URGENT, "as such");
	is_int(store_defer_delivery(s, &d, 2000, 0xa700, "", 0, false), 0, "refused for now,");
	is_int(send_next(s), second, "it does not hold up the next");
	is_int(send_next(s), routine, "then the routine one, though no turn is its");
	is_int(send_next(s), slow, "then the slow lane");
	is_int(send_next(s), -ENOENT, "and no more");
	is_int(number(s, "SELECT n FROM turn WHERE what = 'delivery' AND destination = 'PACS'"), 4, "four claims were counted");
	is_int(next_delivery(s, "PACS", 2000).id, first, "the first urgent one again, once it is due");
	ok(is_sound(s), "the database is sound");
	store_close(s);
}

/* `older` of this rank wait before it, and before every claim something more urgent comes.  The node ends after every
 * second claim. */
static void starve(enum store_rank rank, unsigned older, unsigned phase)
{
	unsigned every = rank == RANK_SLOW ? STORE_SLOW_EVERY : STORE_ROUTINE_EVERY, claims = 0;
	struct store *s;
	int64_t wanted = 0, got = -1;

	(void)snprintf(path, sizeof(path), "%s/starve-%d-%u-%u.db", dir, (int)rank, older, phase);
	s = open_again();
	for (unsigned i = 0; i < phase; i++) { /* wherever the count stands */
		(void)deliver(s, RANK_URGENT);
		(void)send_next(s);
	}
	for (unsigned i = 0; i <= older; i++)
		wanted = deliver(s, rank);
	while (got != wanted && claims <= every * (older + 1)) {
		(void)deliver(s, RANK_URGENT);
		if (rank == RANK_SLOW)
			(void)deliver(s, RANK_ROUTINE);
		got = send_next(s);
		if (++claims % 2 == 0) {
			store_close(s);
			s = open_again();
		}
	}
	ok(claims <= every * (older + 1), "rank %d, %u older, from turn %u: sent with claim %u of at most %u", (int)rank, older,
	   phase, claims, every * (older + 1));
	store_close(s);
}

/* An amended report that is urgent takes along what was not sent yet, to the same destination only. */
static void test_amended(void)
{
	struct store *s = open_fresh("amended");
	int64_t one = report_study(s, 1), two, other, before;

	other = deliver(s, RANK_ROUTINE);
	is_int(store_add_delivery(s, one, 1, "SR", "OTHER", RANK_ROUTINE, 5), 0, "the first report for another archive");
	two = report_study(s, 2);
	before = number(s, "SELECT max(id) FROM delivery");
	is_int(send_next(s), 1, "the first report is sent");
	is_int(store_add_delivery(s, two, 2, "SR", "PACS", RANK_URGENT, 6), 0, "the second study is amended, urgently");
	is_int(send_next(s), before, "what was said of it before goes before");
	is_int(send_next(s), before + 1, "then the amended report");
	is_int(send_next(s), other, "then what was there first");
	is_int(store_add_delivery(s, one, 2, "SR", "PACS", RANK_URGENT, 6), 0, "so is the first study");
	is_int(number(s, "SELECT count(*) FROM delivery WHERE state = 2 AND rank = 1"), 2, "what is done stays as it was");
	is_int(number(s, "SELECT rank FROM delivery WHERE destination = 'OTHER'"), RANK_ROUTINE, "and so do other destinations");
	is_int(store_add_delivery(s, one, 3, "SR", "PACS", RANK_ROUTINE, 7), 0, "and a third report is routine again");
	is_int(number(s, "SELECT min(rank) FROM delivery WHERE state = 0 AND revision = 2"), RANK_URGENT,
	       "which takes nothing back");
	store_close(s);
}

/* What is due in any rank counts for the destination; a flush makes all of it due. */
static void test_due(void)
{
	struct store *s = open_fresh("due");
	struct destination to[2];
	struct delivery d;
	unsigned flushed = 0;
	size_t n = 0;

	for (int rank = RANK_URGENT; rank <= RANK_SLOW; rank++) {
		(void)deliver(s, (enum store_rank)rank);
		d = next_delivery(s, "PACS", 1000);
		is_int(store_defer_delivery(s, &d, 5000 - 1000 * rank, -1, "", 0, false), 0, "defer");
		is_int(store_destinations(s, to, 2, &n), 0, "destinations");
		ok(n == 1 && to[0].due == 5000 - 1000 * rank && to[0].queued == (unsigned)rank + 1, "earliest due of all ranks: %lld",
		   (long long)to[0].due);
	}
	is_int(next_delivery(s, "PACS", 3000).rank, RANK_SLOW, "a due one of the slow lane before what is not due");
	is_int(store_flush_deliveries(s, "PACS", 1, &flushed), 0, "flush");
	is_int(flushed, 2, "both others");
	is_int(next_delivery(s, "PACS", 2).rank, RANK_URGENT, "and the urgent one goes first");
	store_close(s);
}

static double seconds(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

static void fill(struct store *s, unsigned n)
{
	char *sql = sqlite3_mprintf(
		"INSERT INTO study (study_uid, state, settle_at, created) WITH RECURSIVE g(v) AS (SELECT 1 UNION ALL SELECT v + 1 "
		"FROM g LIMIT %u) SELECT '1.6.' || v, 2, 1, 1 FROM g;"
		"INSERT INTO delivery (study, revision, kind, destination, state, created, rank, due) "
		"SELECT id, 1, 'SR', 'PACS', 0, 1, id %% 3, iif(id %% 2, 0, 900000 + id) FROM study;", n);

	if (sqlite3_exec(s->db, "PRAGMA synchronous = OFF", NULL, NULL, NULL) != SQLITE_OK ||
	    sqlite3_exec(s->db, sql, NULL, NULL, NULL) != SQLITE_OK)
		ok(false, "filled: %s", sqlite3_errmsg(s->db));
	sqlite3_free(sql);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

#define CLAIMS 2001

/* Median of a claim and its end, in a transaction as the keeper's. */
static double claim_seconds(struct store *s)
{
	static double took[CLAIMS];

	for (unsigned i = 0; i < CLAIMS; i++) {
		struct delivery d;
		double since = seconds();

		(void)store_begin(s);
		d = next_delivery(s, "PACS", 1000);
		if (store_defer_delivery(s, &d, 800000 + (int64_t)i, 0, "", 0, false) < 0 || store_commit(s) < 0)
			ok(false, "claim %u", i);
		took[i] = seconds() - since;
		if (i % 200 == 199)
			(void)store_flush_deliveries(s, "PACS", 1, &(unsigned){ 0 });
	}
	qsort(took, CLAIMS, sizeof(took[0]), by_value);
	return took[CLAIMS / 2];
}

static void test_cost(void)
{
	struct store *few = open_fresh("few"), *many;
	double a = 1e9, b = 1e9;

	fill(few, 1000);
	many = open_fresh("many");
	fill(many, 1000000);
	for (int i = 0; i < 3; i++) { /* the best of three, in turns: a machine has other things to do */
		double x = claim_seconds(few), y = claim_seconds(many);

		a = x < a ? x : a;
		b = y < b ? y : b;
	}
	ok(b <= 1.2 * a, "a claim takes %.1f us among 10^3 deliveries and %.1f us among 10^6: x %.2f", 1e6 * a, 1e6 * b, b / a);
	store_close(few);
	store_close(many);
}

int main(void)
{
	const char *lasts = getenv("CHECK_LONG");

	make_dir("test_turn");
	test_turns();
	test_order();
	for (unsigned phase = 0; phase < STORE_SLOW_EVERY; phase += 5) {
		starve(RANK_ROUTINE, 0, phase);
		starve(RANK_ROUTINE, 3, phase);
		starve(RANK_SLOW, 1, phase);
	}
	test_amended();
	test_due();
	if (lasts != NULL && strcmp(lasts, "yes") == 0)
		test_cost();
	return done();
}
