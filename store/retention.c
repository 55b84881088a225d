/* retention.c: how files and rows go again.
 *
 * Job: the RETENTION arrows of schema.sql.
 *
 * Promise: the row goes first; the file's name stays in `doomed` until somebody has unlinked it and
 * synced its directory.  Nothing goes of a study that has a delivery which is not DONE, or that
 * waits or is worked on; purge is the operator's exception, and even it spares what is in work.  A
 * step is bounded, and finds its study by one seek, however many there are.
 *
 * Never: unlinks anything, reads a clock, knows how long things are kept.
 */
#include <errno.h>

#include "base/mem.h"

#include "store/spool.h"
#include "store/store-private.h"

int doom_file(struct store *s, unsigned box, uint64_t file)
{
	CLEANUP(query) struct query q =
		query_on(s, "INSERT INTO doomed (box, file) VALUES (?, ?) ON CONFLICT DO NOTHING");

	query_bind_int(&q, box);
	query_bind_int(&q, (int64_t)file);
	return query_run(&q);
}

int store_list_doomed(struct store *s, struct doomed *ret, size_t max, size_t *ret_n)
{
	CLEANUP(query) struct query q = query_on(s, "SELECT box, file FROM doomed LIMIT ?");
	size_t n = 0;
	int r;

	query_bind_int(&q, (int64_t)max);
	while ((r = query_step(&q)) > 0) {
		ret[n].box = (unsigned)query_int(&q);
		ret[n++].file = (uint64_t)query_int(&q);
	}
	if (r < 0)
		return r;
	*ret_n = n;
	return 0;
}

int store_forget_doomed(struct store *s, const struct doomed *d)
{
	CLEANUP(query) struct query q = query_on(s, "DELETE FROM doomed WHERE box = ? AND file = ?");
	int r;

	query_bind_int(&q, d->box);
	query_bind_int(&q, (int64_t)d->file);
	r = change_begin(s);
	if (r < 0)
		return r;
	return change_end(s, query_run(&q));
}

/* ---- one study ------------------------------------------------------------------------------- */

#define FILES_MAX 256 /* of one list in memory */

struct row {
	int64_t id;
	uint64_t file, facts, embedding;
};

static int list_rows(struct query *q, struct row *ret, size_t *ret_n)
{
	size_t n = 0;
	int r;

	while ((r = query_step(q)) > 0) {
		ret[n].id = query_int(q);
		ret[n++].file = (uint64_t)query_int(q);
	}
	*ret_n = n;
	return r;
}

static int run_with(struct store *s, const char *sql, int64_t id)
{
	CLEANUP(query) struct query q = query_on(s, sql);

	query_bind_int(&q, id);
	return query_run(&q);
}

static size_t at_most(size_t max)
{
	return max < FILES_MAX ? max : FILES_MAX;
}

static int list_kept(struct store *s, int64_t study, size_t max, struct row *ret, size_t *ret_n)
{
	CLEANUP(query) struct query q =
		query_on(s, "SELECT id, file FROM instance WHERE study = ? AND kept = 1 LIMIT ?");

	query_bind_int(&q, study);
	query_bind_int(&q, (int64_t)at_most(max));
	return list_rows(&q, ret, ret_n);
}

/* The files of objects go, their rows stay. */
static int expire_files(struct store *s, int64_t study, size_t max, size_t *ret_n)
{
	struct row row[FILES_MAX];
	size_t n = 0, i;
	int r;

	r = list_kept(s, study, max, row, &n);
	for (i = 0; r >= 0 && i < n; i++) {
		r = doom_file(s, SPOOL_OBJECTS, row[i].file);
		if (r >= 0)
			r = run_with(s, "UPDATE instance SET kept = 0 WHERE id = ?", row[i].id);
	}
	*ret_n = n;
	return r;
}

static int list_instances(struct store *s, int64_t study, size_t max, struct row *ret, size_t *ret_n)
{
	CLEANUP(query) struct query q =
		query_on(s, "SELECT id, iif(kept, file, 0), embedding FROM instance WHERE study = ? LIMIT ?");
	size_t n = 0;
	int r;

	query_bind_int(&q, study);
	query_bind_int(&q, (int64_t)at_most(max));
	while ((r = query_step(&q)) > 0) {
		ret[n].id = query_int(&q);
		ret[n].file = (uint64_t)query_int(&q);
		ret[n++].embedding = (uint64_t)query_int(&q);
	}
	*ret_n = n;
	return r;
}

static int remove_instances(struct store *s, int64_t study, size_t max, size_t *ret_n)
{
	struct row row[FILES_MAX];
	size_t n = 0, i;
	int r;

	r = list_instances(s, study, max, row, &n);
	for (i = 0; r >= 0 && i < n; i++) {
		if (row[i].file != 0)
			r = doom_file(s, SPOOL_OBJECTS, row[i].file);
		if (r >= 0 && row[i].embedding != 0)
			r = doom_file(s, SPOOL_EMBEDDINGS, row[i].embedding);
		if (r >= 0)
			r = run_with(s, "DELETE FROM score WHERE instance = ?", row[i].id);
		if (r >= 0)
			r = run_with(s, "DELETE FROM instance WHERE id = ?", row[i].id);
	}
	*ret_n = n;
	return r;
}

static int list_reports(struct store *s, int64_t study, size_t max, struct row *ret, size_t *ret_n)
{
	CLEANUP(query) struct query q = query_on(s, "SELECT id, file, facts FROM report WHERE study = ? LIMIT ?");
	size_t n = 0;
	int r;

	query_bind_int(&q, study);
	query_bind_int(&q, (int64_t)at_most(max));
	while ((r = query_step(&q)) > 0) {
		ret[n].id = query_int(&q);
		ret[n].file = (uint64_t)query_int(&q);
		ret[n++].facts = (uint64_t)query_int(&q);
	}
	*ret_n = n;
	return r;
}

/* Deliveries are few (destinations times revisions times kinds), and name reports: they go at once. */
static int remove_deliveries(struct store *s, int64_t study)
{
	int r;

	r = run_with(s, "DELETE FROM refused WHERE delivery IN (SELECT id FROM delivery WHERE study = ?)", study);
	if (r >= 0)
		r = run_with(s, "DELETE FROM delivery WHERE study = ?", study);
	return r;
}

static int remove_reports(struct store *s, int64_t study, size_t max, size_t *ret_n)
{
	struct row row[FILES_MAX];
	size_t n = 0, i;
	int r;

	r = list_reports(s, study, max, row, &n);
	for (i = 0; r >= 0 && i < n; i++) {
		r = doom_file(s, SPOOL_REPORTS, row[i].file);
		if (r >= 0 && row[i].facts != 0) /* one for all of a revision */
			r = doom_file(s, SPOOL_FACTS, row[i].facts);
		if (r >= 0)
			r = run_with(s, "DELETE FROM report WHERE id = ?", row[i].id);
	}
	*ret_n = n;
	return r;
}

/* Children before parents; the study's own row when nothing hangs on it any more. */
static int remove_some(struct store *s, int64_t study, size_t max, size_t *ret_n)
{
	int r;

	r = remove_instances(s, study, max, ret_n);
	if (r < 0 || *ret_n > 0)
		return r;
	r = remove_deliveries(s, study);
	if (r >= 0)
		r = remove_reports(s, study, max, ret_n);
	if (r < 0 || *ret_n > 0)
		return r;
	*ret_n = 1;
	return run_with(s, "DELETE FROM study WHERE id = ?", study);
}

/* ---- whose turn it is -------------------------------------------------------------------------- */

static const char next_images[] = "SELECT id, quiet FROM study INDEXED BY study_images WHERE state IN (2, 3, 4) "
				  "AND undelivered = 0 AND failed = 0 AND files > 0 ORDER BY quiet LIMIT 1";
static const char next_failed[] = "SELECT id, quiet FROM study INDEXED BY study_failed WHERE state IN (2, 3, 4) "
				  "AND undelivered = 0 AND failed > 0 AND files > 0 ORDER BY quiet LIMIT 1";
static const char next_rows[] = "SELECT id, quiet FROM study INDEXED BY study_rows WHERE state IN (2, 3, 4) "
				"AND undelivered = 0 ORDER BY quiet LIMIT 1";

/* The study that has been quiet for longest; -ENOENT. */
static int quietest(struct store *s, const char *sql, int64_t *ret_id, int64_t *ret_quiet)
{
	CLEANUP(query) struct query q = query_on(s, sql);
	int r;

	r = query_value(&q, ret_id);
	if (r < 0)
		return r;
	*ret_quiet = query_int(&q);
	return 0;
}

static int quiet_since(struct store *s, const char *sql, int64_t before, int64_t *ret_id)
{
	int64_t quiet = 0;
	int r;

	r = quietest(s, sql, ret_id, &quiet);
	if (r < 0)
		return r;
	return quiet < before ? 0 : -ENOENT;
}

typedef int remover(struct store *s, int64_t study, size_t max, size_t *ret_n);

static int expire(struct store *s, const char *sql, int64_t before, remover *remove, size_t max, size_t *ret_n,
		  struct removal *ret_what)
{
	char left[UID_MAX];
	int64_t study;
	int r;

	*ret_n = 0;
	r = quiet_since(s, sql, before, &study); /* before the transaction: most questions find nothing */
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	r = change_begin(s);
	if (r < 0)
		return r;
	*ret_what = (struct removal){ .study = study };
	r = store_study_uid(s, study, ret_what->study_uid);
	if (r >= 0)
		r = remove(s, study, max, ret_n);
	ret_what->whole = store_study_uid(s, study, left) == -ENOENT;
	ret_what->objects = remove == expire_files ? *ret_n : 0;
	return change_end(s, r);
}

int store_expire(struct store *s, const struct retention *before, size_t max, size_t *ret_n, struct removal *ret_what)
{
	int r;

	r = expire(s, next_rows, before->rows, remove_some, max, ret_n, ret_what);
	if (r == 0 && *ret_n == 0)
		r = expire(s, next_images, before->images, expire_files, max, ret_n, ret_what);
	if (r == 0 && *ret_n == 0)
		r = expire(s, next_failed, before->failed, expire_files, max, ret_n, ret_what);
	return r;
}

static int earliest(struct store *s, const char *sql, int64_t *ret)
{
	int64_t study;
	int r;

	*ret = INT64_MAX;
	r = quietest(s, sql, &study, ret);
	return r == -ENOENT ? 0 : r;
}

int store_next_expiry(struct store *s, struct retention *ret)
{
	int r;

	r = earliest(s, next_images, &ret->images);
	if (r >= 0)
		r = earliest(s, next_failed, &ret->failed);
	if (r >= 0)
		r = earliest(s, next_rows, &ret->rows);
	return r;
}

/* ---- purge ------------------------------------------------------------------------------------- */

static int in_work(struct store *s, int64_t study, int64_t *ret)
{
	CLEANUP(query) struct query q =
		query_on(s, "SELECT (SELECT count(*) FROM study WHERE id = ?1 AND state = 1) + "
			    "(SELECT count(*) FROM instance WHERE study = ?1 AND state = 1) + "
			    "(SELECT count(*) FROM delivery WHERE study = ?1 AND state = 1)");

	query_bind_int(&q, study);
	return query_value(&q, ret);
}

static int purge(struct store *s, const char *study_uid, size_t *ret_n)
{
	int64_t working = 0;
	struct study st;
	size_t n = 0;
	int r;

	r = store_find_study(s, study_uid, &st);
	if (r >= 0)
		r = in_work(s, st.id, &working);
	if (r >= 0 && working > 0)
		return store_refuse(s, -EBUSY, "something of it is being worked on");
	while (r >= 0) {
		r = remove_some(s, st.id, FILES_MAX, &n);
		*ret_n += n;
		if (r >= 0 && store_find_study(s, study_uid, &st) == -ENOENT)
			return 0;
	}
	return r;
}

int store_purge_study(struct store *s, const char *study_uid, size_t *ret_n)
{
	int r;

	*ret_n = 0;
	r = change_begin(s);
	if (r < 0)
		return r;
	return change_end(s, purge(s, study_uid, ret_n));
}
