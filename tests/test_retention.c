/* test_retention.c: what may go, what must stay, and in which order (store/retention.c).
 */
#include <errno.h>

#include "base/clock.h"

#include "store/spool.h"

#include "tests/store_rows.h"

#define LATER 1000000

static const struct retention all_ages = { LATER, LATER, LATER };
static const struct retention images_only = { LATER, 0, 0 };
static const struct retention failed_only = { 0, LATER, 0 };

static size_t expire(struct store *s, const struct retention *before, size_t max)
{
	size_t n = 99;
	struct removal what;
	int r = store_expire(s, before, max, &n, &what);

	if (r < 0)
		ok(false, "expire: %s", store_error(s));
	return n;
}

static unsigned doomed_of(struct store *s, enum spool_box box, uint64_t file)
{
	struct doomed d[ROOM];
	unsigned found = 0;
	size_t n = 0;

	if (store_list_doomed(s, d, ROOM, &n) < 0)
		ok(false, "doomed files can be listed");
	for (size_t i = 0; i < n; i++)
		found += d[i].box == box && d[i].file == file;
	return found;
}

static struct instance first_of(struct store *s, int64_t study)
{
	struct instance in = { .id = number(s, "SELECT min(id) FROM instance"), .study = study };

	return row(s, &in);
}

static void deliver(struct store *s, int64_t finished)
{
	struct delivery d = next_delivery(s, "PACS", 100);

	if (store_close_delivery(s, &d, finished, 0, "") < 0)
		ok(false, "delivered: %s", store_error(s));
}

static int see_none(uint64_t file, int64_t row, void *arg)
{
	(void)arg;
	ok(false, "file %llu of row %lld", (unsigned long long)file, (long long)row);
	return 0;
}

/* One study from its delivery to its end. */
static void test_life(void)
{
	struct store *s = open_fresh("life");
	int64_t study = report_study(s, 1);
	struct instance in = first_of(s, study), again = instance_of(1, 101, 1);
	struct retention next;
	struct doomed d;
	bool duplicate;
	uint64_t file;
	size_t n;

	is_int(expire(s, &all_ages, 9), 0, "nothing goes while a delivery is not done");
	is_int(store_next_expiry(s, &next), 0, "ask when something could");
	ok(next.images == INT64_MAX && next.failed == INT64_MAX && next.rows == INT64_MAX, "never, as it stands");
	deliver(s, 5000);
	is_int(store_next_expiry(s, &next), 0, "delivered: ask again");
	ok(next.images == 5000 && next.rows == 5000 && next.failed == INT64_MAX, "its age counts from the delivery");
	is_int(expire(s, &(struct retention){ 5000, 5000, 5000 }, 9), 0, "not at that moment");
	is_int(expire(s, &(struct retention){ 5001, 0, 0 }, 9), 1, "after it the image's file goes");
	in = row(s, &in);
	ok(in.id != 0 && !in.kept && in.state == INSTANCE_SETTLED, "its row stays");
	is_int(doomed_of(s, SPOOL_OBJECTS, in.file), 1, "its file is doomed");
	is_int(expire(s, &images_only, 9), 0, "once");
	is_int(store_instance_file(s, in.id, &file), -ENODATA, "the file cannot be asked for");
	is_int(store_each_file(s, false, see_none, NULL), 0, "it is not looked for at the start");
	is_int(store_requeue_instance(s, in.id, 0), -ENODATA, "nor analysed again");
	ok(is_sound(s), "the database is sound");

	is_int(store_add_instance(s, &again, 0, &duplicate), 0, "the same bytes come again");
	ok(duplicate && again.id == in.id, "and are known");
	is_int(store_adopt_file(s, in.id, 4711, 9000), 0, "their file is taken");
	ok(row(s, &in).kept && row(s, &in).file == 4711, "the row has a file again");
	is_int(store_next_expiry(s, &next), 0, "ask when");
	is_int(next.images, 9000, "its age begins anew");
	is_int(expire(s, &images_only, 9), 1, "it goes again");

	d = (struct doomed){ SPOOL_OBJECTS, in.file };
	is_int(store_forget_doomed(s, &d), 0, "unlinked and synced: forgotten");
	is_int(doomed_of(s, SPOOL_OBJECTS, in.file), 0, "it is no longer listed");
	is_int(doomed_of(s, SPOOL_OBJECTS, 4711), 1, "the other is");

	file = (uint64_t)number(s, "SELECT file FROM report");
	for (n = 0; n < 10 && expire(s, &all_ages, 9) > 0; n++)
		ok(is_sound(s), "sound after step %zu", n);
	is_int(number(s, "SELECT (SELECT count(*) FROM study) + (SELECT count(*) FROM instance) + "
			 "(SELECT count(*) FROM score) + (SELECT count(*) FROM report) + (SELECT count(*) FROM delivery)"), 0,
	       "in the end no row is left");
	is_int(doomed_of(s, SPOOL_REPORTS, file), 1, "the report's file is doomed");
	is_int(expire(s, &all_ages, 9), 0, "nothing is left to expire");
	store_close(s);
}

/* The same inputs after their study was forgotten: the same time, hence the same bytes. */
static void test_said(void)
{
	static const uint8_t key[DIGEST_SIZE] = { 7 };
	struct store *s = open_fresh("said");
	struct instance in;
	struct study st;
	int64_t at = 1234;
	size_t n;

	(void)add(s, 1, 1);
	in = claim(s, 1);
	settle(s, &in);
	st = next_study(s, 100);
	is_int(store_plan_study(s, &st, key, &at), 0, "a report is planned");
	is_int(store_finish_study(s, &st, 1, ""), 0, "and made");
	is_int(store_purge_study(s, "1.2.9.1", &n), 0, "its study is purged");
	is_int(number(s, "SELECT count(*) FROM study"), 0, "and gone");
	(void)add(s, 1, 1);
	in = claim(s, 1);
	settle(s, &in);
	st = next_study(s, 100);
	at = 9999;
	is_int(store_plan_study(s, &st, key, &at), 0, "the same is planned again");
	is_int(at, 1234, "with the time of then");
	store_close(s);
}

static void test_failed(void)
{
	struct store *s = open_fresh("failed");
	struct instance in;
	struct study st;

	(void)add(s, 1, 1);
	in = claim(s, 1);
	is_int(end_quarantine(s, &in), 0, "an image is quarantined");
	is_int(expire(s, &all_ages, 9), 0, "nothing goes before its study is closed");
	st = next_study(s, 100);
	is_int(store_close_study(s, &st, STUDY_SILENT, ""), 0, "closed");
	is_int(expire(s, &images_only, 9), 0, "a failed one is not kept as others are");
	is_int(expire(s, &failed_only, 9), 1, "but by the age of failed ones");
	ok(is_sound(s), "the database is sound");

	(void)add(s, 2, 2);
	in = claim(s, 1);
	settle(s, &in);
	st = next_study(s, 100);
	is_int(store_close_study(s, &st, STUDY_PARKED, "w"), 0, "a study is parked");
	is_int(expire(s, &images_only, 9), 0, "that is a failure too");
	is_int(expire(s, &failed_only, 9), 1, "and ages as one");
	ok(is_sound(s), "the database is sound");
	store_close(s);
}

/* What waits or is worked on stays, and what is set aside goes. */
static void test_waiting(void)
{
	struct store *s = open_fresh("waiting");
	struct instance in = instance_of(9, 9, 1);
	struct study st;
	bool duplicate;

	(void)add(s, 1, 1);
	is_int(expire(s, &all_ages, 9), 0, "not what waits");
	in = claim(s, 1);
	is_int(expire(s, &all_ages, 9), 0, "not what is analysed");
	settle(s, &in);
	st = next_study(s, 100);
	is_int(expire(s, &all_ages, 9), 0, "not what is composed");
	is_int(store_close_study(s, &st, STUDY_REPORTED, ""), 0, "reported");
	(void)add(s, 1, 2);
	is_int(expire(s, &all_ages, 9), 0, "not a study that got a late image");
	in = instance_of(9, 9, 1);
	in.state = INSTANCE_ASIDE;
	is_int(store_add_instance(s, &in, 100, &duplicate), 0, "an object is set aside");
	is_int(expire(s, &(struct retention){ 700, 700, 700 }, 9), 0, "its age counts from when it came (777)");
	is_int(expire(s, &images_only, 9), 1, "then it goes");
	store_close(s);
}

static void test_bounded(void)
{
	struct store *s = open_fresh("bounded");
	struct instance in;
	struct study st;
	size_t steps = 0, n, total = 0;

	for (unsigned i = 0; i < 10; i++)
		(void)add(s, 1, i);
	while ((in = claim(s, 1)).id > 0)
		settle(s, &in);
	st = next_study(s, 100);
	is_int(store_close_study(s, &st, STUDY_SILENT, ""), 0, "a study of ten");
	while ((n = expire(s, &all_ages, 3)) > 0) {
		ok(n <= 3 && is_sound(s), "a step of %zu", n);
		total += n;
		steps++;
	}
	ok(steps == 5 && total == 11, "4 steps for ten images, one for the study: %zu, %zu rows", steps, total);
	is_int(number(s, "SELECT count(*) FROM doomed"), 10, "ten files are doomed");
	store_close(s);
}

static void test_purge(void)
{
	struct store *s = open_fresh("purge");
	struct instance in;
	struct delivery d;
	struct study st;
	size_t n;

	(void)report_study(s, 1);
	(void)report_study(s, 2);
	is_int(store_purge_study(s, "1.2.9.77", &n), -ENOENT, "a study that is not there");
	d = next_delivery(s, "PACS", 100);
	is_int(store_purge_study(s, "1.2.9.1", &n), -EBUSY, "not while something of it is sent");
	is_int(end_defer(s, &d), 0, "it comes back");
	is_int(store_purge_study(s, "1.2.9.1", &n), 0, "then it goes, sent or not");
	ok(n == 3, "image, report, study: %zu rows", n);
	is_int(number(s, "SELECT count(*) FROM doomed"), 2, "two files are doomed");
	is_int(study_row(s, 1).id, 0, "the study is gone");
	ok(study_row(s, 2).id != 0, "the other is not");
	(void)add(s, 3, 3);
	is_int(store_purge_study(s, "1.2.9.3", &n), 0, "also what waits to be analysed");
	(void)add(s, 4, 4);
	in = claim(s, 1);
	is_int(store_purge_study(s, "1.2.9.4", &n), -EBUSY, "not what is analysed");
	settle(s, &in);
	st = next_study(s, 100);
	is_int(store_purge_study(s, "1.2.9.4", &n), -EBUSY, "nor what is composed");
	is_int(store_close_study(s, &st, STUDY_SILENT, ""), 0, "closed");
	is_int(store_purge_study(s, "1.2.9.4", &n), 0, "then it goes");
	ok(is_sound(s), "the database is sound");
	store_close(s);
}

/* A step costs the same among few studies and among very many. */
static int64_t us_of_a_step(unsigned n)
{
	struct store *s = open_fresh(n < 10000 ? "few" : "many");
	char *sql = sqlite3_mprintf(
		"BEGIN; WITH RECURSIVE g(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM g LIMIT %u) "
		"INSERT INTO study (study_uid, state, settle_at, created) SELECT '1.7.' || v, 2, v, 1 FROM g; "
		"INSERT INTO instance (study, file, sop_class, sop_uid, series_uid, syntax, calling_ae, called_ae, "
		"peer, digest, size, received, revision, state, outcome) SELECT id, id, '1', '1.8.' || id, '1', '1', '1', "
		"'1', '1', zeroblob(32), 1, 1, 1, 2, 1 FROM study; COMMIT", n);
	int64_t from, us;
	size_t steps;

	if (sqlite3_exec(s->db, sql, NULL, NULL, NULL) != SQLITE_OK)
		ok(false, "populate: %s", sqlite3_errmsg(s->db));
	sqlite3_free(sql);
	from = clock_boot_ms();
	if (store_begin(s) < 0)
		ok(false, "begin");
	for (steps = 0; steps < 500 && expire(s, &all_ages, 64) > 0; steps++)
		;
	us = (clock_boot_ms() - from) * 1000 / (int64_t)steps;
	if (store_commit(s) < 0)
		ok(false, "commit");
	store_close(s);
	return us;
}

static void test_flat(void)
{
	const char *long_run = getenv("CHECK_LONG");
	unsigned many = long_run != NULL && strcmp(long_run, "yes") == 0 ? 1000000 : 30000;
	int64_t few_us = us_of_a_step(1000), many_us = us_of_a_step(many);

	ok(many_us < 5 * few_us + 200, "a step takes %lld us among 10^3 studies, %lld us among %u", (long long)few_us,
	   (long long)many_us, many);
}

int main(void)
{
	make_dir("test_retention");
	test_life();
	test_said();
	test_failed();
	test_waiting();
	test_bounded();
	test_purge();
	test_flat();
	return done();
}
