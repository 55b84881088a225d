/* test_lane.c: which objects go to the slow lane (daemon/lane.c), and that claims of images and studies keep its
 * bound (store/turn.c).
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "daemon/lane.h"

#include "tests/store_rows.h"

#define HOUR 3600000ll
#define NOON 1793016000000ll /* 2026-10-26 12:00 UTC */

static void test_old(void)
{
	static const struct {
		uint32_t date;
		unsigned days;
		bool want;
		const char *zone;
	} cases[] = {
		{ 20261026, 30, false, "UTC0" },  { 20260926, 30, false, "UTC0" },    { 20260925, 30, true, "UTC0" },
		{ 20260926, 29, true, "UTC0" },	  { 19691231, 30, true, "UTC0" },     { 0, 30, false, "UTC0" },
		{ 20200101, 0, false, "UTC0" },	  { 20270101, 30, false, "UTC0" },    { 19200101, 36500, true, "UTC0" },
		/* 13 hours to the east it is the next day */
		{ 20260926, 30, true, "XXX-13" }, { 20260927, 30, false, "XXX-13" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		(void)setenv("TZ", cases[i].zone, 1);
		tzset();
		ok(lane_is_old(cases[i].date, NOON, cases[i].days) == cases[i].want, "%u, %u days, %s: %s", cases[i].date,
		   cases[i].days, cases[i].zone, cases[i].want ? "old" : "not old");
	}
}

/* So many of n images, one every `step` ms, were not too many. */
static unsigned taken(struct lane_senders *s, const char *ae, unsigned per_hour, int64_t from, unsigned n, int64_t step)
{
	unsigned good = 0;

	for (unsigned i = 0; i < n; i++) {
		if (lane_floods(s, ae, per_hour, from + i * step))
			continue;
		lane_count(s, ae, per_hour, from + i * step);
		good++;
	}
	return good;
}

static void test_flood(void)
{
	struct lane_senders s = { .n = 0 };
	char ae[AE_TITLE_MAX];

	is_int(taken(&s, "PACS", 100, 0, 500, 0), 100, "an hour's worth at once");
	is_int(taken(&s, "CR1", 100, 0, 50, 0), 50, "another sender is not meant");
	is_int(taken(&s, "PACS", 100, HOUR / 2, 500, 0), 50, "half an hour later half of it");
	is_int(taken(&s, "PACS", 100, HOUR, 3600, 1000), 50 + 99, "then as many as flow off");
	is_int(taken(&s, "PACS", 100, 9 * HOUR, 500, 0), 100, "after a rest the hour's worth again, and no more");
	is_int(taken(&s, "PACS", 0, 9 * HOUR, 500, 0), 500, "0: no number is too large");
	is_int(taken(&s, "ROOM", 100, 10 * HOUR, 3600, HOUR / 100), 3600, "who sends just so many is never meant");
	for (int i = 0; i < 10 * LANE_SENDERS_MAX; i++) {
		(void)snprintf(ae, sizeof(ae), "AE%d", i);
		(void)lane_floods(&s, ae, 100, 100 * HOUR + i);
		(void)lane_floods(&s, "CR1", 100, 100 * HOUR + i);
	}
	is_int(s.n, LANE_SENDERS_MAX, "the table is bounded");
	is_int(taken(&s, "CR1", 100, 100 * HOUR + 700, 500, 0), 100, "and who sends stays in it");
}

/* ---- the claims ------------------------------------------------------------------------------------- */

static struct instance add_to(struct store *s, unsigned study, unsigned uid, enum study_lane lane)
{
	struct instance in = instance_of(study, uid, 1);
	bool duplicate;

	in.lane = lane;
	if (store_add_instance(s, &in, 100, &duplicate) < 0)
		ok(false, "instance %u: %s", uid, store_error(s));
	return in;
}

static void test_order(void)
{
	struct store *s = open_fresh("lanes");
	struct store_counts c;
	struct instance slow, in;
	struct study st;

	slow = add_to(s, 1, 1, LANE_OLD);
	is_int(slow.lane, LANE_OLD, "an old study");
	(void)add_to(s, 2, 2, LANE_NORMAL);
	is_int(add_to(s, 2, 3, LANE_FLOOD).lane, LANE_NORMAL, "a second image of a study that waits goes with the first");
	is_int(store_counts(s, &c), 0, "count");
	ok(c.slow == 1 && c.instances[INSTANCE_READY] == 3, "one of three is in the slow lane");
	is_int(claim(s, 1).study, 2, "the normal lane first");
	in = claim(s, 1);
	is_int(in.study, 2, "all of it");
	settle(s, &in);
	in = claim(s, 1);
	is_int(in.id, slow.id, "then the slow one");
	is_int(in.lane, LANE_OLD, "which says so");
	settle(s, &in);
	is_int(store_counts(s, &c), 0, "count");
	is_int(c.slow, 0, "none waits there now");

	add_to(s, 3, 4, LANE_NORMAL);
	in = claim(s, 1);
	settle(s, &in);
	st = next_study(s, 200);
	is_int(st.id, study_row(s, 3).id, "a later study of the normal lane is reported first");
	is_int(store_close_study(s, &st, STUDY_REPORTED, ""), 0, "reported");
	st = next_study(s, 200);
	ok(st.id == 1 && st.lane == LANE_OLD, "then the old one");
	is_int(store_close_study(s, &st, STUDY_REPORTED, ""), 0, "reported");

	add_to(s, 1, 5, LANE_NORMAL);
	is_int(study_row(s, 1).lane, LANE_NORMAL, "opened again by a new film it is not slow");
	is_int(claim(s, 1).study, 1, "nor is the film");
	add_to(s, 3, 6, LANE_FETCHED);
	is_int(study_row(s, 3).lane, LANE_FETCHED, "and the other way round, what was reported");
	add_to(s, 3, 7, LANE_OLD);
	is_int(study_row(s, 3).lane, LANE_FETCHED, "the first reason stays");
	is_int(store_counts(s, &c), 0, "count");
	is_int(c.slow, 2, "both wait in the slow lane");
	add_to(s, 3, 8, LANE_NORMAL);
	is_int(study_row(s, 3).lane, LANE_NORMAL, "one that may not wait takes its study along");
	is_int(store_counts(s, &c), 0, "count");
	is_int(c.slow, 0, "with all that waits of it");
	ok(is_sound(s), "the database is sound");
	store_close(s);
}

/* An operator's requeue is in its study's lane. */
static void test_requeue(void)
{
	struct store *s = open_fresh("requeue");
	struct store_counts c;
	struct instance in;

	add_to(s, 1, 1, LANE_OLD);
	in = claim(s, 1);
	settle(s, &in);
	is_int(store_requeue_instance(s, in.id, 5), 0, "requeue");
	is_int(store_counts(s, &c), 0, "count");
	is_int(c.slow, 1, "slow as it was");
	ok(is_sound(s), "the database is sound");
	store_close(s);
}

/* `older` wait in the slow lane; before every claim a new film comes.  The node ends after every third claim. */
static void starve(bool studies, unsigned older)
{
	struct store *s = open_fresh(studies ? "starve-studies" : "starve-images");
	unsigned claims = 0, n = 1000, limit = STORE_SLOW_EVERY * (older + 1);
	int64_t wanted = 0, got = 0;
	struct instance in;

	for (unsigned i = 0; i <= older; i++) {
		in = add_to(s, i, i, LANE_OLD);
		wanted = studies ? in.study : in.id;
	}
	if (studies)
		is_int(sqlite3_exec(s->db, "UPDATE instance SET state = 2, outcome = 1", NULL, NULL, NULL), SQLITE_OK, "scored");
	while (got != wanted && claims <= limit) {
		in = add_to(s, n, n, LANE_NORMAL);
		n++;
		if (studies) {
			struct study st;

			if (sqlite3_exec(s->db, "UPDATE instance SET state = 2, outcome = 1 WHERE state = 0", NULL, NULL, NULL) != SQLITE_OK)
				ok(false, "scored");
			st = next_study(s, 1000);
			got = st.id;
			(void)store_close_study(s, &st, STUDY_REPORTED, "");
		} else {
			in = claim(s, 1000);
			got = in.id;
			settle(s, &in);
		}
		if (++claims % 3 == 0) {
			store_close(s);
			s = open_again();
		}
	}
	ok(claims <= limit, "%s, %u older: served with claim %u of at most %u", studies ? "studies" : "images", older, claims, limit);
	store_close(s);
}

int main(void)
{
	test_old();
	test_flood();
	make_dir("test_lane");
	test_order();
	test_requeue();
	starve(false, 0);
	starve(false, 2);
	starve(true, 0);
	starve(true, 2);
	return done();
}
