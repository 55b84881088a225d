/* test_store.c: opening, refusals, transactions, and what is left after a failure (store/store.c);
 * instances, studies and deliveries have tests of their own.
 *
 * Real database files with real fsyncs, each part in a fresh one.  The last parts look inside
 * (store-private.h): which plan SQLite chose for each statement, and how many steps a claim takes
 * among few rows and among many.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fdio.h"
#include "base/mem.h"

#include "store/store-private.h"

#include "tests/store_rows.h"

/* ---- opening -------------------------------------------------------------------------------- */

static unsigned mode_of(const char *suffix)
{
	char name[PATH_SIZE + 64];
	struct stat st;

	(void)snprintf(name, sizeof(name), "%s%s", path, suffix);
	return stat(name, &st) < 0 ? 0 : st.st_mode & 07777;
}

static off_t size_of(const char *suffix)
{
	char name[PATH_SIZE + 64];
	struct stat st;

	(void)snprintf(name, sizeof(name), "%s%s", path, suffix);
	return stat(name, &st) < 0 ? -1 : st.st_size;
}

static void test_open(void)
{
	static const struct {
		const char *sql;
		int64_t want;
	} set[] = {
		{ "PRAGMA synchronous", 2 }, { "PRAGMA mmap_size", 0 }, { "PRAGMA trusted_schema", 0 },
		{ "PRAGMA cell_size_check", 1 }, { "PRAGMA foreign_keys", 1 }, { "PRAGMA secure_delete", 1 },
		{ "PRAGMA temp_store", 2 }, { "PRAGMA journal_size_limit", 64 << 20 },
		{ "PRAGMA user_version", 2 },
		{ "SELECT journal_mode = 'wal' FROM pragma_journal_mode", 1 },
		{ "SELECT count(*) FROM sqlite_schema s WHERE type = 'table' AND name NOT LIKE 'sqlite_%' "
		  "AND NOT (SELECT strict FROM pragma_table_list(s.name))", 0 },
	};
	struct store *s, *second = NULL;
	struct err e = { "" };

	(void)umask(022);
	s = open_fresh("open");
	for (size_t i = 0; i < ARRAY_SIZE(set); i++)
		is_int(number(s, set[i].sql), set[i].want, "%s", set[i].sql);
	(void)add(s, 1, 1);
	is_int(mode_of(""), 0600, "the database is for us alone");
	is_int(mode_of("-wal"), 0600, "so is its log");
	is_int(mode_of("-shm"), 0600, "so is its index");
	is_int(mode_of(".lock"), 0600, "so is its lock");
	is_int(store_open(path, &second, &e), -EBUSY, "a second writer is refused");
	ok(strstr(e.text, path) != NULL && strstr(e.text, "another") != NULL, "with a text: %s", e.text);
	ok(second == NULL, "and gets nothing");
	store_close(s);
	is_int(size_of("-wal"), 0, "closing leaves an empty log");
	s = open_again();
	is_int(number(s, "SELECT count(*) FROM instance"), 1, "the row is there after opening again");
	store_close(s);
	store_close(NULL);
}

static void damage(const char *sql)
{
	sqlite3 *db = NULL;

	if (sqlite3_open(path, &db) != SQLITE_OK || sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
		ok(false, "%s", sql);
	(void)sqlite3_close(db);
}

static void refused(int want_writer, int want_reader, const char *text)
{
	struct store *s = NULL;
	struct err e = { "" };

	is_int(store_open(path, &s, &e), want_writer, "writer refused: %s", text);
	ok(strstr(e.text, path) != NULL && strstr(e.text, text) != NULL, "and told: %s", e.text);
	is_int(store_open_reader(path, &s, &e), want_reader, "reader refused: %s", text);
	ok(strstr(e.text, path) != NULL && strstr(e.text, text) != NULL, "and told: %s", e.text);
	ok(s == NULL, "nothing is given");
}

static void test_refused_files(void)
{
	static const char garbage[4096] = "this is a shopping list, not a database";
	struct store *s = NULL;
	struct err e = { "" };
	int fd;

	store_close(open_fresh("newer"));
	damage("PRAGMA user_version = 99");
	refused(-ENOTSUP, -ENOTSUP, "schema 99");
	damage("PRAGMA user_version = 2");
	s = open_again();
	ok(s != NULL, "the refusal changed nothing");
	store_close(s);

	(void)snprintf(path, sizeof(path), "%s/foreign.db", dir);
	damage("CREATE TABLE customer (name)");
	refused(-ENOTSUP, -ENOTSUP, "not one of carzerod");
	damage("PRAGMA user_version = 1");
	refused(-ENOTSUP, -ENOTSUP, "not one of carzerod");

	(void)snprintf(path, sizeof(path), "%s/garbage.db", dir);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	is_int(write_full(fd, garbage, sizeof(garbage)), 0, "a file of garbage");
	(void)close(fd);
	refused(-EUCLEAN, -EUCLEAN, "not a database");

	(void)snprintf(path, sizeof(path), "%s/old.db", dir);
	damage("PRAGMA user_version = 0");
	s = NULL;
	is_int(store_open_reader(path, &s, &e), -ENOTSUP, "a reader does not migrate");
	ok(strstr(e.text, "starting carzerod once") != NULL, "and says what does: %s", e.text);

	(void)snprintf(path, sizeof(path), "%s/nowhere/x.db", dir);
	refused(-ENOENT, -ENOENT, "No such file");
}

static void test_reader(void)
{
	struct store *s = open_fresh("reader"), *reader = NULL;
	struct store_counts c;
	struct err e = { "" };
	struct instance in;
	off_t wal;
	bool duplicate;

	(void)add(s, 1, 1);
	is_int(store_open_reader(path, &reader, &e), 0, "a reader opens beside the writer %s", e.text);
	is_int(store_begin(s), 0, "the writer begins");
	(void)add(s, 1, 2);
	is_int(store_counts(reader, &c), 0, "the reader reads meanwhile");
	is_int(c.instances[INSTANCE_READY], 1, "and does not see what is not committed");
	is_int(store_commit(s), 0, "commit");
	is_int(store_counts(reader, &c), 0, "the reader reads");
	is_int(c.instances[INSTANCE_READY], 2, "and sees the committed row");
	in = instance_of(1, 3, 1);
	is_int(store_add_instance(reader, &in, 0, &duplicate), -EROFS, "a reader cannot write");
	is_int(store_recover(reader, 0, &(unsigned){ 0 }), -EROFS, "not even that");
	wal = size_of("-wal");
	store_close(reader);
	ok(wal > 0 && size_of("-wal") == wal, "closing a reader leaves the log alone");
	store_close(s);
	is_int(store_open_reader(path, &reader, &e), 0, "a reader opens without a writer %s", e.text);
	is_int(store_counts(reader, &c), 0, "and reads");
	is_int(c.instances[INSTANCE_READY], 2, "all rows");
	s = open_again();
	ok(s != NULL, "a writer opens beside a reader");
	store_close(s);
	store_close(reader);
}

static void test_settings(void)
{
	struct store *s = open_fresh("settings");
	char value[16] = "old";

	is_int(store_get_setting(s, "site", value, sizeof(value)), -ENOENT, "no such setting");
	is_str(value, "old", "the result is left alone");
	is_int(store_set_setting(s, "site", "one"), 0, "set");
	is_int(store_set_setting(s, "site", "two"), 0, "set again");
	is_int(store_get_setting(s, "site", value, sizeof(value)), 0, "get");
	is_str(value, "two", "the last value counts");
	is_int(store_get_setting(s, "site", value, 3), -E2BIG, "too small a room");
	store_close(s);
	s = open_again();
	is_int(store_get_setting(s, "site", value, 4), 0, "it is there after opening again");
	store_close(s);
}

/* ---- recovery, counts, files ---------------------------------------------------------------- */

static void test_recover(void)
{
	struct store *s = open_fresh("recover");
	struct instance in;
	struct delivery d;
	struct study st;
	unsigned n = 0;

	(void)report_study(s, 1);
	(void)add(s, 2, 2);
	in = claim(s, 1);
	settle(s, &in);
	(void)add(s, 3, 3);
	in = claim(s, 1);
	(void)store_retry_instance(s, &in, 9000, "", false);
	in = claim(s, 9000);
	st = next_study(s, 100);
	d = next_delivery(s, "PACS", 100);
	store_close(s);
	s = open_again();
	is_int(store_recover(s, 500, &n), 0, "recover");
	is_int(n, 3, "three claims are taken back");
	is_int(row(s, &in).state, INSTANCE_READY, "READY");
	is_int(row(s, &in).attempt, 2, "attempts stay counted");
	is_int(row(s, &in).due, 500, "a time that a stepped clock left in the future is now");
	is_int(study_row(s, 2).state, STUDY_COLLECTING, "COLLECTING");
	is_int(study_row(s, 2).attempt, 1, "attempts stay counted");
	is_int(delivery_row(s, d.study, d.id).state, DELIVERY_QUEUED, "QUEUED");
	is_int(delivery_row(s, d.study, d.id).attempt, 1, "attempts stay counted");
	is_int(claim(s, 500).id, in.id, "the instance can be claimed");
	is_int(next_study(s, 500).id, st.id, "so can the study");
	is_int(next_delivery(s, "PACS", 500).id, d.id, "so can the delivery");
	store_close(s);
}

static void test_counts(void)
{
	static const struct store_counts zero;
	struct store *s = open_fresh("counts");
	struct store_counts c;
	struct instance in;
	struct delivery d;
	bool duplicate;

	memset(&c, 7, sizeof(c));
	is_int(store_counts(s, &c), 0, "counts of an empty store");
	ok(memcmp(&c, &zero, sizeof(c)) == 0, "are zero");
	for (unsigned i = 1; i <= 3; i++)
		(void)report_study(s, i); /* 3 SETTLED, 3 REPORTED, 3 QUEUED */
	d = next_delivery(s, "PACS", 1);
	(void)store_close_delivery(s, &d, 2, 0, "");
	d = next_delivery(s, "PACS", 1);
	(void)store_park_delivery(s, &d, 99, 0, "");
	for (unsigned i = 10; i < 14; i++)
		(void)add(s, i, i);
	in = claim(s, 1);
	(void)store_quarantine_instance(s, &in, 1, "");
	in = claim(s, 1);
	in = instance_of(20, 20, 1);
	in.state = INSTANCE_ASIDE;
	(void)store_add_instance(s, &in, 0, &duplicate);
	is_int(store_counts(s, &c), 0, "counts");
	is_int(c.instances[INSTANCE_READY], 2, "READY");
	is_int(c.instances[INSTANCE_CLAIMED], 1, "CLAIMED");
	is_int(c.instances[INSTANCE_SETTLED], 3, "SETTLED");
	is_int(c.instances[INSTANCE_QUARANTINED], 1, "QUARANTINED");
	is_int(c.instances[INSTANCE_ASIDE], 1, "ASIDE");
	is_int(c.studies[STUDY_COLLECTING], 4, "COLLECTING");
	is_int(c.studies[STUDY_REPORTED], 3, "REPORTED");
	is_int(c.studies[STUDY_SILENT], 1, "SILENT");
	is_int(c.deliveries[DELIVERY_QUEUED], 1, "QUEUED");
	is_int(c.deliveries[DELIVERY_DONE], 1, "DONE");
	is_int(c.deliveries[DELIVERY_PARKED], 1, "PARKED");
	is_int(c.reports, 3, "reports");
	is_int(c.oldest_ready, 777, "the oldest waiting");
	is_int(c.oldest_delivery, 50, "the oldest undelivered");
	store_close(s);
}

struct seen {
	unsigned n, stop_at;
	uint64_t files;
};

static int see(uint64_t file, int64_t id, void *arg)
{
	struct seen *seen = arg;

	seen->n += id > 0;
	seen->files += file;
	return seen->n == seen->stop_at ? 42 : 0;
}

static int see_digest(uint64_t file, int64_t id, const uint8_t digest[DIGEST_SIZE], void *arg)
{
	(void)arg;
	return file == 0 || id == 0 || digest[0] == 0 ? -EINVAL : 0;
}

static void test_each_file(void)
{
	struct store *s = open_fresh("files");
	struct seen seen = { 0, 0, 0 };
	uint64_t sum = 0;

	for (unsigned i = 5; i < 15; i++)
		sum += add(s, i, i).file;
	is_int(store_each_file(s, false, see, &seen), 0, "each object");
	ok(seen.n == 10 && seen.files == sum, "ten files");
	seen = (struct seen){ .stop_at = 3 };
	is_int(store_each_file(s, false, see, &seen), 42, "until the callback says stop");
	is_int(seen.n, 3, "at the third");
	seen = (struct seen){ 0, 0, 0 };
	is_int(store_each_file(s, true, see, &seen), 0, "each report");
	is_int(seen.n, 0, "none");
	store_close(s);
}

/* ---- atomic and durable --------------------------------------------------------------------- */

static void test_group(void)
{
	struct store *s = open_fresh("group");
	struct instance a, b, stale = instance_of(1, 9, 1);

	is_int(store_begin(s), 0, "begin");
	a = add(s, 1, 1);
	is_int(end_quarantine(s, &stale), -ESTALE, "a call that fails by its own rules");
	b = add(s, 1, 2);
	is_int(claim(s, 1).id, a.id, "the group sees its own rows");
	is_int(store_commit(s), 0, "does not hurt the group");
	is_int(row(s, &a).state, INSTANCE_CLAIMED, "the first row is there");
	is_int(row(s, &b).state, INSTANCE_READY, "so is the second");
	is_int(store_begin(s), 0, "begin");
	(void)add(s, 2, 3);
	store_rollback(s);
	is_int(number(s, "SELECT count(*) FROM instance"), 2, "a rollback leaves nothing");
	is_int(number(s, "SELECT count(*) FROM study"), 1, "at all");
	store_rollback(s);
	is_int(store_begin(s), 0, "begin");
	(void)add(s, 2, 3);
	store_close(s);
	s = open_again();
	is_int(number(s, "SELECT count(*) FROM instance"), 2, "closing in a group rolls it back");
	ok(is_sound(s), "the database is sound");
	store_close(s);
}

/* No write may go beyond `size` of a file; -1: no limit. */
static void limit_files(off_t size)
{
	struct rlimit limit;

	(void)getrlimit(RLIMIT_FSIZE, &limit);
	limit.rlim_cur = size < 0 ? limit.rlim_max : (rlim_t)size;
	if (setrlimit(RLIMIT_FSIZE, &limit) < 0)
		ok(false, "setrlimit");
}

static void test_full(void)
{
	struct store *s = open_fresh("full");
	struct instance a = add(s, 1, 1), b = instance_of(2, 2, 1), c;
	bool duplicate;
	int64_t id;

	limit_files(size_of("-wal"));
	is_int(store_add_instance(s, &b, 0, &duplicate), -ENOSPC, "no room for a row");
	ok(strlen(store_error(s)) > 0, "the text says: %s", store_error(s));
	is_int(b.id, 0, "no result");
	is_int(store_find_file(s, b.file, &id), -ENOENT, "nothing of it is there");
	is_int(store_find_study(s, b.study_uid, &(struct study){ 0 }), -ENOENT, "not even its study");
	is_int(store_claim_instance(s, 1, 2, &c), -ENOSPC, "no room for a claim");
	is_int(row(s, &a).attempt, 0, "nothing of it is there");

	is_int(store_begin(s), 0, "a group begins");
	is_int(store_add_instance(s, &b, 0, &duplicate), 0, "rows go to memory");
	is_int(store_commit(s), -ENOSPC, "and fail to commit");
	is_int(store_find_file(s, b.file, &id), -ENOENT, "nothing of the group is there");
	limit_files(-1);
	is_int(store_add_instance(s, &b, 0, &duplicate), 0, "with room it works again");
	ok(!duplicate, "as new");
	store_close(s);
	s = open_again();
	is_int(number(s, "SELECT count(*) FROM instance"), 2, "both rows are there");
	ok(is_sound(s), "the database is sound");
	store_close(s);
}

/* So many rows that SQLite has to write before the commit, and fails in the middle of a call. */
static void test_full_in_the_middle(void)
{
	struct store *s = open_fresh("full-middle");
	bool duplicate;
	int r = 0;

	(void)sqlite3_exec(s->db, "PRAGMA cache_size = 10", NULL, NULL, NULL);
	limit_files(size_of("-wal"));
	is_int(store_begin(s), 0, "a group begins");
	for (unsigned i = 0; r == 0 && i < 5000; i++) {
		struct instance in = instance_of(i, i, 1);

		r = store_add_instance(s, &in, 0, &duplicate);
	}
	is_int(r, -ENOSPC, "a call in it fails");
	is_int(store_set_setting(s, "a", "b"), -ENOSPC, "so does every later one");
	is_int(store_commit(s), -ENOSPC, "and the commit");
	limit_files(-1);
	is_int(number(s, "SELECT count(*) FROM instance"), 0, "nothing is there");
	is_int(store_begin(s), 0, "the next group begins");
	is_int(store_set_setting(s, "a", "b"), 0, "and works");
	is_int(store_commit(s), 0, "and commits");
	ok(is_sound(s), "the database is sound");
	store_close(s);
}

static void test_full_at_birth(void)
{
	struct store *s = NULL;
	struct err e = { "" };

	(void)snprintf(path, sizeof(path), "%s/birth.db", dir);
	limit_files(16384);
	is_int(store_open(path, &s, &e), -ENOSPC, "no room for the schema: %s", e.text);
	limit_files(-1);
	s = open_again();
	(void)add(s, 1, 1);
	ok(is_sound(s), "a half-made database is made whole");
	store_close(s);
}

static __attribute__((noreturn)) void work_until_killed(int report_to, unsigned round)
{
	struct store *s = open_again();
	struct instance in, claimed;
	bool duplicate;
	uint64_t file;
	int r;

	for (unsigned i = 0;; i++) {
		in = instance_of(round, round * 100000 + i, 1);
		in.file = file = ((uint64_t)round << 32) + i + 1;
		r = store_begin(s);
		if (r >= 0)
			r = store_add_instance(s, &in, 0, &duplicate);
		if (r >= 0 && store_claim_instance(s, 1, 2, &claimed) == 0 && i % 3 != 0)
			r = end_settle(s, &claimed);
		if (r >= 0)
			r = store_commit(s);
		if (r < 0 || write(report_to, &file, sizeof(file)) != sizeof(file))
			_exit(1);
	}
}

/* Starts a writer, kills it after `ms`, and counts what it reported but did not keep. */
static void kill_once(unsigned round, unsigned ms, unsigned *reported, unsigned *lost)
{
	struct timespec wait = { .tv_nsec = ms * 1000000L };
	struct store *s;
	uint64_t file;
	int64_t id;
	int ends[2];
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return;
	pid = fork();
	if (pid == 0)
		work_until_killed(ends[1], round);
	(void)close(ends[1]);
	if (read_full(ends[0], &file, sizeof(file)) < 0) /* it is at work now */
		ok(false, "the writer works");
	(void)nanosleep(&wait, NULL);
	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, NULL, 0);
	s = open_again();
	do {
		++*reported;
		*lost += store_find_file(s, file, &id) < 0;
	} while (read_full(ends[0], &file, sizeof(file)) == 0);
	(void)close(ends[0]);
	if (!is_sound(s))
		ok(false, "the database is sound after round %u", round);
	store_close(s);
}

static void test_kill(void)
{
	unsigned reported = 0, lost = 0, n;
	struct store *s = open_fresh("kill");

	store_close(s);
	for (unsigned round = 0; round < 20; round++)
		kill_once(round, 1 + round * 7 % 40, &reported, &lost);
	ok(reported >= 20, "%u commits were reported in 20 rounds of kill -9", reported);
	is_int(lost, 0, "none was lost");
	s = open_again();
	is_int(store_recover(s, 10, &n), 0, "recover");
	is_int(number(s, "SELECT count(*) FROM instance WHERE state = 1"), 0, "no claim is left");
	ok(is_sound(s), "the database is sound");
	store_close(s);
}

/* ---- steps ---------------------------------------------------------------------------------- */

static const char step_1[] =
#include "store/schema.inc"
	;

/* A database as the first release left it, with rows of every sort. */
static void test_migrate(void)
{
	char before[PATH_SIZE + 64];
	struct event e[4];
	struct store *s;
	size_t n = 0;

	(void)snprintf(before, sizeof(before), "%s/backup/carzerod-schema-1.db", dir);
	(void)snprintf(path, sizeof(path), "%s/step1.db", dir);
	damage(step_1);
	damage("PRAGMA user_version = 1; PRAGMA application_id = 1668965424; PRAGMA journal_mode = WAL");
	damage("INSERT INTO study (id, study_uid, state, settle_at, created) VALUES (7, '2.25.7', 2, 1, 1);"
	       "INSERT INTO instance (study, file, sop_class, sop_uid, series_uid, syntax, calling_ae, called_ae, peer, digest, "
	       "size, received, revision, state) VALUES (7, 1, '1', '2.25.8', '2.25.9', '1', 'A', 'B', '::1', "
	       "zeroblob(32), 5, 1, 1, 0);"
	       "INSERT INTO delivery (study, revision, kind, destination, state, created) VALUES (7, 1, 'SR', 'PACS', 0, 1)");
	s = open_again();
	is_int(number(s, "PRAGMA user_version"), 2, "a database of step 1 is brought up");
	ok(access(before, R_OK) == 0, "after a copy of it was made");
	is_int(number(s, "SELECT count(*) FROM instance JOIN study ON study.id = instance.study JOIN delivery USING (study)"), 1,
	       "its rows stay");
	is_int(next_delivery(s, "PACS", 1).rank, RANK_ROUTINE, "what waited is routine");
	ok(is_sound(s), "the database is sound");
	is_int(store_add_event(s, 7, 5, EVENT_OBJECT, "after"), 0, "and take what is new");
	is_int(store_list_events(s, 7, e, ARRAY_SIZE(e), &n), 0, "list");
	is_int(n, 1, "one event");
	store_close(s);
}

/* A database as the first schema left it, with a scored image. */
static void test_older_scores(void)
{
	static const char rows[] =
		"PRAGMA user_version = 1; PRAGMA application_id = 0x637a6430;"
		"INSERT INTO study (id, study_uid, state, settle_at, created) VALUES (1, '1.2', 2, 0, 0);"
		"INSERT INTO instance (id, study, file, sop_class, sop_uid, series_uid, syntax, calling_ae, called_ae, "
		"peer, digest, size, received, revision, state, outcome) VALUES (1, 1, 1, '1.2', '1.2.3', '1.2.4', "
		"'1.2', 'A', 'B', '', zeroblob(32), 1, 1, 1, 2, 1);"
		"INSERT INTO score VALUES (1, 0, 'edema', -1.5, 0.25, 2);";
	struct score_map map = { .n = 196 }, back;
	struct score score;
	struct store *s;
	size_t n = 0;

	(void)snprintf(path, sizeof(path), "%s/step1-scored.db", dir);
	damage(step_1);
	damage(rows);
	s = open_again();
	is_int(number(s, "PRAGMA user_version"), 2, "a database of schema 1 is brought up");
	is_int(store_instance_scores(s, 1, &score, 1, &n), 0, "its scores are there");
	ok(n == 1 && strcmp(score.finding, "edema") == 0 && score.decision == 2, "as they were");
	is_int(store_instance_maps(s, 1, &back, 1, &n), 0, "of a score of then");
	is_int(n, 0, "there is no map");
	is_int(store_add_map(s, 1, &map), 0, "but one can be added");
	is_int(store_instance_maps(s, 1, &back, 1, &n), 0, "and read");
	is_int(n, 1, "back");
	store_close(s);
}

/* ---- events --------------------------------------------------------------------------------- */

static void test_events(void)
{
	struct store *s = open_fresh("events");
	struct event *e = xcalloc(STORE_EVENTS_MAX + 10, sizeof(*e));
	int64_t study;
	char text[32];
	size_t n = 0;

	(void)add(s, 1, 1);
	study = number(s, "SELECT min(id) FROM study");
	is_int(store_add_event(s, study, 10, EVENT_DELIVERY, "refused"), 0, "an event");
	is_int(store_add_event(s, study, 20, EVENT_DELIVERY, "refused"), 0, "the same again");
	is_int(store_add_event(s, 0, 25, EVENT_NODE, "of the node"), 0, "another of the node between");
	is_int(store_add_event(s, study, 30, EVENT_DELIVERY, "refused"), 0, "and again");
	is_int(store_add_event(s, study, 40, EVENT_DELIVERY, "accepted"), 0, "another");
	is_int(store_list_events(s, study, e, 10, &n), 0, "list");
	is_int(n, 2, "a row of the same is one");
	ok(e[0].n == 3 && e[0].first == 10 && e[0].last == 30, "that counts: %u, %lld to %lld", e[0].n, (long long)e[0].first,
	   (long long)e[0].last);
	is_str(e[1].text, "accepted", "oldest first");
	is_int(store_add_event(s, 4711, 50, EVENT_NODE, "of nothing"), 0, "an unknown study is no error");
	is_int(number(s, "SELECT count(*) FROM event"), 3, "and leaves nothing");
	for (int i = 0; i < STORE_EVENTS_MAX + 50; i++) {
		(void)snprintf(text, sizeof(text), "number %d", i);
		if (store_add_event(s, study, i, EVENT_OBJECT, text) < 0)
			ok(false, "event %d", i);
	}
	is_int(store_list_events(s, study, e, STORE_EVENTS_MAX + 10, &n), 0, "list");
	is_int(n, STORE_EVENTS_MAX, "the history of a study is bounded");
	is_str(e[n - 1].text, text, "the newest stay");
	is_int(store_list_events(s, 0, e, 10, &n), 0, "the node's");
	is_int(n, 1, "is its own");
	(void)sqlite3_exec(s->db, "DELETE FROM instance", NULL, NULL, NULL);
	is_int(sqlite3_exec(s->db, "DELETE FROM study", NULL, NULL, NULL), SQLITE_OK, "a study goes");
	is_int(number(s, "SELECT count(*) FROM event"), 1, "and its history with it");
	free(e);
	store_close(s);
}

/* ---- backup --------------------------------------------------------------------------------- */

static unsigned backups(void)
{
	char name[PATH_SIZE + 32];
	struct dirent *entry;
	unsigned n = 0;
	DIR *d;

	(void)snprintf(name, sizeof(name), "%s/backups", dir);
	d = opendir(name);
	while (d != NULL && (entry = readdir(d)) != NULL)
		n += strncmp(entry->d_name, "carzerod-2", 10) == 0;
	if (d != NULL)
		(void)closedir(d);
	return n;
}

static void test_backup(void)
{
	struct store *s = open_fresh("backup");
	char folder[PATH_SIZE + 32], name[64], stamp[16];
	struct err e = { "" };
	int fd;

	(void)snprintf(folder, sizeof(folder), "%s/backups", dir);
	is_int(store_restore(path, folder, name, &e), -ENOENT, "no backup yet");
	for (unsigned i = 1; i <= 5; i++) {
		(void)add(s, i, i);
		(void)snprintf(stamp, sizeof(stamp), "2026-%02u", i);
		is_int(store_begin(s), 0, "while the writer writes");
		(void)add(s, 100 + i, 100 + i);
		is_int(store_backup(path, folder, stamp, 3, &e), 0, "a backup: %s", e.text);
		is_int(store_commit(s), 0, "and goes on");
	}
	is_int(backups(), 3, "the newest three are kept");
	(void)snprintf(name, sizeof(name), "schema-1");
	is_int(store_backup(path, folder, name, 3, &e), 0, "one of a migration");
	is_int(backups(), 3, "is apart");
	store_close(s);

	/* the newest backup is damaged, and the database too */
	(void)snprintf(folder + strlen(folder), 32, "/carzerod-2026-05.db");
	fd = open(folder, O_WRONLY | O_CLOEXEC);
	ok(fd >= 0 && pwrite_full(fd, "damage", 6, 4096) == 0, "a page of the newest backup is damaged");
	(void)close(fd);
	*strrchr(folder, '/') = '\0';
	fd = open(path, O_WRONLY | O_CLOEXEC);
	ok(fd >= 0 && pwrite_full(fd, "damage damage damage", 20, 0) == 0, "the head of the database too");
	(void)close(fd);
	s = NULL;
	is_int(store_open(path, &s, &e), -EUCLEAN, "it does not open");
	is_int(store_set_aside(path, "now", &e), 0, "it is set aside");
	is_int(store_restore(path, folder, name, &e), 0, "and the newest good backup put in its place: %s", e.text);
	is_str(name, "carzerod-2026-04.db", "which is the one before");
	s = open_again();
	is_int(number(s, "SELECT count(*) FROM instance"), 7, "with what had been committed then");
	ok(is_sound(s), "it is sound");
	store_close(s);
	ok(access(path, R_OK) == 0, "and stays");
}

/* ---- plans ---------------------------------------------------------------------------------- */

/* Calls everything once, so that every statement is in the cache. */
static void tour(struct store *s)
{
	static const uint8_t key[DIGEST_SIZE] = { 1 };
	struct seen seen = { 0, 0, 0 };
	struct store_counts c;
	struct retention ages;
	struct doomed doomed;
	struct removal removed;
	struct destination to[ROOM];
	struct instance in, all[ROOM];
	struct study st, studies[ROOM];
	struct delivery d, deliveries[ROOM];
	struct report reports[ROOM];
	struct score score = { "edema", 1, 1, 1 };
	int64_t at = 5, id, study = report_study(s, 900001);
	char value[8];
	unsigned flushed;
	bool duplicate;
	void *text = NULL;
	size_t n;
	int bad = 0;

	bad += store_set_setting(s, "k", "v") < 0;
	bad += store_get_setting(s, "k", value, sizeof(value)) < 0;
	in = instance_of(900001, 900001, 1);
	bad += store_add_instance(s, &in, 0, &duplicate) < 0;
	bad += store_add_instance(s, &in, 0, &duplicate) < 0;
	in = claim(s, 1);
	bad += end_retry(s, &in) < 0;
	in = claim(s, 1);
	in.outcome = OUTCOME_SCORED;
	bad += store_settle_instance(s, &in, &score, 1) < 0;
	bad += store_instance_scores(s, in.id, &score, 1, &n) < 0;
	bad += store_requeue_instance(s, in.id, 0) < 0;
	in = claim(s, 1);
	bad += end_quarantine(s, &in) < 0;
	bad += store_settle_study(s, study, 0) < 0;
	st = next_study(s, 1);
	bad += store_plan_study(s, &st, key, &at) < 0;
	bad += store_retry_study(s, &st, 0, "", false) < 0;
	st = next_study(s, 1);
	bad += store_close_study(s, &st, STUDY_SILENT, "") < 0;
	bad += store_find_study(s, st.study_uid, &st) < 0;
	bad += store_list_studies(s, INT64_MAX, studies, ROOM, &n) < 0;
	bad += store_study_instances(s, study, all, ROOM, &n) < 0;
	bad += store_study_reports(s, study, reports, ROOM, &n) < 0;
	d = next_delivery(s, "PACS", 1);
	bad += store_delivery_reports(s, &d, reports, ROOM, &n) < 0;
	bad += store_choose_report(s, &d, reports[0].id) < 0;
	bad += store_reject_report(s, &d) < 0;
	bad += end_defer(s, &d) < 0;
	d = next_delivery(s, "PACS", 1);
	bad += end_park(s, &d) < 0;
	d = next_delivery(s, "PACS", 1);
	bad += end_close(s, &d) < 0;
	bad += store_flush_deliveries(s, "", 1, &flushed) < 0;
	bad += store_flush_deliveries(s, "PACS", 1, &flushed) < 0;
	bad += store_study_deliveries(s, study, deliveries, ROOM, &n) < 0;
	bad += store_list_deliveries(s, 0, deliveries, ROOM, &n) < 0;
	bad += store_destinations(s, to, ROOM, &n) < 0;
	bad += store_keep_findings(s, key, "x", 1) < 0;
	bad += store_get_findings(s, key, &text, &n) < 0;
	free(text);
	bad += store_recover(s, 1, &flushed) < 0;
	bad += store_find_file(s, in.file, &id) < 0;
	bad += store_find_report_file(s, reports[0].file, &id) < 0;
	bad += store_each_file(s, false, see, &seen) < 0;
	bad += store_each_file(s, true, see, &seen) < 0;
	bad += store_next_due(s, &id, &id, &id) < 0;
	bad += store_counts(s, &c) < 0;
	bad += store_release(s, 1) < 0;
	bad += store_check(s) < 0;
	bad += store_each_digest(s, false, see_digest, NULL) < 0;
	bad += store_each_digest(s, true, see_digest, NULL) < 0;
	bad += store_list_claimed(s, &id, 1, &n) < 0;
	bad += store_retry_parked(s, 1, 1, &flushed) < 0;
	bad += store_adopt_file(s, in.id, 5, 1) < 0;
	bad += store_next_expiry(s, &ages) < 0;
	for (n = 1; n > 0;)
		bad += store_expire(s, &ages, 1, &n, &removed) < 0;
	bad += store_list_doomed(s, &doomed, 1, &n) < 0;
	bad += store_forget_doomed(s, &doomed) < 0;
	bad += store_purge_study(s, st.study_uid, &n) == -EIO;
	is_int(bad, 0, "a tour of every call: %s", store_error(s));
}

/* Statements that look at many rows because that is their job; none of them is a claim.  Inserting a
 * report has a plan to search for orphans of its key, which SQLite takes only when there are any. */
static bool may_scan(const char *sql)
{
	static const char *const starts[] = {
		"SELECT file, id FROM", "SELECT file, id, digest FROM", "SELECT count(*) FROM sqlite_schema", "DELETE FROM refused WHERE EXISTS",
		"INSERT INTO report",
		/* the front of an index, whatever its length */
		"SELECT id, quiet FROM study INDEXED BY study_", "SELECT box, file FROM doomed LIMIT",
	};

	for (size_t i = 0; i < ARRAY_SIZE(starts); i++)
		if (strncmp(sql, starts[i], strlen(starts[i])) == 0)
			return true;
	return false;
}

/* A scan of a table or a whole index, or a sort.  Not costly: two rows of a sub-query, the front of a
 * partial index that holds only what waits, the sorting of one study's few rows. */
static bool is_costly(const char *sql, const char *detail)
{
	if (strstr(detail, "TEMP B-TREE") != NULL)
		return strstr(sql, "study = ?") == NULL;
	if (strncmp(detail, "SCAN ", 5) != 0 || strncmp(detail, "SCAN (", 6) == 0 ||
	    strcmp(detail, "SCAN CONSTANT ROW") == 0)
		return false;
	if (strstr(detail, "_claimed") != NULL || strstr(detail, "_unasked") != NULL)
		return false;
	return strstr(sql, "LIMIT 1") == NULL || (strstr(detail, "INDEX study_next") == NULL &&
						  strstr(detail, "INDEX delivery_open") == NULL);
}

static void explain(struct store *s, const char *sql)
{
	char *text = sqlite3_mprintf("EXPLAIN QUERY PLAN %s", sql);
	sqlite3_stmt *st = NULL;
	bool costly = false;

	(void)sqlite3_prepare_v2(s->db, text, -1, &st, NULL); /* PRAGMA and the like have no plan */
	sqlite3_free(text);
	while (sqlite3_step(st) == SQLITE_ROW) {
		const char *detail = (const char *)sqlite3_column_text(st, 3);

		if (is_costly(sql, detail)) {
			costly = true;
			if (!may_scan(sql))
				printf("# %s\n", detail);
		}
	}
	(void)sqlite3_finalize(st);
	ok(!costly || may_scan(sql), "no scan: %.100s", sql);
}

static int64_t steps(struct store *s, bool reset)
{
	int64_t n = 0;

	for (size_t i = 0; i < s->n_cached; i++)
		n += sqlite3_stmt_status(s->cached[i].st, SQLITE_STMTSTATUS_VM_STEP, reset);
	return n;
}

/* n rows of each sort: finished ones, and ones that wait. */
static void populate(struct store *s, unsigned n)
{
	static const char *const sql[] = {
		"INSERT INTO study (study_uid, state, settle_at, created) "
		"SELECT '1.7.' || %u || '.' || value, iif(value %% 2, 2, 0), 1, 1 FROM generate",
		"INSERT INTO instance (study, file, sop_class, sop_uid, series_uid, syntax, calling_ae, called_ae, "
		"peer, digest, size, received, revision, state, outcome) SELECT id, id + 1000000, '1', "
		"'1.8.' || id, '1', '1', '1', '1', '1', zeroblob(32), 1, 1, 1, state, state = 2 "
		"FROM study WHERE study_uid LIKE '1.7.' || %u || '.%%'",
		"INSERT INTO delivery (study, revision, kind, destination, state, created, due) "
		"SELECT id, 1, 'SR', 'PACS' || (id %% 3), iif(id %% 4 < 2, 2, 0), 1, 0 "
		"FROM study WHERE study_uid LIKE '1.7.' || %u || '.%%'",
	};

	for (size_t i = 0; i < ARRAY_SIZE(sql); i++) {
		char *part = sqlite3_mprintf(sql[i], n);
		char *all = sqlite3_mprintf("WITH RECURSIVE generate(value) AS (SELECT 1 UNION ALL SELECT value + 1 "
					    "FROM generate LIMIT %u) %s", n, part);

		if (sqlite3_exec(s->db, all, NULL, NULL, NULL) != SQLITE_OK)
			ok(false, "populate: %s", sqlite3_errmsg(s->db));
		sqlite3_free(part);
		sqlite3_free(all);
	}
}

static int64_t steps_of_a_turn(struct store *s)
{
	unsigned new = 800000 + (unsigned)number(s, "SELECT count(*) FROM instance");
	int64_t due_i, due_s, due_d;
	struct destination to[ROOM];
	struct store_counts c;
	struct instance in;
	struct delivery d;
	struct study st;
	size_t n;

	(void)add(s, new, new);
	(void)steps(s, true);
	in = claim(s, 100);
	settle(s, &in);
	st = next_study(s, 100);
	is_int(store_close_study(s, &st, STUDY_SILENT, ""), 0, "a study");
	d = next_delivery(s, "PACS1", 100);
	is_int(end_close(s, &d), 0, "a delivery");
	is_int(store_next_due(s, &due_i, &due_s, &due_d), 0, "next due");
	is_int(store_destinations(s, to, ROOM, &n), 0, "destinations");
	is_int(store_counts(s, &c), 0, "counts");
	return steps(s, true);
}

static void test_plans(void)
{
	struct store *s = open_fresh("plans");
	int64_t few, many;
	size_t n;

	tour(s);
	n = s->n_cached;
	for (size_t i = 0; i < n; i++)
		explain(s, s->cached[i].sql);
	populate(s, 1000);
	(void)store_recover(s, 1, &(unsigned){ 0 });
	few = steps_of_a_turn(s);
	populate(s, 30000);
	many = steps_of_a_turn(s);
	ok(few > 100 && many < few + few / 4, "one turn of the keeper: %lld steps among 10^3 rows, %lld among 3 10^4",
	   (long long)few, (long long)many);
	is_int(s->n_cached, n, "no statement is prepared twice");
	ok(is_sound(s), "the database is sound");
	store_close(s);
}

/* ---- notices -------------------------------------------------------------------------------- */

static void test_notices(void)
{
	struct store *s = open_fresh("notices.db");
	struct notice n = { .hook = "oncall", .event = "urgent", .key = "urgent study=1", .body = "{}", .created = 10 }, got;
	uint64_t waiting;
	unsigned recovered;
	int64_t due;

	is_int(store_notices_due(s, "oncall", &due, &waiting), 0, "ask");
	ok(due == INT64_MAX && waiting == 0, "nothing waits");
	is_int(store_add_notice(s, &n), 0, "add");
	is_int(store_add_notice(s, &n), 0, "the same again");
	(void)str_copy(n.key, sizeof(n.key), "urgent study=2");
	is_int(store_add_notice(s, &n), 0, "another");
	(void)str_copy(n.hook, sizeof(n.hook), "mail");
	is_int(store_add_notice(s, &n), 0, "for another hook");
	is_int(store_notices_due(s, "oncall", &due, &waiting), 0, "ask");
	ok(due == 0 && waiting == 2, "two wait, at once");
	is_int(store_next_notice(s, "oncall", 100, &got), 0, "claim");
	is_str(got.key, "urgent study=1", "the first");
	is_int(got.attempt, 1, "first attempt");
	is_int(store_next_notice(s, "oncall", 100, &n), 0, "claim");
	is_str(n.key, "urgent study=2", "the second: the first has its lease");
	is_int(store_next_notice(s, "oncall", 100, &n), -ENOENT, "no third");
	is_int(store_defer_notice(s, got.id, 500), 0, "defer");
	is_int(store_next_notice(s, "oncall", 499, &n), -ENOENT, "not yet");
	is_int(store_next_notice(s, "oncall", 500, &n), 0, "now");
	ok(n.id == got.id && n.attempt == 2 && n.created == 10, "second attempt of the same");
	is_int(store_end_notice(s, n.id, 600), 0, "told");
	is_int(store_add_notice(s, &got), 0, "told again under its key:");
	is_int(store_next_notice(s, "oncall", 600, &n), -ENOENT, "it is not");
	is_int(store_next_notice(s, "oncall", 100 + STORE_NOTICE_LEASE_MS, &n), 0, "a lease that ended is due");
	is_int(store_next_notice(s, "oncall", 100 + STORE_NOTICE_LEASE_MS, &n), -ENOENT, "one that has not is not");
	is_int(store_recover(s, 700, &recovered), 0, "start again");
	is_int(store_next_notice(s, "oncall", 700, &n), 0, "it is due at once");
	store_close(s);
}

int main(void)
{
	make_dir("test_store");
	(void)signal(SIGXFSZ, SIG_IGN);
	test_open();
	test_refused_files();
	test_reader();
	test_settings();
	test_recover();
	test_counts();
	test_each_file();
	test_group();
	test_full();
	test_full_in_the_middle();
	test_full_at_birth();
	test_kill();
	test_migrate();
	test_older_scores();
	test_events();
	test_backup();
	test_notices();
	test_plans();
	return done();
}
