/* store_rows.h: a database of a test's own, rows in it, and what must always hold of them.
 * For the tests of store/: each part gets a fresh file with open_fresh().
 */
#ifndef CARZEROD_TESTS_STORE_ROWS_H
#define CARZEROD_TESTS_STORE_ROWS_H

#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

#include "store/store-private.h"

#include "tests/tap.h"

#define PATH_SIZE 256
#define ROOM 64

static char dir[PATH_SIZE];
static char path[PATH_SIZE + 32]; /* the database of the current part */

static inline int remove_entry(const char *p, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(p);
}

static inline void remove_dir(void)
{
	(void)nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* A folder for the test, removed at its end. */
static inline void make_dir(const char *name)
{
	const char *tmp = getenv("TMPDIR");

	(void)snprintf(dir, sizeof(dir), "%s/%s.XXXXXX", tmp ? tmp : "/tmp", name);
	if (mkdtemp(dir) == NULL)
		plan_skip_all("cannot make a temporary directory");
	(void)atexit(remove_dir);
}

static inline struct store *open_again(void)
{
	struct store *s = NULL;
	struct err e = { "" };

	if (store_open(path, &s, &e) < 0) {
		ok(false, "the store opens: %s", e.text);
		exit(done());
	}
	return s;
}

static inline struct store *open_fresh(const char *name)
{
	(void)snprintf(path, sizeof(path), "%s/%s.db", dir, name);
	return open_again();
}

static inline int64_t number(struct store *s, const char *sql)
{
	sqlite3_stmt *st = NULL;
	int64_t n = -1;

	if (sqlite3_prepare_v2(s->db, sql, -1, &st, NULL) == SQLITE_OK && sqlite3_step(st) == SQLITE_ROW)
		n = sqlite3_column_int64(st, 0);
	(void)sqlite3_finalize(st);
	return n;
}

/* What triggers, keys and checks must keep, whatever happened. */
static inline bool is_sound(struct store *s)
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
	       number(s, "SELECT count(*) FROM study s WHERE "
			 "files <> (SELECT count(*) FROM instance i WHERE i.study = s.id AND i.kept) OR "
			 "failed <> (state = 4) + (SELECT count(*) FROM instance i WHERE i.study = s.id AND i.state = 3) OR "
			 "undelivered <> (SELECT count(*) FROM delivery d WHERE d.study = s.id AND d.state <> 2)") == 0 &&
	       number(s, "SELECT count(*) FROM (SELECT * FROM tally WHERE n > 0 EXCEPT SELECT * FROM ("
			 "SELECT 'instance', '', state, count(*) FROM instance GROUP BY state UNION ALL "
			 "SELECT 'study', '', state, count(*) FROM study GROUP BY state UNION ALL "
			 "SELECT 'report', '', 0, count(*) FROM report UNION ALL "
			 "SELECT 'slow', '', 0, count(*) FROM instance WHERE slow AND state IN (0, 1) UNION ALL "
			 "SELECT 'delivery', destination, state, count(*) FROM delivery GROUP BY 2, 3))") == 0 &&
	       number(s, "SELECT sum(n) FROM tally") ==
		       number(s, "SELECT (SELECT count(*) FROM instance) + (SELECT count(*) FROM study) + "
				 "(SELECT count(*) FROM instance WHERE slow AND state IN (0, 1)) + (SELECT count(*) FROM report) + (SELECT count(*) FROM delivery)");
}

/* ---- making rows ---------------------------------------------------------------------------- */

static inline struct instance instance_of(unsigned study, unsigned uid, uint8_t digest)
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

static inline struct instance add(struct store *s, unsigned study, unsigned uid)
{
	struct instance in = instance_of(study, uid, 1);
	bool duplicate = true;

	if (store_add_instance(s, &in, 100, &duplicate) < 0 || duplicate)
		ok(false, "instance %u of study %u is new: %s", uid, study, store_error(s));
	return in;
}

static inline struct instance claim(struct store *s, int64_t now)
{
	struct instance in = { .id = 0 };
	int r = store_claim_instance(s, now, now + 60, &in);

	if (r < 0)
		in.id = r;
	return in;
}

static inline void settle(struct store *s, struct instance *in)
{
	in->outcome = OUTCOME_SCORED;
	in->settled = 900;
	if (store_settle_instance(s, in, NULL, 0) < 0)
		ok(false, "instance %lld settles: %s", (long long)in->id, store_error(s));
}

static inline struct instance row(struct store *s, const struct instance *in)
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

static inline struct study study_row(struct store *s, unsigned study)
{
	struct study st = { .id = 0 };
	char uid[UID_MAX];

	(void)snprintf(uid, sizeof(uid), "1.2.9.%u", study);
	(void)store_find_study(s, uid, &st);
	return st;
}

static inline struct study next_study(struct store *s, int64_t now)
{
	struct study st = { .id = 0 };
	int r = store_next_study(s, now, now + 60, &st);

	if (r < 0)
		st.id = r;
	return st;
}

static inline struct report report_of(int64_t study, unsigned revision, unsigned uid)
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

static inline struct report add_report(struct store *s, int64_t study, unsigned revision, unsigned uid)
{
	struct report rep = report_of(study, revision, uid);

	if (store_add_report(s, &rep) < 0)
		ok(false, "report %u is added: %s", uid, store_error(s));
	return rep;
}

static inline struct delivery next_delivery(struct store *s, const char *destination, int64_t now)
{
	struct delivery d = { .id = 0 };
	int r = store_next_delivery(s, destination, now, now + 60, &d);

	if (r < 0)
		d.id = r;
	return d;
}

static inline struct delivery delivery_row(struct store *s, int64_t study, int64_t id)
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

/* Makes study `n` REPORTED with one report and one delivery to PACS; returns its row id. */
static inline int64_t report_study(struct store *s, unsigned n)
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
	if (store_add_delivery(s, st.id, 1, "SR", "PACS", RANK_ROUTINE, 50) < 0 ||
	    store_finish_study(s, &st, 1, "scored") < 0 || store_commit(s) < 0)
		ok(false, "study %u is reported: %s", n, store_error(s));
	return rep.study;
}

/* Every way to end an instance's claim. */
static inline int end_settle(struct store *s, const struct instance *in)
{
	struct instance settled = *in;

	settled.outcome = OUTCOME_SILENT;
	return store_settle_instance(s, &settled, NULL, 0);
}

static inline int end_retry(struct store *s, const struct instance *in)
{
	return store_retry_instance(s, in, 0, NULL, false);
}

static inline int end_quarantine(struct store *s, const struct instance *in)
{
	return store_quarantine_instance(s, in, 0, "w");
}

/* And a delivery's. */
static inline int end_close(struct store *s, const struct delivery *d)
{
	return store_close_delivery(s, d, 1, 0, "");
}

static inline int end_defer(struct store *s, const struct delivery *d)
{
	return store_defer_delivery(s, d, 1, 0, "", 0, false);
}

static inline int end_park(struct store *s, const struct delivery *d)
{
	return store_park_delivery(s, d, 1, 0, "");
}

#endif
