/* test_store.c: every arrow of schema.sql, every refusal, and what is left after a failure.
 *
 * Real database files with real fsyncs, each part in a fresh one.  The last parts look inside
 * (store-private.h): which plan SQLite chose for each statement, and how many steps a claim takes
 * among few rows and among many.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fdio.h"
#include "base/mem.h"

#include "store/store-private.h"

#include "tests/tap.h"

#define PATH_SIZE 256
#define ROOM 64

static char dir[PATH_SIZE];
static char path[PATH_SIZE + 32]; /* the database of the current part */

static int remove_entry(const char *p, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(p);
}

static void remove_dir(void)
{
	(void)nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static struct store *open_again(void)
{
	struct store *s = NULL;
	struct err e = { "" };

	if (store_open(path, &s, &e) < 0) {
		ok(false, "the store opens: %s", e.text);
		exit(done());
	}
	return s;
}

static struct store *open_fresh(const char *name)
{
	(void)snprintf(path, sizeof(path), "%s/%s.db", dir, name);
	return open_again();
}

static int64_t number(struct store *s, const char *sql)
{
	sqlite3_stmt *st = NULL;
	int64_t n = -1;

	if (sqlite3_prepare_v2(s->db, sql, -1, &st, NULL) == SQLITE_OK && sqlite3_step(st) == SQLITE_ROW)
		n = sqlite3_column_int64(st, 0);
	(void)sqlite3_finalize(st);
	return n;
}

/* What triggers, keys and checks must keep, whatever happened. */
static bool is_sound(struct store *s)
{
	sqlite3_stmt *st = NULL;
	bool good = false;

	if (sqlite3_prepare_v2(s->db, "PRAGMA integrity_check", -1, &st, NULL) == SQLITE_OK &&
	    sqlite3_step(st) == SQLITE_ROW)
		good = strcmp((const char *)sqlite3_column_text(st, 0), "ok") == 0;
	(void)sqlite3_finalize(st);
	return good && number(s, "SELECT count(*) FROM pragma_foreign_key_check") == 0 &&
	       number(s, "SELECT count(*) FROM study s WHERE pending <> (SELECT count(*) FROM instance i "
			 "WHERE i.study = s.id AND i.state IN (0, 1))") == 0 &&
	       number(s, "SELECT count(*) FROM (SELECT * FROM tally WHERE n > 0 EXCEPT SELECT * FROM ("
			 "SELECT 'instance', '', state, count(*) FROM instance GROUP BY state UNION ALL "
			 "SELECT 'study', '', state, count(*) FROM study GROUP BY state UNION ALL "
			 "SELECT 'report', '', 0, count(*) FROM report UNION ALL "
			 "SELECT 'delivery', destination, state, count(*) FROM delivery GROUP BY 2, 3))") == 0 &&
	       number(s, "SELECT sum(n) FROM tally") ==
		       number(s, "SELECT (SELECT count(*) FROM instance) + (SELECT count(*) FROM study) + "
				 "(SELECT count(*) FROM report) + (SELECT count(*) FROM delivery)");
}

/* ---- making rows ---------------------------------------------------------------------------- */

static struct instance instance_of(unsigned study, unsigned uid, uint8_t digest)
{
	static uint64_t file = 1000;
	struct instance in = { .file = ++file, .size = 5000, .received = 777, .state = INSTANCE_READY };

	(void)snprintf(in.sop_class, sizeof(in.sop_class), "1.2.840.10008.5.1.4.1.1.1.1");
	(void)snprintf(in.sop_uid, sizeof(in.sop_uid), "1.2.3.%u", uid);
	(void)snprintf(in.study_uid, sizeof(in.study_uid), "1.2.9.%u", study);
	(void)snprintf(in.series_uid, sizeof(in.series_uid), "1.2.8.%u", study);
	(void)snprintf(in.syntax, sizeof(in.syntax), "1.2.840.10008.1.2.1");
	(void)snprintf(in.calling_ae, sizeof(in.calling_ae), "MODALITY");
	(void)snprintf(in.called_ae, sizeof(in.called_ae), "NODE");
	(void)snprintf(in.peer, sizeof(in.peer), "2001:db8::1");
	memset(in.digest, digest, sizeof(in.digest));
	return in;
}

static struct instance add(struct store *s, unsigned study, unsigned uid)
{
	struct instance in = instance_of(study, uid, 1);
	bool duplicate = true;

	if (store_add_instance(s, &in, 100, &duplicate) < 0 || duplicate)
		ok(false, "instance %u of study %u is new: %s", uid, study, store_error(s));
	return in;
}

static struct instance claim(struct store *s, int64_t now)
{
	struct instance in = { .id = 0 };
	int r = store_claim_instance(s, now, now + 60, &in);

	if (r < 0)
		in.id = r;
	return in;
}

static void settle(struct store *s, struct instance *in)
{
	in->outcome = OUTCOME_SCORED;
	in->settled = 900;
	if (store_settle_instance(s, in, NULL, 0) < 0)
		ok(false, "instance %lld settles: %s", (long long)in->id, store_error(s));
}

static struct instance row(struct store *s, const struct instance *in)
{
	struct instance all[ROOM], none = { .id = 0 };
	size_t n = 0;

	if (store_study_instances(s, in->study, all, ROOM, &n) < 0)
		ok(false, "instances can be listed");
	for (size_t i = 0; i < n; i++)
		if (all[i].id == in->id)
			return all[i];
	return none;
}

static struct study study_row(struct store *s, unsigned study)
{
	struct study st = { .id = 0 };
	char uid[UID_MAX];

	(void)snprintf(uid, sizeof(uid), "1.2.9.%u", study);
	(void)store_find_study(s, uid, &st);
	return st;
}

static struct study next_study(struct store *s, int64_t now)
{
	struct study st = { .id = 0 };
	int r = store_next_study(s, now, now + 60, &st);

	if (r < 0)
		st.id = r;
	return st;
}

static struct report report_of(int64_t study, unsigned revision, unsigned uid)
{
	static uint64_t file = 9000;
	struct report rep = { .study = study, .revision = revision, .kind = "SR", .file = ++file, .size = 10,
			      .created = 55 };

	(void)snprintf(rep.sop_class, sizeof(rep.sop_class), "1.2.840.10008.5.1.4.1.1.88.22");
	(void)snprintf(rep.sop_uid, sizeof(rep.sop_uid), "2.25.%u", uid);
	(void)snprintf(rep.series_uid, sizeof(rep.series_uid), "2.25.7");
	memset(rep.digest, 4, sizeof(rep.digest));
	memset(rep.findings, 5, sizeof(rep.findings));
	memset(rep.weights, 6, sizeof(rep.weights));
	return rep;
}

static struct report add_report(struct store *s, int64_t study, unsigned revision, unsigned uid)
{
	struct report rep = report_of(study, revision, uid);

	if (store_add_report(s, &rep) < 0)
		ok(false, "report %u is added: %s", uid, store_error(s));
	return rep;
}

static struct delivery next_delivery(struct store *s, const char *destination, int64_t now)
{
	struct delivery d = { .id = 0 };
	int r = store_next_delivery(s, destination, now, now + 60, &d);

	if (r < 0)
		d.id = r;
	return d;
}

static struct delivery delivery_row(struct store *s, int64_t study, int64_t id)
{
	struct delivery all[ROOM], none = { .id = 0 };
	size_t n = 0;

	if (store_study_deliveries(s, study, all, ROOM, &n) < 0)
		ok(false, "deliveries can be listed");
	for (size_t i = 0; i < n; i++)
		if (all[i].id == id)
			return all[i];
	return none;
}

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
		{ "PRAGMA user_version", 1 },
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
	damage("PRAGMA user_version = 1");
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

/* ---- instances ------------------------------------------------------------------------------ */

static void test_add(void)
{
	struct store *s = open_fresh("add");
	struct instance a = instance_of(1, 1, 1), b, got;
	int64_t id = 0;
	bool duplicate = true;

	is_int(store_add_instance(s, &a, 500, &duplicate), 0, "add");
	ok(!duplicate && a.id > 0 && a.study > 0, "it is new and has ids");
	is_int(a.revision, 1, "revision 1");
	got = row(s, &a);
	is_str(got.sop_uid, a.sop_uid, "sop_uid comes back");
	is_str(got.study_uid, a.study_uid, "study_uid");
	is_str(got.series_uid, a.series_uid, "series_uid");
	is_str(got.sop_class, a.sop_class, "sop_class");
	is_str(got.syntax, a.syntax, "syntax");
	is_str(got.calling_ae, a.calling_ae, "calling_ae");
	is_str(got.called_ae, a.called_ae, "called_ae");
	is_str(got.peer, a.peer, "peer");
	ok(memcmp(got.digest, a.digest, DIGEST_SIZE) == 0, "digest");
	ok(got.file == a.file && got.size == a.size && got.received == 777, "file, size, received");
	is_int(got.state, INSTANCE_READY, "READY");
	is_int(got.outcome, OUTCOME_NONE, "no outcome");
	is_int(study_row(s, 1).state, STUDY_COLLECTING, "its study collects");
	is_int(study_row(s, 1).settle_at, 500, "until the time given");

	b = instance_of(1, 1, 1);
	is_int(store_add_instance(s, &b, 900, &duplicate), 0, "the same bytes again");
	ok(duplicate && b.id == a.id && b.study == a.study, "are a duplicate of the row");
	is_int(row(s, &a).repeats, 1, "that counts the repeat");
	is_int(study_row(s, 1).settle_at, 500, "and does nothing to its study");
	is_int(store_find_file(s, b.file, &id), -ENOENT, "its own file has no row");

	b = instance_of(1, 1, 2);
	is_int(store_add_instance(s, &b, 900, &duplicate), 0, "other bytes under the same UID");
	ok(!duplicate && b.id != a.id, "are a new row");
	is_int(b.revision, 2, "revision 2");
	is_int(study_row(s, 1).settle_at, 500, "a collecting study keeps its time");
	b = instance_of(1, 1, 3);
	is_int(store_add_instance(s, &b, 900, &duplicate), 0, "once more");
	is_int(row(s, &b).revision, 3, "revision 3");
	b = instance_of(1, 1, 2);
	is_int(store_add_instance(s, &b, 900, &duplicate), 0, "the bytes of revision 2 again");
	ok(duplicate, "are a duplicate");

	is_int(store_find_file(s, a.file, &id), 0, "a file finds its row");
	is_int(id, a.id, "the right one");
	b = instance_of(1, 7, 1);
	b.file = a.file;
	is_int(store_add_instance(s, &b, 900, &duplicate), -EEXIST, "one file cannot have two rows");
	is_int(b.id, 0, "a failure sets no result");
	b = instance_of(1, 8, 1);
	b.sop_uid[0] = '\0';
	is_int(store_add_instance(s, &b, 900, &duplicate), -EINVAL, "no UID, no row");
	ok(is_sound(s), "the database is sound");
	store_close(s);
}

static void test_aside(void)
{
	struct store *s = open_fresh("aside");
	struct instance a = instance_of(1, 1, 1);
	bool duplicate;

	a.state = INSTANCE_ASIDE;
	is_int(store_add_instance(s, &a, 100, &duplicate), 0, "an object that we do not analyse");
	is_int(row(s, &a).state, INSTANCE_ASIDE, "stands aside");
	is_int(claim(s, 1000).id, -ENOENT, "is never claimed");
	is_int(study_row(s, 1).state, STUDY_SILENT, "its study is silent");
	ok(study_row(s, 1).why[0] != '\0', "and says why");
	is_int(next_study(s, 1000).id, -ENOENT, "and is never due");
	is_int(store_requeue_instance(s, a.id, 0), -ENOTSUP, "it cannot be requeued");
	(void)add(s, 1, 2);
	is_int(study_row(s, 1).state, STUDY_COLLECTING, "an image wakes the study");
	is_str(study_row(s, 1).why, "", "the reason is gone");
	is_int(study_row(s, 1).settle_at, 100, "it has a time");
	a = instance_of(1, 3, 1);
	a.state = INSTANCE_ASIDE;
	is_int(store_add_instance(s, &a, 5, &duplicate), 0, "another object aside");
	is_int(study_row(s, 1).state, STUDY_COLLECTING, "changes nothing");
	is_int(study_row(s, 1).settle_at, 100, "nor the time");
	store_close(s);
}

static void test_claim_order(void)
{
	struct store *s = open_fresh("order");
	struct instance in[5], got;
	int64_t due_i, due_s, due_d;

	is_int(claim(s, 1000).id, -ENOENT, "nothing to claim");
	is_int(store_next_due(s, &due_i, &due_s, &due_d), 0, "next due");
	ok(due_i == INT64_MAX && due_s == INT64_MAX && due_d == INT64_MAX, "is never");
	for (unsigned i = 0; i < 5; i++)
		in[i] = add(s, i, i);
	(void)store_next_due(s, &due_i, &due_s, &due_d);
	ok(due_i <= 1000, "there is something at once");
	is_int(due_s, INT64_MAX, "but no study while its instances wait");
	got = claim(s, 1000);
	is_int(got.id, in[0].id, "the lowest id first");
	is_int(got.state, INSTANCE_CLAIMED, "CLAIMED");
	is_int(got.attempt, 1, "the attempt is counted");
	is_int(got.lease, 1060, "the lease is kept");
	ok(got.token > 0, "there is a token");
	is_str(got.study_uid, "1.2.9.0", "with its study");
	is_int(store_retry_instance(s, &got, 2000, "worker died", false), 0, "retry in the future");
	is_str(row(s, &got).why, "worker died", "with its reason");
	is_int(claim(s, 1000).id, in[1].id, "then the next id");
	is_int(claim(s, 1999).id, in[2].id, "and the next");
	got = claim(s, 2000);
	is_int(got.id, in[0].id, "a retried one comes back when due, before higher ids");
	is_int(got.attempt, 2, "its attempt is the second");
	is_int(claim(s, 2000).id, in[3].id, "then the rest");
	got = claim(s, 2000);
	is_int(got.id, in[4].id, "to the last");
	is_int(claim(s, 2000).id, -ENOENT, "and no more");
	is_int(store_retry_instance(s, &got, 3000, "", true), 0, "an interruption");
	is_int(row(s, &got).attempt, 0, "does not count");
	(void)store_next_due(s, &due_i, &due_s, &due_d);
	is_int(due_i, 3000, "next due is the retry's");
	ok(is_sound(s), "the database is sound");
	store_close(s);
}

static void test_settle(void)
{
	struct store *s = open_fresh("settle");
	struct score scores[3] = { { "edema", -1.25f, 0.125f, 1 }, { "effusion", 7.5f, NAN, 2 },
				   { "abscess", 0.1f, 0.3f, 255 } }, back[3];
	struct instance in, got;
	size_t n = 0;

	(void)add(s, 1, 1);
	in = claim(s, 1);
	in.outcome = OUTCOME_NOT_ANALYSED;
	in.settled = 4711;
	memset(in.why, 'w', sizeof(in.why)); /* without an end */
	memset(in.patient, 1, DIGEST_SIZE);
	memset(in.content, 2, DIGEST_SIZE);
	memset(in.weights, 3, DIGEST_SIZE);
	memset(in.findings, 4, DIGEST_SIZE);
	(void)snprintf(in.recipe, sizeof(in.recipe), "window");
	(void)snprintf(in.precision, sizeof(in.precision), "f32");
	(void)snprintf(in.version, sizeof(in.version), "0.1");
	is_int(store_settle_instance(s, &in, scores, STORE_SCORES_MAX + 1), -E2BIG, "too many scores");
	is_int(store_settle_instance(s, &in, scores, 3), 0, "settle");
	got = row(s, &in);
	is_int(got.state, INSTANCE_SETTLED, "SETTLED");
	is_int(got.outcome, OUTCOME_NOT_ANALYSED, "with its outcome");
	is_int(strlen(got.why), STORE_WHY_MAX - 1, "and reason");
	ok(memcmp(got.patient, in.patient, DIGEST_SIZE) == 0 && memcmp(got.content, in.content, DIGEST_SIZE) == 0 &&
	   memcmp(got.weights, in.weights, DIGEST_SIZE) == 0 &&
	   memcmp(got.findings, in.findings, DIGEST_SIZE) == 0, "and digests");
	is_str(got.recipe, "window", "and recipe");
	is_str(got.precision, "f32", "and precision");
	is_str(got.version, "0.1", "and version");
	is_int(got.settled, 4711, "and time");
	is_int(store_instance_scores(s, in.id, back, 3, &n), 0, "scores come back");
	is_int(n, 3, "all of them");
	for (size_t i = 0; i < 3; i++) {
		is_str(back[i].finding, scores[i].finding, "score %zu in the order given", i);
		ok(back[i].logit == scores[i].logit, "bit for bit");
		ok(back[i].probability == scores[i].probability ||
		   (isnan(back[i].probability) && isnan(scores[i].probability)), "uncalibrated stays so");
		is_int(back[i].decision, scores[i].decision, "with its decision");
	}
	is_int(store_instance_scores(s, in.id, back, 2, &n), -E2BIG, "too little room for scores");
	is_int(n, 3, "and how much is needed");

	(void)add(s, 1, 2);
	in = claim(s, 1);
	in.outcome = OUTCOME_SCORED;
	scores[1].logit = NAN;
	is_int(store_settle_instance(s, &in, scores, 3), -EINVAL, "a logit that is not a number is refused");
	is_int(row(s, &in).state, INSTANCE_CLAIMED, "and nothing of the call stays");
	is_int(store_instance_scores(s, in.id, back, 3, &n), 0, "no score");
	is_int(n, 0, "at all");

	is_int(store_quarantine_instance(s, &in, 99, "killed three workers"), 0, "quarantine");
	got = row(s, &in);
	is_int(got.state, INSTANCE_QUARANTINED, "QUARANTINED");
	is_int(got.outcome, OUTCOME_FAILED, "FAILED");
	is_int(got.settled, 99, "with the time");
	is_str(got.why, "killed three workers", "and the reason");
	store_close(s);
}

static void test_requeue(void)
{
	static const struct score score = { "edema", 1, 1, 1 };
	struct store *s = open_fresh("requeue");
	struct instance a = add(s, 1, 1), b, got;
	struct score back[1];
	struct study st;
	size_t n = 9;

	is_int(store_requeue_instance(s, 12345, 0), -ENOENT, "no such instance");
	is_int(store_requeue_instance(s, a.id, 0), -EBUSY, "a waiting one cannot be requeued");
	b = claim(s, 1);
	is_int(store_requeue_instance(s, a.id, 0), -EBUSY, "nor a claimed one");
	b.outcome = OUTCOME_SCORED;
	(void)snprintf(b.recipe, sizeof(b.recipe), "window");
	is_int(store_settle_instance(s, &b, &score, 1), 0, "settle");
	st = next_study(s, 100);
	is_int(store_close_study(s, &st, STUDY_PARKED, "two patients"), 0, "the study is parked");
	is_int(store_requeue_instance(s, a.id, 700), 0, "a settled one can be requeued");
	got = row(s, &a);
	is_int(got.state, INSTANCE_READY, "READY");
	is_int(got.attempt, 0, "attempt 0");
	is_int(got.outcome, OUTCOME_NONE, "no outcome");
	is_str(got.recipe, "", "no facts");
	is_int(store_instance_scores(s, a.id, back, 1, &n), 0, "scores");
	is_int(n, 0, "gone");
	is_int(study_row(s, 1).state, STUDY_COLLECTING, "its study collects again");
	is_int(study_row(s, 1).settle_at, 700, "until then");
	is_int(study_row(s, 1).attempt, 0, "with attempt 0");
	is_int(store_settle_instance(s, &b, &score, 1), -ESTALE, "the old claim is void");
	got = claim(s, 1);
	is_int(store_settle_instance(s, &b, &score, 1), -ESTALE, "even when it is claimed again");
	is_int(store_quarantine_instance(s, &got, 5, "x"), 0, "quarantine");
	is_int(store_requeue_instance(s, a.id, 900), 0, "a quarantined one can be requeued");
	is_int(study_row(s, 1).settle_at, 700, "a collecting study keeps its time");
	got = claim(s, 1);
	is_int(got.attempt, 1, "it is tried from the start");
	settle(s, &got);
	ok(is_sound(s), "the database is sound");
	store_close(s);
}

/* Every way to end an instance's claim. */
static int end_settle(struct store *s, const struct instance *in)
{
	struct instance settled = *in;

	settled.outcome = OUTCOME_SILENT;
	return store_settle_instance(s, &settled, NULL, 0);
}

static int end_retry(struct store *s, const struct instance *in)
{
	return store_retry_instance(s, in, 0, NULL, false);
}

static int end_quarantine(struct store *s, const struct instance *in)
{
	return store_quarantine_instance(s, in, 0, "w");
}

static void test_stale_instances(void)
{
	static const struct {
		const char *name;
		int (*end)(struct store *s, const struct instance *in);
		enum instance_state leads_to;
	} ends[] = {
		{ "settle", end_settle, INSTANCE_SETTLED },
		{ "retry", end_retry, INSTANCE_READY },
		{ "quarantine", end_quarantine, INSTANCE_QUARANTINED },
	};
	struct store *s = open_fresh("stale");
	struct instance in, old, again;
	unsigned n;

	for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
		in = add(s, 1, (unsigned)i);
		is_int(ends[i].end(s, &in), -ESTALE, "%s: a row that nobody claimed", ends[i].name);
		old = claim(s, 1000);
		is_int(store_recover(s, 1000, &n), 0, "restart");
		is_int(n, 1, "one claim is taken back");
		is_int(ends[i].end(s, &old), -ESTALE, "%s: a claim that was taken back", ends[i].name);
		again = claim(s, 1000);
		ok(again.id == in.id && again.token > old.token, "the token grows");
		is_int(again.attempt, 2, "the attempt stays counted");
		is_int(ends[i].end(s, &old), -ESTALE, "%s: somebody else's claim", ends[i].name);
		is_str(store_error(s), "the claim was lost", "and the text says so");
		is_int(row(s, &in).state, INSTANCE_CLAIMED, "and nothing changed");
		is_int(ends[i].end(s, &again), 0, "%s: the latest claim", ends[i].name);
		is_int(row(s, &in).state, ends[i].leads_to, "leads to its state");
		is_int(ends[i].end(s, &again), -ESTALE, "%s: a second time", ends[i].name);
		if (ends[i].leads_to == INSTANCE_READY) {
			again = claim(s, 1000);
			settle(s, &again);
		}
	}
	ok(is_sound(s), "the database is sound");
	store_close(s);
}

/* ---- studies -------------------------------------------------------------------------------- */

static void test_next_study(void)
{
	struct store *s = open_fresh("next");
	struct instance a, b;
	struct study st;
	int64_t due_i, due_s, due_d;

	(void)add(s, 1, 1); /* settle_at 100 */
	(void)add(s, 1, 2);
	a = claim(s, 1);
	b = claim(s, 1);
	is_int(next_study(s, 5000).id, -ENOENT, "no study while instances are claimed");
	settle(s, &a);
	is_int(next_study(s, 5000).id, -ENOENT, "nor while one is");
	is_int(store_retry_instance(s, &b, 50, "", false), 0, "retry");
	is_int(next_study(s, 5000).id, -ENOENT, "nor while one waits");
	b = claim(s, 50);
	is_int(store_quarantine_instance(s, &b, 60, "x"), 0, "a quarantined one");
	is_int(next_study(s, 99).id, -ENOENT, "does not hold it up, but the time is not reached");
	(void)store_next_due(s, &due_i, &due_s, &due_d);
	is_int(due_s, 100, "that is when it is due");
	st = next_study(s, 100);
	is_int(st.id, a.study, "then it is claimed");
	is_int(st.state, STUDY_COMPOSING, "COMPOSING");
	is_int(st.attempt, 1, "the attempt is counted");
	is_int(st.lease, 160, "the lease is kept");
	is_int(next_study(s, 5000).id, -ENOENT, "and by nobody else");
	is_int(store_retry_study(s, &st, 300, "disk full", false), 0, "retry");
	is_int(study_row(s, 1).state, STUDY_COLLECTING, "COLLECTING");
	is_str(study_row(s, 1).why, "disk full", "with the reason");
	is_int(next_study(s, 299).id, -ENOENT, "not before it is due");
	st = next_study(s, 300);
	is_int(st.attempt, 2, "second attempt");
	is_int(store_retry_study(s, &st, 400, "", true), 0, "interrupted");
	is_int(study_row(s, 1).attempt, 1, "does not count");

	(void)add(s, 2, 3);
	a = claim(s, 1);
	settle(s, &a);
	is_int(next_study(s, 350).id, a.study, "a later study passes one that is not due");
	is_int(next_study(s, 400).id, st.id, "which comes in its time");
	store_close(s);
}

static void test_settle_study(void)
{
	static const struct {
		int64_t at, want;
	} cases[] = { { 200, 100 }, { 100, 100 }, { 60, 60 }, { 80, 60 }, { 0, 0 } };
	struct store *s = open_fresh("settle-study");
	struct instance a = add(s, 1, 1);
	struct study st;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		is_int(store_settle_study(s, a.study, cases[i].at), 0, "settle at %lld", (long long)cases[i].at);
		is_int(study_row(s, 1).settle_at, cases[i].want, "gives %lld", (long long)cases[i].want);
	}
	a = claim(s, 1);
	settle(s, &a);
	st = next_study(s, 10);
	is_int(store_settle_study(s, a.study, -5), 0, "a composing study");
	is_int(study_row(s, 1).settle_at, 0, "is left alone");
	is_int(store_close_study(s, &st, STUDY_SILENT, "no chest image"), 0, "close");
	is_int(store_settle_study(s, a.study, -5), 0, "a closed study");
	is_int(study_row(s, 1).settle_at, 0, "is left alone");
	is_int(study_row(s, 1).state, STUDY_SILENT, "and stays closed");
	is_str(study_row(s, 1).why, "no chest image", "with its reason");
	is_int(store_settle_study(s, 999, 5), 0, "an unknown study is no error");
	store_close(s);
}

static void test_plan(void)
{
	static const uint8_t key[DIGEST_SIZE] = { 1 }, other[DIGEST_SIZE] = { 2 };
	struct store *s = open_fresh("plan");
	struct instance a;
	struct study st, old;
	int64_t at = 111;

	(void)add(s, 1, 1);
	a = claim(s, 1);
	settle(s, &a);
	old = study_row(s, 1);
	is_int(store_plan_study(s, &old, key, &at), -ESTALE, "no plan without a claim");
	st = next_study(s, 100);
	is_int(store_plan_study(s, &st, key, &at), 0, "plan");
	is_int(at, 111, "the time given is taken");
	at = 222;
	is_int(store_plan_study(s, &st, key, &at), 0, "plan again");
	is_int(at, 111, "the stored time comes back");
	is_int(store_retry_study(s, &st, 0, "", false), 0, "the attempt fails");
	store_close(s);
	s = open_again();
	old = st;
	st = next_study(s, 100);
	at = 333;
	is_int(store_plan_study(s, &old, key, &at), -ESTALE, "an old claim cannot plan");
	is_int(at, 333, "nor learn");
	is_int(store_plan_study(s, &st, key, &at), 0, "the second attempt");
	is_int(at, 111, "has the first one's time");
	at = 444;
	is_int(store_plan_study(s, &st, other, &at), 0, "other inputs");
	is_int(at, 444, "have a new time");
	store_close(s);
}

/* Makes study `n` REPORTED with one report and one delivery to PACS; returns its row id. */
static int64_t report_study(struct store *s, unsigned n)
{
	struct instance in;
	struct report rep;
	struct study st;

	(void)add(s, n, 100 + n);
	in = claim(s, 1);
	settle(s, &in);
	st = next_study(s, 100);
	if (store_begin(s) < 0)
		ok(false, "begin");
	rep = add_report(s, st.id, 1, 100 + n);
	if (store_add_delivery(s, st.id, 1, "SR", "PACS", 50) < 0 ||
	    store_finish_study(s, &st, 1, "scored") < 0 || store_commit(s) < 0)
		ok(false, "study %u is reported: %s", n, store_error(s));
	return rep.study;
}

static void test_reopen(void)
{
	struct store *s = open_fresh("reopen");
	int64_t id = report_study(s, 1);
	struct instance in = instance_of(1, 101, 1);
	struct study st, late;
	bool duplicate;

	is_int(study_row(s, 1).state, STUDY_REPORTED, "REPORTED");
	is_int(study_row(s, 1).revision, 1, "revision 1");
	is_str(study_row(s, 1).why, "scored", "why");
	(void)store_add_instance(s, &in, 4000, &duplicate);
	ok(duplicate && study_row(s, 1).state == STUDY_REPORTED, "a duplicate does not re-open it");
	in = instance_of(1, 2, 1);
	is_int(store_add_instance(s, &in, 4000, &duplicate), 0, "a late image");
	is_int(study_row(s, 1).state, STUDY_COLLECTING, "re-opens it");
	is_int(study_row(s, 1).settle_at, 4000, "with a new time");
	is_int(study_row(s, 1).revision, 1, "the revision stays");
	in = claim(s, 1);
	settle(s, &in);
	st = next_study(s, 4000);
	is_int(st.id, id, "it is composed again");
	is_int(st.attempt, 1, "from attempt 1");
	is_int(st.revision, 1, "knowing the revision before");

	in = instance_of(1, 3, 1);
	is_int(store_add_instance(s, &in, 5000, &duplicate), 0, "an image in the middle of it");
	is_int(study_row(s, 1).state, STUDY_COLLECTING, "voids the claim");
	is_int(store_finish_study(s, &st, 2, ""), -ESTALE, "which cannot finish");
	is_int(store_close_study(s, &st, STUDY_PARKED, ""), -ESTALE, "nor close");
	is_int(store_retry_study(s, &st, 1, "", false), -ESTALE, "nor retry");
	is_int(study_row(s, 1).settle_at, 5000, "nor change anything");
	in = claim(s, 1);
	settle(s, &in);
	late = next_study(s, 5000);
	ok(late.token > st.token, "the next claim has a higher token");
	is_int(store_finish_study(s, &st, 2, ""), -ESTALE, "the old one is void for ever");
	is_int(store_finish_study(s, &late, 2, "amended"), 0, "the new one finishes");
	is_int(study_row(s, 1).revision, 2, "revision 2");
	ok(is_sound(s), "the database is sound");
	store_close(s);
}

static void test_lists(void)
{
	struct store *s = open_fresh("lists");
	struct instance in[4];
	struct study st[3];
	size_t n = 0;

	for (unsigned i = 0; i < 5; i++)
		(void)add(s, i, i);
	for (unsigned i = 5; i < 8; i++)
		(void)add(s, 4, i);
	is_int(store_find_study(s, "1.2.9.77", st), -ENOENT, "no such study");
	is_int(store_study_instances(s, study_row(s, 4).id, in, 4, &n), 0, "instances of a study");
	is_int(n, 4, "four");
	ok(in[0].id < in[1].id && in[1].id < in[2].id && in[2].id < in[3].id, "by id");
	is_int(store_study_instances(s, study_row(s, 4).id, in, 2, &n), -E2BIG, "too little room");
	is_int(n, 4, "and how much is needed");
	is_int(store_list_studies(s, INT64_MAX, st, 3, &n), 0, "the newest studies");
	is_int(n, 3, "three");
	is_str(st[0].study_uid, "1.2.9.4", "the newest first");
	is_int(store_list_studies(s, st[2].id, st, 3, &n), 0, "the page after");
	is_int(n, 2, "two more");
	is_str(st[1].study_uid, "1.2.9.0", "to the oldest");
	is_int(store_list_studies(s, st[1].id, st, 3, &n), 0, "and the end");
	is_int(n, 0, "none");
	store_close(s);
}

/* ---- reports and findings ------------------------------------------------------------------- */

static void test_reports(void)
{
	struct store *s = open_fresh("reports");
	int64_t study = report_study(s, 1), id = 0;
	struct report rep = report_of(study, 2, 5), same, got[3];
	size_t n = 0;

	(void)snprintf(rep.predecessor, sizeof(rep.predecessor), "2.25.101");
	is_int(store_add_report(s, &rep), 0, "add");
	ok(rep.id > 0, "it has an id");
	same = report_of(study, 3, 5);
	is_int(store_add_report(s, &same), -EEXIST, "the same SOP Instance UID is refused");
	is_int(same.id, 0, "and gets no id");
	same = report_of(999, 1, 6);
	is_int(store_add_report(s, &same), -EINVAL, "so is a report of no study");
	is_int(store_study_reports(s, study, got, 3, &n), 0, "list");
	is_int(n, 2, "both revisions");
	ok(memcmp(&got[1], &rep, sizeof(rep)) == 0, "the report comes back as it was");
	is_int(store_study_reports(s, study, got, 1, &n), -E2BIG, "too little room");
	is_int(store_find_report_file(s, rep.file, &id), 0, "a file finds its report");
	is_int(id, rep.id, "the right one");
	is_int(store_find_report_file(s, 1, &id), -ENOENT, "no such file");
	store_close(s);
}

static void test_findings(void)
{
	static const uint8_t key[DIGEST_SIZE] = { 1 }, empty[DIGEST_SIZE] = { 2 }, none[DIGEST_SIZE] = { 3 };
	struct store *s = open_fresh("findings");
	void *text = NULL;
	size_t n = 0;

	is_int(store_keep_findings(s, key, "edema\0x", 7), 0, "keep");
	is_int(store_keep_findings(s, key, "edema\0x", 7), 0, "keep again");
	is_int(store_get_findings(s, key, &text, &n), 0, "get");
	ok(n == 7 && memcmp(text, "edema\0x", 8) == 0, "the bytes, and a NUL after them");
	free(text);
	is_int(store_keep_findings(s, empty, NULL, 0), 0, "an empty text");
	is_int(store_get_findings(s, empty, &text, &n), 0, "comes back");
	is_int(n, 0, "empty");
	free(text);
	is_int(store_get_findings(s, none, &text, &n), -ENOENT, "no such text");
	store_close(s);
}

/* ---- deliveries ----------------------------------------------------------------------------- */

static void test_next_delivery(void)
{
	struct store *s = open_fresh("delivery");
	int64_t one = report_study(s, 1), two = report_study(s, 2), due_i, due_s, due_d;
	struct delivery d, other;

	is_int(store_add_delivery(s, one, 1, "SR", "PACS", 77), 0, "the same delivery again");
	is_int(number(s, "SELECT count(*) FROM delivery"), 2, "is no second row");
	is_int(store_add_delivery(s, one, 1, "SC", "PACS", 78), 0, "another kind is");
	is_int(store_add_delivery(s, two, 1, "SR", "ARCHIVE", 79), 0, "another destination is");
	is_int(store_add_delivery(s, two, 1, "SR", "A NAME OF MORE THAN 16", 79), -EINVAL, "a bad one is not");
	is_int(next_delivery(s, "NOBODY", 1000).id, -ENOENT, "nothing for somebody unknown");

	d = next_delivery(s, "PACS", 1000);
	is_int(d.study, one, "the lowest id first");
	is_str(d.kind, "SR", "its kind");
	is_str(d.destination, "PACS", "its destination");
	is_int(d.state, DELIVERY_SENDING, "SENDING");
	is_int(d.attempt, 1, "the attempt is counted");
	is_int(d.lease, 1060, "the lease is kept");
	is_int(d.status, -1, "no status yet");
	is_int(d.report, 0, "no class yet");
	is_int(d.created, 50, "created");
	is_int(store_defer_delivery(s, &d, 2000, 0xa700, "out of resources", 1, false), 0, "defer");
	other = delivery_row(s, one, d.id);
	is_int(other.state, DELIVERY_QUEUED, "QUEUED");
	is_int(other.due, 2000, "due then");
	is_int(other.status, 0xa700, "with the status");
	is_int(other.permanent, 1, "and the count of refusals");
	is_str(other.why, "out of resources", "and the reason");
	is_int(next_delivery(s, "PACS", 1999).study, two, "then the next id");
	other = next_delivery(s, "PACS", 1999);
	is_str(other.kind, "SC", "then the third");
	is_int(next_delivery(s, "PACS", 1999).id, -ENOENT, "then none");
	(void)store_next_due(s, &due_i, &due_s, &due_d);
	ok(due_d <= 1000, "the other destination has something at once");
	is_int(next_delivery(s, "ARCHIVE", 1000).study, two, "namely this");
	(void)store_next_due(s, &due_i, &due_s, &due_d);
	is_int(due_d, 2000, "next due is the deferred one's");
	is_int(store_defer_delivery(s, &other, 3000, -1, "stopped", 0, true), 0, "an interruption");
	is_int(delivery_row(s, one, other.id).attempt, 0, "does not count");
	d = next_delivery(s, "PACS", 2500);
	is_int(d.attempt, 2, "second attempt");
	is_int(store_close_delivery(s, &d, 2600, 0, "accepted"), 0, "close");
	other = delivery_row(s, one, d.id);
	is_int(other.state, DELIVERY_DONE, "DONE");
	is_int(other.finished, 2600, "then");
	is_int(other.status, 0, "with its status");
	store_close(s);
}

static int end_close(struct store *s, const struct delivery *d)
{
	return store_close_delivery(s, d, 1, 0, "");
}

static int end_defer(struct store *s, const struct delivery *d)
{
	return store_defer_delivery(s, d, 1, 0, "", 0, false);
}

static int end_park(struct store *s, const struct delivery *d)
{
	return store_park_delivery(s, d, 1, 0, "");
}

static int mid_choose(struct store *s, const struct delivery *d)
{
	return store_choose_report(s, d, 1);
}

static void test_stale_deliveries(void)
{
	static const struct {
		const char *name;
		int (*call)(struct store *s, const struct delivery *d);
		enum delivery_state leads_to;
	} calls[] = {
		{ "choose", mid_choose, DELIVERY_SENDING }, { "reject", store_reject_report, DELIVERY_SENDING },
		{ "defer", end_defer, DELIVERY_QUEUED }, { "park", end_park, DELIVERY_PARKED },
		{ "close", end_close, DELIVERY_DONE },
	};
	struct store *s = open_fresh("stale-delivery");
	int64_t study = report_study(s, 1);
	struct delivery old, now, free_row = delivery_row(s, study, 1);
	unsigned n;

	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		is_int(calls[i].call(s, &free_row), -ESTALE, "%s: a row that nobody claimed", calls[i].name);
		old = next_delivery(s, "PACS", 1000);
		is_int(store_recover(s, 1000, &n), 0, "restart");
		is_int(n, 1, "one claim is taken back");
		is_int(calls[i].call(s, &old), -ESTALE, "%s: a claim that was taken back", calls[i].name);
		now = next_delivery(s, "PACS", 1000);
		ok(now.token > old.token, "the token grows");
		is_int(calls[i].call(s, &old), -ESTALE, "%s: somebody else's claim", calls[i].name);
		is_int(delivery_row(s, study, now.id).state, DELIVERY_SENDING, "nothing changed");
		if (calls[i].call == store_reject_report)
			(void)store_choose_report(s, &now, 1);
		is_int(calls[i].call(s, &now), 0, "%s: the latest claim", calls[i].name);
		is_int(delivery_row(s, study, now.id).state, calls[i].leads_to, "leads to its state");
		if (calls[i].leads_to == DELIVERY_SENDING)
			is_int(end_defer(s, &now), 0, "and back");
		free_row = delivery_row(s, study, 1);
	}
	free_row.id = 999;
	is_int(store_choose_report(s, &free_row, 1), -ESTALE, "a row that is not there");
	store_close(s);
}

static void test_parked(void)
{
	struct store *s = open_fresh("parked");
	int64_t one = report_study(s, 1), two = report_study(s, 2), due_i, due_s, due_d;
	struct delivery d = next_delivery(s, "PACS", 1), got;
	struct destination to[2];
	unsigned flushed = 9;
	size_t n;

	(void)store_defer_delivery(s, &d, 10, 0xc000, "refused", 2, false);
	d = next_delivery(s, "PACS", 10);
	is_int(d.attempt, 2, "second attempt");
	is_int(store_park_delivery(s, &d, 90000, 0xc000, "refused"), 0, "park");
	got = delivery_row(s, one, d.id);
	is_int(got.state, DELIVERY_PARKED, "PARKED");
	is_int(got.attempt, 0, "attempts restart");
	is_int(got.permanent, 2, "refusals stay counted");
	d = next_delivery(s, "PACS", 50000);
	is_int(d.study, two, "the next one is not held up");
	(void)store_defer_delivery(s, &d, 60000, -1, "silent", 0, false);
	is_int(next_delivery(s, "PACS", 59999).id, -ENOENT, "nothing before it is due");
	is_int(store_destinations(s, to, 2, &n), 0, "destinations");
	is_int(n, 1, "one");
	is_str(to[0].ae_title, "PACS", "this one");
	ok(to[0].queued == 1 && to[0].parked == 1 && to[0].due == 60000, "with its counts and earliest time");
	d = next_delivery(s, "PACS", 60000);
	is_int(store_close_delivery(s, &d, 60001, 0, ""), 0, "the waiting one goes");
	(void)store_next_due(s, &due_i, &due_s, &due_d);
	is_int(due_d, 90000, "next due is the parked one's");
	is_int(next_delivery(s, "PACS", 89999).id, -ENOENT, "parked until its day");
	d = next_delivery(s, "PACS", 90000);
	ok(d.study == one && d.attempt == 1 && d.permanent == 2, "then it is tried again");
	is_int(store_park_delivery(s, &d, 180000, 0xc000, "refused"), 0, "and parked again");

	is_int(store_add_delivery(s, one, 1, "SR", "ARCHIVE", 5), 0, "a fresh one elsewhere");
	is_int(store_flush_deliveries(s, "ARCHIVE", 100000, &flushed), 0, "flush another destination");
	is_int(flushed, 0, "its fresh row needs no flush");
	is_int(next_delivery(s, "PACS", 100000).id, -ENOENT, "and this one is still parked");
	is_int(store_flush_deliveries(s, "PACS", 100000, &flushed), 0, "flush this destination");
	is_int(flushed, 1, "one row");
	got = delivery_row(s, one, d.id);
	ok(got.state == DELIVERY_QUEUED && got.attempt == 0 && got.permanent == 0 && got.due <= 100000,
	   "it is queued, at once, counts restarted");
	d = next_delivery(s, "PACS", 100000);
	(void)store_defer_delivery(s, &d, 500000, -1, "", 0, false);
	d = next_delivery(s, "ARCHIVE", 100000);
	(void)store_park_delivery(s, &d, 600000, -1, "");
	is_int(store_flush_deliveries(s, "", 100000, &flushed), 0, "flush all");
	is_int(flushed, 2, "two rows");
	is_int(store_destinations(s, to, 2, &n), 0, "destinations");
	ok(n == 2 && to[0].queued == 1 && to[1].queued == 1 && to[0].parked + to[1].parked == 0, "both queued");
	is_int(store_destinations(s, to, 1, &n), 0, "room for one");
	is_int(n, 1, "one");
	store_close(s);
}

static void test_choose(void)
{
	struct store *s = open_fresh("choose");
	int64_t study = report_study(s, 1), other = report_study(s, 2), first = 1;
	struct report second = add_report(s, study, 1, 3), got[3];
	struct delivery d = next_delivery(s, "PACS", 1);
	size_t n = 0;

	is_int(store_delivery_reports(s, &d, got, 3, &n), 0, "candidates");
	ok(n == 2 && got[0].id == first && got[1].id == second.id, "both classes of the revision");
	is_int(store_reject_report(s, &d), -ENOENT, "nothing to reject before the choice");
	is_int(store_choose_report(s, &d, 2), -ENOENT, "another study's report is no candidate");
	is_int(store_choose_report(s, &d, first), 0, "choose");
	is_int(store_choose_report(s, &d, first), 0, "the same choice again is no error");
	is_int(store_choose_report(s, &d, second.id), -EEXIST, "another one is");
	(void)store_defer_delivery(s, &d, 5, -1, "connection lost", 0, false);
	d = next_delivery(s, "PACS", 5);
	is_int(d.report, first, "the choice outlives the attempt");
	is_int(store_choose_report(s, &d, second.id), -EEXIST, "and binds the next one");
	is_int(store_reject_report(s, &d), 0, "the peer refuses the class for good");
	is_int(delivery_row(s, study, d.id).report, 0, "the choice is open again");
	is_int(store_delivery_reports(s, &d, got, 3, &n), 0, "candidates");
	ok(n == 1 && got[0].id == second.id, "without the refused class");
	is_int(store_choose_report(s, &d, first), -ENOENT, "which cannot be chosen again");
	is_int(store_choose_report(s, &d, second.id), 0, "the next class can");
	is_int(store_reject_report(s, &d), 0, "and be refused");
	is_int(store_delivery_reports(s, &d, got, 3, &n), 0, "candidates");
	is_int(n, 0, "none left");
	(void)store_park_delivery(s, &d, 1000, 0x122, "no class accepted");
	d = next_delivery(s, "PACS", 1000);
	is_int(store_delivery_reports(s, &d, got, 3, &n), 0, "after parking");
	is_int(n, 2, "every class may be tried again");
	is_int(store_choose_report(s, &d, first), 0, "choose");
	is_int(store_reject_report(s, &d), 0, "reject");
	(void)store_defer_delivery(s, &d, 2000, -1, "", 0, false);
	is_int(store_flush_deliveries(s, "PACS", 1000, &(unsigned){ 0 }), 0, "flush");
	is_int(store_delivery_reports(s, &d, got, 3, &n), 0, "after a flush");
	is_int(n, 2, "every class may be tried again");
	ok(other > 0 && is_sound(s), "the database is sound");
	store_close(s);
}

static void test_list_deliveries(void)
{
	struct store *s = open_fresh("list-deliveries");
	struct delivery d, all[2];
	size_t n;

	for (unsigned i = 1; i <= 4; i++)
		(void)report_study(s, i);
	d = next_delivery(s, "PACS", 1);
	is_int(end_close(s, &d), 0, "the first is done");
	d = next_delivery(s, "PACS", 1);
	is_int(store_list_deliveries(s, 0, all, 2, &n), 0, "list");
	ok(n == 2 && all[0].id == 2 && all[1].id == 3, "the open ones by id, SENDING too");
	is_int(store_list_deliveries(s, all[1].id, all, 2, &n), 0, "the page after");
	ok(n == 1 && all[0].id == 4, "the last");
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

/* ---- plans ---------------------------------------------------------------------------------- */

/* Calls everything once, so that every statement is in the cache. */
static void tour(struct store *s)
{
	static const uint8_t key[DIGEST_SIZE] = { 1 };
	struct seen seen = { 0, 0, 0 };
	struct store_counts c;
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
	is_int(bad, 0, "a tour of every call: %s", store_error(s));
}

/* Statements that look at many rows because that is their job; none of them is a claim.  Inserting a
 * report has a plan to search for orphans of its key, which SQLite takes only when there are any. */
static bool may_scan(const char *sql)
{
	static const char *const starts[] = {
		"SELECT file, id FROM", "SELECT count(*) FROM sqlite_schema", "DELETE FROM refused WHERE EXISTS",
		"INSERT INTO report",
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
	if (strstr(detail, "_claimed") != NULL)
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

int main(void)
{
	const char *tmp = getenv("TMPDIR");

	(void)snprintf(dir, sizeof(dir), "%s/test_store.XXXXXX", tmp ? tmp : "/tmp");
	if (mkdtemp(dir) == NULL)
		plan_skip_all("cannot make a temporary directory");
	(void)atexit(remove_dir);
	(void)signal(SIGXFSZ, SIG_IGN);
	test_open();
	test_refused_files();
	test_reader();
	test_settings();
	test_add();
	test_aside();
	test_claim_order();
	test_settle();
	test_requeue();
	test_stale_instances();
	test_next_study();
	test_settle_study();
	test_plan();
	test_reopen();
	test_lists();
	test_reports();
	test_findings();
	test_next_delivery();
	test_stale_deliveries();
	test_parked();
	test_choose();
	test_list_deliveries();
	test_recover();
	test_counts();
	test_each_file();
	test_group();
	test_full();
	test_full_in_the_middle();
	test_full_at_birth();
	test_kill();
	test_plans();
	return done();
}
