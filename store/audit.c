/* audit.c: audit records that wait for their repository, and what will become one.
 *
 * Promise: a record is there until it is said to be taken, whatever dies; records are taken in the order in
 * which they were written.  A record is written in the transaction of what it tells of.
 */
#include <errno.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

#include "store/store-private.h"

static int insert_audit(struct store *s, const char *body)
{
	CLEANUP(query) struct query q = query_on(s, "INSERT INTO audit (body) VALUES (?)");

	query_bind_text(&q, body, STORE_AUDIT_MAX);
	return query_run(&q);
}

int store_add_audit(struct store *s, const char *body)
{
	int r;

	r = change_begin(s);
	if (r < 0)
		return r;
	return change_end(s, insert_audit(s, body));
}

int store_audits_waiting(struct store *s, uint64_t *ret)
{
	/* they go from the oldest on: two seeks, however many there are */
	CLEANUP(query) struct query q =
		query_on(s, "SELECT (SELECT id FROM audit ORDER BY id DESC LIMIT 1) - "
			    "(SELECT id FROM audit ORDER BY id LIMIT 1) + 1");
	int64_t n = 0;
	int r;

	r = query_value(&q, &n);
	if (r < 0 && r != -ENOENT)
		return r;
	*ret = r == -ENOENT ? 0 : (uint64_t)n;
	return 0;
}

int store_each_audit(struct store *s, int (*each)(int64_t id, const char *body, void *arg), void *arg)
{
	CLEANUP(query) struct query q = query_on(s, "SELECT id, body FROM audit ORDER BY id");
	CLEANUP(free) char *body = xcalloc(1, STORE_AUDIT_MAX);
	int r;

	while ((r = query_step(&q)) > 0) {
		int64_t id = query_int(&q);

		query_text(&q, body, STORE_AUDIT_MAX);
		r = each(id, body, arg);
		if (r != 0)
			return r < 0 ? r : 0;
	}
	return r;
}

static int remove_audits(struct store *s, int64_t last)
{
	CLEANUP(query) struct query q = query_on(s, "DELETE FROM audit WHERE id <= ?");

	query_bind_int(&q, last);
	return query_run(&q);
}

int store_end_audits(struct store *s, int64_t last)
{
	int r;

	r = change_begin(s);
	if (r < 0)
		return r;
	return change_end(s, remove_audits(s, last));
}

/* ---- what was received ------------------------------------------------------------------------- */

static int count_received(struct store *s, const struct received *in)
{
	CLEANUP(query) struct query q =
		query_on(s, "INSERT INTO received (peer, calling_ae, study_uid, sop_class, n) VALUES (?, ?, ?, ?, 1) "
			    "ON CONFLICT DO UPDATE SET n = n + 1, "
			    "sop_class = iif(sop_class = excluded.sop_class, sop_class, '')");

	query_bind_field(&q, in->peer);
	query_bind_field(&q, in->calling_ae);
	query_bind_field(&q, in->study_uid);
	query_bind_field(&q, in->sop_class);
	return query_run(&q);
}

int store_count_received(struct store *s, const struct received *in)
{
	int r;

	r = change_begin(s);
	if (r < 0)
		return r;
	return change_end(s, count_received(s, in));
}

static int take_received(struct store *s, const char *peer, const char *calling_ae, struct received *ret)
{
	CLEANUP(query) struct query q =
		query_on(s, "DELETE FROM received WHERE (peer, calling_ae, study_uid) = (SELECT peer, calling_ae, study_uid "
			    "FROM received WHERE ?1 IN ('', peer) AND ?2 IN ('', calling_ae) LIMIT 1) "
			    "RETURNING peer, calling_ae, study_uid, sop_class, n");
	int r;

	query_bind_text(&q, peer, SIZE_MAX);
	query_bind_text(&q, calling_ae, SIZE_MAX);
	r = query_step(&q);
	if (r < 0)
		return r;
	if (r == 0)
		return -ENOENT;
	query_field(&q, ret->peer);
	query_field(&q, ret->calling_ae);
	query_field(&q, ret->study_uid);
	query_field(&q, ret->sop_class);
	ret->n = (unsigned)query_int(&q);
	return query_run(&q);
}

int store_take_received(struct store *s, const char *peer, const char *calling_ae, struct received *ret)
{
	int r;

	r = change_begin(s);
	if (r < 0)
		return r;
	r = take_received(s, peer, calling_ae, ret);
	if (r == -ENOENT) {
		r = change_end(s, 0);
		return r < 0 ? r : -ENOENT;
	}
	return change_end(s, r);
}

int store_study_uid(struct store *s, int64_t study, char ret[UID_MAX])
{
	CLEANUP(query) struct query q = query_on(s, "SELECT study_uid FROM study WHERE id = ?");
	int r;

	query_bind_int(&q, study);
	r = query_step(&q);
	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	query_text(&q, ret, UID_MAX);
	return 0;
}
