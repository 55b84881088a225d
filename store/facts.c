/* facts.c: what the database knows of one report, as bytes that stand beside the report's file.
 *
 * Job: the rows of a study behind one revision of its report, as a small SQLite database in memory, and
 * back into a database that has lost them (a backup that is older, or none).  So reports explain
 * themselves as objects do, and a rebuilt node repeats none of them.
 *
 * Promise: the export shows what the transaction around it will commit; the import adds only what is
 * not there: a report that is known is -EEXIST, an object that was analysed again keeps its result.
 * Objects come before facts: a row whose object did not come back is marked as expired.
 *
 * Never: touches a file.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#include "store/store-private.h"

#define FACTS_VERSION 2 /* of the schema that these rows have */

static int exec(struct store *s, const char *format, ...)
{
	va_list ap;
	char *sql;
	int rc;

	va_start(ap, format);
	sql = sqlite3_vmprintf(format, ap);
	va_end(ap);
	if (sql == NULL)
		return store_refuse(s, -ENOMEM, "out of memory");
	rc = sqlite3_exec(s->db, sql, NULL, NULL, NULL);
	sqlite3_free(sql);
	if (rc == SQLITE_OK)
		return 0;
	return store_refuse(s, (rc & 0xff) == SQLITE_FULL ? -ENOSPC : (rc & 0xff) == SQLITE_NOMEM ? -ENOMEM : -EBADMSG,
			    sqlite3_errmsg(s->db));
}

/* Lives in memory, beside the database. */
int facts_attach(struct store *s)
{
	return exec(s, "ATTACH ':memory:' AS facts; PRAGMA facts.page_size = 1024");
}

/* ---- out ------------------------------------------------------------------------------------- */

static const char collect[] =
	"CREATE TABLE facts.site AS SELECT value FROM main.setting WHERE key = 'site';"
	"CREATE TABLE facts.study AS SELECT study_uid, %u AS revision, why, plan_key, plan_at, created, settle_at "
	"FROM main.study WHERE id = %lld;"
	"CREATE TABLE facts.instance AS SELECT * FROM main.instance WHERE study = %lld AND state IN (2, 3);"
	"CREATE TABLE facts.score AS SELECT i.sop_uid, i.digest, s.place, s.finding, s.logit, s.probability, s.decision, s.map "
	"FROM main.score s JOIN main.instance i ON i.id = s.instance WHERE i.study = %lld;"
	"CREATE TABLE facts.report AS SELECT * FROM main.report WHERE study = %lld AND revision = %u;"
	"CREATE TABLE facts.delivery AS SELECT kind, destination, rank, created FROM main.delivery "
	"WHERE study = %lld AND revision = %u;"
	"CREATE TABLE facts.findings_list AS SELECT * FROM main.findings_list "
	"WHERE digest IN (SELECT findings FROM main.report WHERE study = %lld AND revision = %u);"
	"PRAGMA facts.user_version = 2";

int store_export_facts(struct store *s, int64_t study, unsigned revision, void **ret, size_t *ret_n)
{
	long long id = (long long)study;
	sqlite3_int64 n = 0;
	void *bytes = NULL, *copy;
	int r;

	assert(s->group);
	r = exec(s, "SAVEPOINT facts");
	if (r < 0)
		return r;
	r = exec(s, collect, revision, id, id, id, id, revision, id, revision, id, revision);
	if (r == 0) {
		bytes = sqlite3_serialize(s->db, "facts", &n, 0);
		if (bytes == NULL)
			r = store_refuse(s, -ENOMEM, "out of memory");
	}
	if (exec(s, "ROLLBACK TO facts; RELEASE facts") < 0 && r == 0) /* leaves nothing for the next one */
		r = -EIO;
	if (r == 0) {
		copy = xcalloc(1, (size_t)n);
		memcpy(copy, bytes, (size_t)n);
		*ret = copy;
		*ret_n = (size_t)n;
	}
	sqlite3_free(bytes);
	return r;
}

int store_set_facts(struct store *s, int64_t study, unsigned revision, uint64_t file)
{
	CLEANUP(query) struct query q = query_on(s, "UPDATE report SET facts = ? WHERE study = ? AND revision = ?");

	query_bind_int(&q, (int64_t)file);
	query_bind_int(&q, study);
	query_bind_int(&q, revision);
	return query_run(&q);
}

int store_delivery_facts(struct store *s, int64_t delivery, uint64_t *ret_file, char ret_sop_uid[UID_MAX])
{
	CLEANUP(query) struct query q =
		query_on(s, "SELECT r.facts, r.sop_uid FROM delivery d JOIN report r ON r.id = d.report WHERE d.id = ?");
	int64_t file;
	int r;

	query_bind_int(&q, delivery);
	r = query_value(&q, &file);
	if (r < 0)
		return r;
	query_text(&q, ret_sop_uid, UID_MAX);
	*ret_file = (uint64_t)file;
	return file == 0 ? -ENOENT : 0;
}

int store_named_facts(struct store *s, uint64_t file, bool *ret)
{
	CLEANUP(query) struct query q = query_on(s, "SELECT count(*) FROM report WHERE facts = ?");
	int64_t n = 0;
	int r;

	query_bind_int(&q, (int64_t)file);
	r = query_value(&q, &n);
	*ret = n > 0;
	return r;
}

/* ---- in ----------------------------------------------------------------------------------------- */

#define STUDY_ID "(SELECT id FROM main.study WHERE study_uid = (SELECT study_uid FROM facts.study))"
#define SETTLED "outcome, why, attempt, patient, content, recipe, precision, version, weights, findings, settled"

static const char restore[] =
	"INSERT INTO main.study (study_uid, state, settle_at, created) SELECT study_uid, 3, settle_at, created "
	"FROM facts.study WHERE true ON CONFLICT (study_uid) DO NOTHING;"
	"UPDATE main.instance AS m SET state = i.state, lease = 0, due = 0, (" SETTLED ") = (i.outcome, i.why, i.attempt, "
	"i.patient, i.content, i.recipe, i.precision, i.version, i.weights, i.findings, i.settled), peer = i.peer, "
	"received = i.received, repeats = i.repeats FROM facts.instance i "
	"WHERE m.sop_uid = i.sop_uid AND m.digest = i.digest AND m.state = 0;"
	"INSERT INTO main.instance (study, file, sop_class, sop_uid, series_uid, syntax, calling_ae, called_ae, peer, digest, "
	"size, received, revision, repeats, state, kept, " SETTLED ") SELECT " STUDY_ID ", file, sop_class, sop_uid, "
	"series_uid, syntax, calling_ae, called_ae, peer, digest, size, received, revision, repeats, state, 0, " SETTLED " "
	"FROM facts.instance i WHERE NOT EXISTS (SELECT 1 FROM main.instance m WHERE m.sop_uid = i.sop_uid AND m.digest = i.digest);"
	"INSERT OR IGNORE INTO main.findings_list SELECT * FROM facts.findings_list;"
	"INSERT OR IGNORE INTO main.score (instance, place, finding, logit, probability, decision, map) "
	"SELECT m.id, s.place, s.finding, s.logit, s.probability, s.decision, s.map FROM facts.score s "
	"JOIN main.instance m ON m.sop_uid = s.sop_uid AND m.digest = s.digest WHERE m.state = 2;"
	"INSERT INTO main.report (study, revision, kind, sop_class, sop_uid, series_uid, predecessor, file, size, digest, "
	"findings, weights, created, facts) SELECT " STUDY_ID ", revision, kind, sop_class, sop_uid, series_uid, predecessor, "
	"file, size, digest, findings, weights, created, %lld FROM facts.report;"
	"INSERT OR IGNORE INTO main.delivery (study, revision, kind, destination, rank, state, created) "
	"SELECT " STUDY_ID ", (SELECT revision FROM facts.study), kind, destination, rank, 0, created FROM facts.delivery;"
	"INSERT OR IGNORE INTO main.said SELECT plan_key, plan_at FROM facts.study WHERE plan_key IS NOT NULL;"
	"UPDATE main.study AS m SET revision = f.revision, plan_key = f.plan_key, plan_at = f.plan_at, why = f.why, "
	"state = iif(EXISTS (SELECT 1 FROM main.instance i WHERE i.study = m.id AND i.state IN (0, 1)), 0, 2) "
	"FROM facts.study f WHERE m.study_uid = f.study_uid AND m.revision <= f.revision";

/* One number from what was brought in; -1: it is no database, or not of this form. */
static int64_t ask(struct store *s, const char *sql)
{
	sqlite3_stmt *st = NULL;
	int64_t n = -1;

	if (sqlite3_prepare_v2(s->db, sql, -1, &st, NULL) == SQLITE_OK && sqlite3_step(st) == SQLITE_ROW)
		n = sqlite3_column_int64(st, 0);
	else
		(void)store_refuse(s, -EBADMSG, sqlite3_errmsg(s->db));
	(void)sqlite3_finalize(st);
	return n;
}

static int known(struct store *s)
{
	int64_t old;

	if (ask(s, "PRAGMA facts.user_version") != FACTS_VERSION || ask(s, "SELECT count(*) FROM facts.report") < 1)
		return -EBADMSG;
	old = ask(s, "SELECT count(*) FROM main.report WHERE sop_uid IN (SELECT sop_uid FROM facts.report)");
	return old < 0 ? -EBADMSG : old > 0 ? -EEXIST : 0;
}

static int take_in(struct store *s, uint64_t file)
{
	int r = known(s);

	if (r < 0)
		return r;
	r = store_begin(s);
	if (r < 0)
		return r;
	r = exec(s, restore, (long long)file);
	if (r == 0)
		return store_commit(s);
	store_rollback(s);
	return r;
}

int store_import_facts(struct store *s, const void *bytes, size_t n, uint64_t file)
{
	unsigned char *copy = sqlite3_malloc64(n);
	int r;

	assert(!s->group);
	if (copy == NULL)
		return -ENOMEM;
	memcpy(copy, bytes, n);
	if (sqlite3_deserialize(s->db, "facts", copy, (sqlite3_int64)n, (sqlite3_int64)n, SQLITE_DESERIALIZE_FREEONCLOSE) !=
	    SQLITE_OK)
		return store_refuse(s, -EBADMSG, sqlite3_errmsg(s->db)); /* it has freed the copy */
	r = take_in(s, file);
	if (exec(s, "DETACH facts") < 0 || facts_attach(s) < 0)
		return -EIO;
	return r;
}

int store_restore_delivered(struct store *s, const char *sop_uid, const char *destination, int status, int64_t at)
{
	CLEANUP(query) struct query q =
		query_on(s, "INSERT INTO delivery (study, revision, kind, destination, state, created, status, finished, report) "
			    "SELECT study, revision, kind, ?2, 2, ?4, ?3, ?4, id FROM report WHERE sop_uid = ?1 "
			    "ON CONFLICT (study, revision, kind, destination) DO UPDATE SET state = 2, "
			    "status = excluded.status, finished = excluded.finished, report = excluded.report");
	int r;

	query_bind_text(&q, sop_uid, UID_MAX);
	query_bind_text(&q, destination, AE_TITLE_MAX);
	query_bind_int(&q, status);
	query_bind_int(&q, at);
	r = change_begin(s);
	return r < 0 ? r : change_end(s, query_run(&q));
}
