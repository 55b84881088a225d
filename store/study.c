/* study.c: what is reported as one: the studies, their reports, and the findings lists behind them.
 *
 * Job: the STUDY and REPORT parts of schema.sql.
 *
 * Promise: a study is claimed only when none of its instances waits or is being worked on; the
 * report's inputs and time are fixed before it is made, so that a second attempt makes the same
 * bytes; an instance that comes in the middle voids the claim instead of being left out.
 *
 * Never: decides what is reported or when a study counts as complete; changes or deletes a report.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

#include "store/store-private.h"

#define SELECT_STUDY                                                                               \
	"SELECT id, study_uid, lane, state, settle_at, attempt, token, lease, revision, why, created FROM study "

/* The columns of SELECT_STUDY, in its order. */
static void read_study(struct query *q, struct study *st)
{
	memset(st, 0, sizeof(*st));
	st->id = query_int(q);
	query_field(q, st->study_uid);
	st->lane = (enum study_lane)query_int(q);
	st->state = (enum study_state)query_int(q);
	st->settle_at = query_int(q);
	st->attempt = (unsigned)query_int(q);
	st->token = query_int(q);
	st->lease = query_int(q);
	st->revision = (unsigned)query_int(q);
	query_field(q, st->why);
	st->created = query_int(q);
}

static int read_one(struct query *q, struct study *ret)
{
	int r;

	r = query_step(q);
	if (r < 0)
		return r;
	if (r == 0)
		return -ENOENT;
	read_study(q, ret);
	return 0;
}

/* ---- a study gets an instance --------------------------------------------------------------- */

/* A new study is SILENT until study_reopen(): with only ASIDE instances nobody need look at it. */
static int insert_study(struct store *s, const struct instance *in, int64_t settle_at)
{
	CLEANUP(query) struct query q =
		query_on(s, "INSERT INTO study (study_uid, state, settle_at, why, created) "
			    "VALUES (?, 3, ?, 'no object of a class that is analysed', ?) "
			    "ON CONFLICT (study_uid) DO NOTHING");

	query_bind_field(&q, in->study_uid);
	query_bind_int(&q, settle_at);
	query_bind_int(&q, in->received);
	return query_run(&q);
}

static int find_id(struct store *s, const char *study_uid, int64_t *ret)
{
	CLEANUP(query) struct query q = query_on(s, "SELECT id FROM study WHERE study_uid = ?");

	query_bind_text(&q, study_uid, UID_MAX);
	return query_value(&q, ret);
}

static int set_lane(struct store *s, int64_t study, enum study_lane lane)
{
	CLEANUP(query) struct query q = query_on(s, "UPDATE study SET lane = ? WHERE id = ?");

	query_bind_int(&q, lane);
	query_bind_int(&q, study);
	return query_run(&q);
}

static int hurry_waiting(struct store *s, int64_t study)
{
	CLEANUP(query) struct query q = query_on(s, "UPDATE instance INDEXED BY instance_by_study SET slow = 0 "
						    "WHERE study = ? AND slow = 1 AND state IN (0, 1)");

	query_bind_int(&q, study);
	return query_run(&q);
}

static int get_lane(struct store *s, int64_t study, enum study_lane *ret, bool *ret_open)
{
	CLEANUP(query) struct query q = query_on(s, "SELECT lane, state IN (0, 1) FROM study WHERE id = ?");
	int64_t lane;
	int r;

	query_bind_int(&q, study);
	r = query_value(&q, &lane);
	if (r < 0)
		return r;
	*ret = (enum study_lane)lane;
	*ret_open = query_int(&q) != 0;
	return 0;
}

/* The lane of the study with one more instance in it, which wishes for this one. */
static int choose_lane(struct store *s, int64_t study, enum study_lane *lane)
{
	enum study_lane old;
	bool open;
	int r;

	r = get_lane(s, study, &old, &open);
	if (r < 0)
		return r;
	if (open && *lane != LANE_NORMAL)
		*lane = old;
	if (*lane == old)
		return 0;
	r = set_lane(s, study, *lane);
	return r < 0 || !open ? r : hurry_waiting(s, study);
}

int study_for_instance(struct store *s, const struct instance *in, int64_t settle_at, int64_t *ret_id, enum study_lane *lane)
{
	int r;

	r = insert_study(s, in, settle_at);
	if (r < 0)
		return r;
	r = find_id(s, in->study_uid, ret_id);
	if (r < 0 || in->state != INSTANCE_READY)
		return r;
	r = choose_lane(s, *ret_id, lane);
	return r < 0 ? r : study_reopen(s, *ret_id, settle_at);
}

int study_reopen(struct store *s, int64_t id, int64_t settle_at)
{
	CLEANUP(query) struct query q =
		query_on(s, "UPDATE study SET state = 0, settle_at = ?, attempt = 0, lease = 0, why = '' "
			    "WHERE id = ? AND state <> 0");

	query_bind_int(&q, settle_at);
	query_bind_int(&q, id);
	return query_run(&q);
}

static int update_settle_at(struct store *s, int64_t study, int64_t at)
{
	CLEANUP(query) struct query q =
		query_on(s, "UPDATE study SET settle_at = ?2 WHERE id = ?1 AND state = 0 AND settle_at > ?2");

	query_bind_int(&q, study);
	query_bind_int(&q, at);
	return query_run(&q);
}

int store_settle_study(struct store *s, int64_t study, int64_t at)
{
	int r;

	r = change_begin(s);
	if (r < 0)
		return r;
	return change_end(s, update_settle_at(s, study, at));
}

/* ---- claim ---------------------------------------------------------------------------------- */

static int find_settled_of(struct store *s, bool slow, int64_t now, int64_t *ret_id)
{
	CLEANUP(query) struct query q =
		query_on(s, "SELECT id FROM study INDEXED BY study_next "
			    "WHERE state = 0 AND pending = 0 AND (lane > 0) = ? AND settle_at <= ? ORDER BY id LIMIT 1");

	query_bind_int(&q, slow);
	query_bind_int(&q, now);
	return query_value(&q, ret_id);
}

static int get_study(struct store *s, int64_t id, struct study *ret)
{
	CLEANUP(query) struct query q = query_on(s, SELECT_STUDY "WHERE id = ?");

	query_bind_int(&q, id);
	return read_one(&q, ret);
}

static int claim(struct store *s, int64_t id, int64_t lease, struct study *ret)
{
	CLEANUP(query) struct query q =
		query_on(s, "UPDATE study SET state = 1, attempt = attempt + 1, token = token + 1, lease = ? "
			    "WHERE id = ? AND state = 0");
	int r;

	r = turn_count(s, "study", "");
	if (r < 0)
		return r;
	query_bind_int(&q, lease);
	query_bind_int(&q, id);
	r = query_run_one(&q);
	if (r < 0)
		return r;
	return get_study(s, id, ret);
}

int store_next_study(struct store *s, int64_t now, int64_t lease, struct study *ret)
{
	struct study row;
	int64_t id;
	int r;

	r = turn_find(s, "study", find_settled_of, now, &id); /* before the transaction: most questions find nothing */
	if (r < 0)
		return r;
	r = change_begin(s);
	if (r < 0)
		return r;
	r = change_end(s, claim(s, id, lease, &row));
	if (r < 0)
		return r;
	*ret = row;
	return 0;
}

/* ---- plan ----------------------------------------------------------------------------------- */

static int find_said(struct store *s, const uint8_t key[DIGEST_SIZE], int64_t *ret_at)
{
	CLEANUP(query) struct query q = query_on(s, "SELECT at FROM said WHERE plan_key = ?");

	query_bind_blob(&q, key, DIGEST_SIZE);
	return query_value(&q, ret_at);
}

static int add_said(struct store *s, const uint8_t key[DIGEST_SIZE], int64_t at)
{
	CLEANUP(query) struct query q =
		query_on(s, "INSERT INTO said (plan_key, at) VALUES (?, ?) ON CONFLICT DO NOTHING");

	query_bind_blob(&q, key, DIGEST_SIZE);
	query_bind_int(&q, at);
	return query_run(&q);
}

static int set_plan(struct store *s, const struct study *claimed, const uint8_t key[DIGEST_SIZE], int64_t at)
{
	CLEANUP(query) struct query q =
		query_on(s, "UPDATE study SET plan_key = ?, plan_at = ? WHERE id = ? AND token = ? AND state = 1");

	query_bind_blob(&q, key, DIGEST_SIZE);
	query_bind_int(&q, at);
	query_bind_int(&q, claimed->id);
	query_bind_int(&q, claimed->token);
	return query_run_one(&q);
}

static int plan(struct store *s, const struct study *claimed, const uint8_t key[DIGEST_SIZE], int64_t *at)
{
	int r;

	r = find_said(s, key, at);
	if (r < 0 && r != -ENOENT)
		return r;
	if (r == -ENOENT)
		r = add_said(s, key, *at);
	if (r >= 0)
		r = set_plan(s, claimed, key, *at);
	return r;
}

int store_plan_study(struct store *s, const struct study *claimed, const uint8_t key[DIGEST_SIZE],
		     int64_t *ret_at)
{
	int64_t at = *ret_at;
	int r;

	r = change_begin(s);
	if (r < 0)
		return r;
	r = change_end(s, plan(s, claimed, key, &at));
	if (r < 0)
		return r;
	*ret_at = at;
	return 0;
}

/* ---- the ends of a claim -------------------------------------------------------------------- */

static int update_closed(struct store *s, const struct study *claimed, enum study_state state,
			 unsigned revision, const char *why)
{
	CLEANUP(query) struct query q =
		query_on(s, "UPDATE study SET state = ?, lease = 0, revision = ?, why = ? "
			    "WHERE id = ? AND token = ? AND state = 1");

	query_bind_int(&q, state);
	query_bind_int(&q, revision);
	query_bind_text(&q, why, STORE_WHY_MAX);
	query_bind_int(&q, claimed->id);
	query_bind_int(&q, claimed->token);
	return query_run_one(&q);
}

static int end_claim(struct store *s, const struct study *claimed, enum study_state state,
		     unsigned revision, const char *why)
{
	int r;

	r = change_begin(s);
	if (r < 0)
		return r;
	return change_end(s, update_closed(s, claimed, state, revision, why));
}

int store_close_study(struct store *s, const struct study *claimed, enum study_state state, const char *why)
{
	assert(state == STUDY_REPORTED || state == STUDY_SILENT || state == STUDY_PARKED);
	return end_claim(s, claimed, state, claimed->revision, why);
}

int store_finish_study(struct store *s, const struct study *claimed, unsigned revision, const char *why)
{
	return end_claim(s, claimed, STUDY_REPORTED, revision, why);
}

static int update_retried(struct store *s, const struct study *claimed, int64_t due, const char *why,
			  bool uncount)
{
	CLEANUP(query) struct query q =
		query_on(s, "UPDATE study SET state = 0, lease = 0, settle_at = ?, why = ?, attempt = attempt - ? "
			    "WHERE id = ? AND token = ? AND state = 1");

	query_bind_int(&q, due);
	query_bind_text(&q, why, STORE_WHY_MAX);
	query_bind_int(&q, uncount);
	query_bind_int(&q, claimed->id);
	query_bind_int(&q, claimed->token);
	return query_run_one(&q);
}

int store_retry_study(struct store *s, const struct study *claimed, int64_t due, const char *why, bool uncount)
{
	int r;

	r = change_begin(s);
	if (r < 0)
		return r;
	return change_end(s, update_retried(s, claimed, due, why, uncount));
}

static int update_parked(struct store *s, int64_t before, int64_t now)
{
	CLEANUP(query) struct query q = query_on(s, "UPDATE study INDEXED BY study_parked SET state = 0, attempt = 0, "
						    "settle_at = ? WHERE state = 4 AND settle_at < ?");

	query_bind_int(&q, now);
	query_bind_int(&q, before);
	return query_run(&q);
}

int store_retry_parked(struct store *s, int64_t before, int64_t now, unsigned *ret_n)
{
	unsigned n = 0;
	int r = change_begin(s);

	if (r < 0)
		return r;
	r = update_parked(s, before, now);
	if (r >= 0)
		n = (unsigned)sqlite3_changes(s->db);
	r = change_end(s, r);
	if (r >= 0)
		*ret_n = n;
	return r;
}

int study_clamp(struct store *s, int64_t latest)
{
	CLEANUP(query) struct query q = query_on(s, "UPDATE study INDEXED BY study_due SET settle_at = ?1 "
						    "WHERE state = 0 AND pending = 0 AND settle_at > ?1");

	query_bind_int(&q, latest);
	return query_run(&q);
}

/* As instances do. */
static int let_suspects_wait(struct store *s, int64_t now)
{
	CLEANUP(query) struct query q =
		query_on(s, "UPDATE study INDEXED BY study_due SET settle_at = ? "
			    "WHERE state = 0 AND pending = 0 AND attempt >= ? AND settle_at < ?");

	query_bind_int(&q, now + STORE_SUSPECT_MS);
	query_bind_int(&q, STORE_SUSPECT_ATTEMPTS);
	query_bind_int(&q, now + STORE_SUSPECT_MS);
	return query_run(&q);
}

int study_recover(struct store *s, int64_t now, unsigned *n)
{
	CLEANUP(query) struct query q =
		query_on(s, "UPDATE study INDEXED BY study_claimed SET state = 0, lease = 0, "
			    "settle_at = min(settle_at, ?) WHERE state = 1");
	int r;

	query_bind_int(&q, now);
	r = query_run(&q);
	if (r < 0)
		return r;
	*n += (unsigned)sqlite3_changes(s->db);
	return let_suspects_wait(s, now);
}

/* ---- looking -------------------------------------------------------------------------------- */

int store_find_study(struct store *s, const char *study_uid, struct study *ret)
{
	CLEANUP(query) struct query q = query_on(s, SELECT_STUDY "WHERE study_uid = ?");

	query_bind_text(&q, study_uid, UID_MAX);
	return read_one(&q, ret);
}

int store_list_studies(struct store *s, int64_t before, struct study *ret, size_t max, size_t *ret_n)
{
	CLEANUP(query) struct query q = query_on(s, SELECT_STUDY "WHERE id < ? ORDER BY id DESC LIMIT ?");
	size_t n = 0;
	int r;

	query_bind_int(&q, before);
	query_bind_int(&q, (int64_t)max);
	while ((r = query_step(&q)) > 0)
		read_study(&q, &ret[n++]);
	if (r < 0)
		return r;
	*ret_n = n;
	return 0;
}

/* ---- reports -------------------------------------------------------------------------------- */

static int insert_report(struct store *s, const struct report *rep, int64_t *ret_id)
{
	CLEANUP(query) struct query q =
		query_on(s, "INSERT INTO report (study, revision, kind, sop_class, sop_uid, series_uid, "
			    "predecessor, file, size, digest, findings, weights, created) "
			    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
	int r;

	query_bind_int(&q, rep->study);
	query_bind_int(&q, rep->revision);
	query_bind_field(&q, rep->kind);
	query_bind_field(&q, rep->sop_class);
	query_bind_field(&q, rep->sop_uid);
	query_bind_field(&q, rep->series_uid);
	query_bind_field(&q, rep->predecessor);
	query_bind_int(&q, (int64_t)rep->file);
	query_bind_int(&q, (int64_t)rep->size);
	query_bind_blob(&q, rep->digest, sizeof(rep->digest));
	query_bind_blob(&q, rep->findings, sizeof(rep->findings));
	query_bind_blob(&q, rep->weights, sizeof(rep->weights));
	query_bind_int(&q, rep->created);
	r = query_run(&q);
	if (r < 0)
		return r;
	*ret_id = sqlite3_last_insert_rowid(s->db);
	return 0;
}

int store_add_report(struct store *s, struct report *rep)
{
	int64_t id = 0;
	int r;

	r = change_begin(s);
	if (r < 0)
		return r;
	r = change_end(s, insert_report(s, rep, &id));
	if (r < 0)
		return r;
	rep->id = id;
	return 0;
}

#define SELECT_REPORT                                                                              \
	"SELECT r.id, r.study, r.revision, r.kind, r.sop_class, r.sop_uid, r.series_uid, "             \
	"r.predecessor, r.file, r.size, r.digest, r.findings, r.weights, r.created FROM report r "

/* The columns of SELECT_REPORT, in its order. */
static void read_report(struct query *q, struct report *rep)
{
	memset(rep, 0, sizeof(*rep));
	rep->id = query_int(q);
	rep->study = query_int(q);
	rep->revision = (unsigned)query_int(q);
	query_field(q, rep->kind);
	query_field(q, rep->sop_class);
	query_field(q, rep->sop_uid);
	query_field(q, rep->series_uid);
	query_field(q, rep->predecessor);
	rep->file = (uint64_t)query_int(q);
	rep->size = (uint64_t)query_int(q);
	query_digest(q, rep->digest);
	query_digest(q, rep->findings);
	query_digest(q, rep->weights);
	rep->created = query_int(q);
}

static int list_reports(struct query *q, struct report *ret, size_t max, size_t *ret_n)
{
	size_t n = 0;
	int r;

	for (; (r = query_step(q)) > 0; n++)
		if (n < max)
			read_report(q, &ret[n]);
	return query_listed(q, r, n, max, ret_n);
}

int store_study_reports(struct store *s, int64_t study, struct report *ret, size_t max, size_t *ret_n)
{
	CLEANUP(query) struct query q = query_on(s, SELECT_REPORT "WHERE r.study = ? ORDER BY r.id DESC");
	struct report swap;
	size_t n = 0, got, i;
	int r;

	query_bind_int(&q, study);
	r = list_reports(&q, ret, max, &n);
	if (r < 0 && r != -E2BIG)
		return r;
	got = n < max ? n : max;
	for (i = 0; i < got / 2; i++) {
		swap = ret[i];
		ret[i] = ret[got - 1 - i];
		ret[got - 1 - i] = swap;
	}
	*ret_n = n;
	return r;
}

int store_delivery_reports(struct store *s, const struct delivery *d, struct report *ret, size_t max,
			   size_t *ret_n)
{
	CLEANUP(query) struct query q =
		query_on(s, SELECT_REPORT "WHERE r.study = ? AND r.revision = ? AND r.kind = ? AND NOT EXISTS "
					  "(SELECT 1 FROM refused f WHERE f.delivery = ? AND f.report = r.id) "
					  "ORDER BY r.id");

	query_bind_int(&q, d->study);
	query_bind_int(&q, d->revision);
	query_bind_field(&q, d->kind);
	query_bind_int(&q, d->id);
	return list_reports(&q, ret, max, ret_n);
}

int store_find_report_file(struct store *s, uint64_t file, int64_t *ret_report)
{
	CLEANUP(query) struct query q = query_on(s, "SELECT id FROM report WHERE file = ?");

	query_bind_int(&q, (int64_t)file);
	return query_value(&q, ret_report);
}

int store_each_file(struct store *s, bool reports, int (*each)(uint64_t file, int64_t row, void *arg), void *arg)
{
	CLEANUP(query) struct query q = query_on(s, reports ? "SELECT file, id FROM report" :
							      "SELECT file, id FROM instance WHERE kept = 1");
	uint64_t file;
	int r;

	while ((r = query_step(&q)) > 0) {
		file = (uint64_t)query_int(&q);
		r = each(file, query_int(&q), arg);
		if (r != 0)
			return r;
	}
	return r;
}

int store_each_digest(struct store *s, bool reports,
		      int (*each)(uint64_t file, int64_t row, const uint8_t digest[DIGEST_SIZE], void *arg), void *arg)
{
	CLEANUP(query) struct query q = query_on(s, reports ? "SELECT file, id, digest FROM report" :
							      "SELECT file, id, digest FROM instance WHERE kept = 1");
	uint8_t digest[DIGEST_SIZE];
	uint64_t file;
	int64_t row;
	int r;

	while ((r = query_step(&q)) > 0) {
		file = (uint64_t)query_int(&q);
		row = query_int(&q);
		query_digest(&q, digest);
		r = each(file, row, digest, arg);
		if (r != 0)
			return r;
	}
	return r;
}

/* ---- findings lists ------------------------------------------------------------------------- */

static int insert_findings(struct store *s, const uint8_t digest[DIGEST_SIZE], const void *text, size_t n)
{
	CLEANUP(query) struct query q =
		query_on(s, "INSERT INTO findings_list (digest, text) VALUES (?, ?) "
			    "ON CONFLICT (digest) DO NOTHING");

	query_bind_blob(&q, digest, DIGEST_SIZE);
	query_bind_blob(&q, n == 0 ? "" : text, n); /* a NULL pointer would be an SQL NULL */
	return query_run(&q);
}

int store_keep_findings(struct store *s, const uint8_t digest[DIGEST_SIZE], const void *text, size_t n)
{
	int r;

	r = change_begin(s);
	if (r < 0)
		return r;
	return change_end(s, insert_findings(s, digest, text, n));
}

int store_get_findings(struct store *s, const uint8_t digest[DIGEST_SIZE], void **ret, size_t *ret_n)
{
	CLEANUP(query) struct query q = query_on(s, "SELECT text FROM findings_list WHERE digest = ?");
	const void *text;
	char *copy;
	size_t n;
	int r;

	query_bind_blob(&q, digest, DIGEST_SIZE);
	r = query_step(&q);
	if (r < 0)
		return r;
	if (r == 0)
		return -ENOENT;
	text = sqlite3_column_blob(q.st, 0);
	n = (size_t)sqlite3_column_bytes(q.st, 0);
	copy = malloc(n + 1);
	if (copy == NULL)
		return -ENOMEM;
	if (n > 0)
		memcpy(copy, text, n);
	copy[n] = '\0';
	*ret = copy;
	*ret_n = n;
	return 0;
}

/* ---- fetched ---------------------------------------------------------------------------------- */

static int put_fetched(struct store *s, const char *study_uid, const char *calling_ae, bool keep)
{
	CLEANUP(query) struct query q =
		query_on(s, "INSERT INTO fetched (study_uid, calling_ae, send) VALUES (?, ?, ?) "
			    "ON CONFLICT (study_uid, calling_ae) DO UPDATE SET send = excluded.send");

	query_bind_text(&q, study_uid, SIZE_MAX);
	query_bind_text(&q, calling_ae, SIZE_MAX);
	query_bind_int(&q, !keep);
	return query_run(&q);
}

int store_note_fetched(struct store *s, const char *study_uid, const char *calling_ae, bool keep)
{
	int r;

	r = change_begin(s);
	if (r < 0)
		return r;
	return change_end(s, put_fetched(s, study_uid, calling_ae, keep));
}

int store_is_fetched(struct store *s, const char *study_uid, const char *calling_ae, enum fetched *ret)
{
	CLEANUP(query) struct query q = query_on(s, "SELECT send FROM fetched WHERE study_uid = ? AND calling_ae = ?");
	int64_t send;
	int r;

	query_bind_text(&q, study_uid, SIZE_MAX);
	query_bind_text(&q, calling_ae, SIZE_MAX);
	r = query_value(&q, &send);
	if (r < 0 && r != -ENOENT)
		return r;
	*ret = r == -ENOENT ? FETCHED_NOT : send != 0 ? FETCHED_SEND : FETCHED_KEEP;
	return 0;
}

int store_is_report(struct store *s, const char *sop_uid, bool *ret)
{
	CLEANUP(query) struct query q = query_on(s, "SELECT 1 FROM report WHERE sop_uid = ?");
	int64_t one;
	int r;

	query_bind_text(&q, sop_uid, SIZE_MAX);
	r = query_value(&q, &one);
	if (r < 0 && r != -ENOENT)
		return r;
	*ret = r == 0;
	return 0;
}
