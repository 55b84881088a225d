/* delivery.c: what is on its way to whom.
 *
 * Job: the DELIVERY arrows of schema.sql, one function each.
 *
 * Promise: one row for each destination, study, revision and kind, however often it is asked for;
 * the class that a peer accepted is committed before the object is sent and stays, so that one
 * destination never gets two sisters of one report; nothing is ever given up or deleted here.  A
 * claim of one destination never looks at the rows of another.
 *
 * Never: decides when to try again or what a status means; speaks DICOM.
 */
#include <errno.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

#include "store/store-private.h"

#define SELECT_DELIVERY                                                                            \
	"SELECT id, study, revision, kind, destination, rank, state, attempt, permanent, token, lease, due, " \
	"ifnull(report, 0), status, why, created, finished FROM delivery "

/* The columns of SELECT_DELIVERY, in its order. */
static void read_delivery(struct query *q, struct delivery *d)
{
	memset(d, 0, sizeof(*d));
	d->id = query_int(q);
	d->study = query_int(q);
	d->revision = (unsigned)query_int(q);
	query_field(q, d->kind);
	query_field(q, d->destination);
	d->rank = (enum store_rank)query_int(q);
	d->state = (enum delivery_state)query_int(q);
	d->attempt = (unsigned)query_int(q);
	d->permanent = (unsigned)query_int(q);
	d->token = query_int(q);
	d->lease = query_int(q);
	d->due = query_int(q);
	d->report = query_int(q);
	d->status = (int)query_int(q);
	query_field(q, d->why);
	d->created = query_int(q);
	d->finished = query_int(q);
}

static int get_delivery(struct store *s, int64_t id, struct delivery *ret)
{
	CLEANUP(query) struct query q = query_on(s, SELECT_DELIVERY "WHERE id = ?");
	int r;

	query_bind_int(&q, id);
	r = query_step(&q);
	if (r < 0)
		return r;
	if (r == 0)
		return -ENOENT;
	read_delivery(&q, ret);
	return 0;
}

/* ---- add ------------------------------------------------------------------------------------ */

static int insert_delivery(struct store *s, int64_t study, unsigned revision, const char *kind,
			   const char *destination, enum store_rank rank, int64_t now)
{
	CLEANUP(query) struct query q =
		query_on(s, "INSERT INTO delivery (study, revision, kind, destination, rank, state, created) "
			    "VALUES (?, ?, ?, ?, ?, 0, ?) "
			    "ON CONFLICT (study, revision, kind, destination) DO NOTHING");

	query_bind_int(&q, study);
	query_bind_int(&q, revision);
	query_bind_text(&q, kind, SIZE_MAX);
	query_bind_text(&q, destination, SIZE_MAX);
	query_bind_int(&q, rank);
	query_bind_int(&q, now);
	return query_run(&q);
}

/* What was said before arrives before, within a rank.  By the study, which has few: + keeps SQLite from the
 * destination's index, where all that waits stands. */
static int hurry_earlier(struct store *s, int64_t study, const char *destination, enum store_rank rank)
{
	CLEANUP(query) struct query q = query_on(s, "UPDATE delivery SET rank = ?1 WHERE study = ? AND +destination = ? "
						    "AND state <> 2 AND rank > ?1");

	query_bind_int(&q, rank);
	query_bind_int(&q, study);
	query_bind_text(&q, destination, SIZE_MAX);
	return query_run(&q);
}

int store_add_delivery(struct store *s, int64_t study, unsigned revision, const char *kind,
		       const char *destination, enum store_rank rank, int64_t now)
{
	int r;

	r = change_begin(s);
	if (r < 0)
		return r;
	r = insert_delivery(s, study, revision, kind, destination, rank, now);
	if (r >= 0)
		r = hurry_earlier(s, study, destination, rank);
	return change_end(s, r);
}

/* ---- claim ---------------------------------------------------------------------------------- */

/* Two seeks, as for instances: fresh rows in order of id, then those that have come due again. */
static int find_due_of(struct store *s, const char *destination, enum store_rank rank, int64_t now, int64_t *ret_id)
{
	CLEANUP(query) struct query q =
		query_on(s, "SELECT min(id) FROM (SELECT * FROM ("
			    "SELECT id FROM delivery INDEXED BY delivery_next "
			    "WHERE state IN (0, 3) AND destination = ?1 AND rank = ?2 AND due = 0 ORDER BY id LIMIT 1) UNION ALL "
			    "SELECT min(id) FROM delivery INDEXED BY delivery_next "
			    "WHERE state IN (0, 3) AND destination = ?1 AND rank = ?2 AND due > 0 AND due <= ?3)");

	query_bind_text(&q, destination, SIZE_MAX);
	query_bind_int(&q, rank);
	query_bind_int(&q, now);
	return query_value(&q, ret_id);
}

/* The rank whose turn it is; then the more urgent ones before the others. */
static int find_due(struct store *s, const char *destination, int64_t now, int64_t *ret_id)
{
	enum store_rank first;
	int64_t turn;
	int r;

	r = turn_number(s, "delivery", destination, &turn);
	if (r < 0)
		return r;
	first = turn_first(turn);
	r = find_due_of(s, destination, first, now, ret_id);
	for (int rank = RANK_URGENT; r == -ENOENT && rank <= RANK_SLOW; rank++)
		if (rank != (int)first)
			r = find_due_of(s, destination, (enum store_rank)rank, now, ret_id);
	return r;
}

/* People may have mended the peer: a parked delivery starts with every class allowed. */
static int forget_refused_if_parked(struct store *s, int64_t id)
{
	CLEANUP(query) struct query q =
		query_on(s, "DELETE FROM refused WHERE delivery = ?1 AND "
			    "(SELECT state FROM delivery WHERE id = ?1) = 3");

	query_bind_int(&q, id);
	return query_run(&q);
}

static int claim(struct store *s, const char *destination, int64_t id, int64_t lease, struct delivery *ret)
{
	CLEANUP(query) struct query q =
		query_on(s, "UPDATE delivery SET state = 1, attempt = attempt + 1, token = token + 1, lease = ? "
			    "WHERE id = ? AND state IN (0, 3)");
	int r;

	r = forget_refused_if_parked(s, id);
	if (r >= 0)
		r = turn_count(s, "delivery", destination);
	if (r < 0)
		return r;
	query_bind_int(&q, lease);
	query_bind_int(&q, id);
	r = query_run_one(&q);
	if (r < 0)
		return r;
	return get_delivery(s, id, ret);
}

int store_next_delivery(struct store *s, const char *destination, int64_t now, int64_t lease,
			struct delivery *ret)
{
	struct delivery row;
	int64_t id;
	int r;

	r = find_due(s, destination, now, &id); /* before the transaction: most questions find nothing */
	if (r < 0)
		return r;
	r = change_begin(s);
	if (r < 0)
		return r;
	r = change_end(s, claim(s, destination, id, lease, &row));
	if (r < 0)
		return r;
	*ret = row;
	return 0;
}

/* ---- choose and reject ---------------------------------------------------------------------- */

/* The row as it is now, if the claim still holds. */
static int get_claimed(struct store *s, const struct delivery *claimed, struct delivery *ret)
{
	int r;

	r = get_delivery(s, claimed->id, ret);
	if (r < 0 && r != -ENOENT)
		return r;
	if (r < 0 || ret->state != DELIVERY_SENDING || ret->token != claimed->token)
		return store_refuse(s, -ESTALE, "the claim was lost");
	return 0;
}

static int check_candidate(struct store *s, const struct delivery *d, int64_t report)
{
	CLEANUP(query) struct query q =
		query_on(s, "SELECT 1 FROM report r WHERE r.id = ? AND r.study = ? AND r.revision = ? "
			    "AND r.kind = ? AND NOT EXISTS "
			    "(SELECT 1 FROM refused f WHERE f.delivery = ? AND f.report = r.id)");
	int64_t one;

	query_bind_int(&q, report);
	query_bind_int(&q, d->study);
	query_bind_int(&q, d->revision);
	query_bind_field(&q, d->kind);
	query_bind_int(&q, d->id);
	return query_value(&q, &one);
}

static int set_report(struct store *s, int64_t id, int64_t report)
{
	CLEANUP(query) struct query q =
		query_on(s, "UPDATE delivery SET report = nullif(?, 0) WHERE id = ?");

	query_bind_int(&q, report);
	query_bind_int(&q, id);
	return query_run_one(&q);
}

static int choose(struct store *s, const struct delivery *claimed, int64_t report)
{
	struct delivery d;
	int r;

	r = get_claimed(s, claimed, &d);
	if (r < 0)
		return r;
	if (d.report == report)
		return 0;
	if (d.report != 0)
		return store_refuse(s, -EEXIST, "another class was chosen before");
	r = check_candidate(s, &d, report);
	if (r == -ENOENT)
		return store_refuse(s, r, "no such report for this delivery, or it was refused");
	if (r < 0)
		return r;
	return set_report(s, d.id, report);
}

int store_choose_report(struct store *s, const struct delivery *claimed, int64_t report)
{
	int r;

	r = change_begin(s);
	if (r < 0)
		return r;
	return change_end(s, choose(s, claimed, report));
}

static int insert_refused(struct store *s, const struct delivery *d)
{
	CLEANUP(query) struct query q =
		query_on(s, "INSERT INTO refused (delivery, report) VALUES (?, ?) ON CONFLICT DO NOTHING");

	query_bind_int(&q, d->id);
	query_bind_int(&q, d->report);
	return query_run(&q);
}

static int reject(struct store *s, const struct delivery *claimed)
{
	struct delivery d;
	int r;

	r = get_claimed(s, claimed, &d);
	if (r < 0)
		return r;
	if (d.report == 0)
		return store_refuse(s, -ENOENT, "no class was chosen");
	r = insert_refused(s, &d);
	if (r < 0)
		return r;
	return set_report(s, d.id, 0);
}

int store_reject_report(struct store *s, const struct delivery *claimed)
{
	int r;

	r = change_begin(s);
	if (r < 0)
		return r;
	return change_end(s, reject(s, claimed));
}

/* ---- the ends of a claim -------------------------------------------------------------------- */

static int update_done(struct store *s, const struct delivery *claimed, int64_t now, int status,
		       const char *why)
{
	CLEANUP(query) struct query q =
		query_on(s, "UPDATE delivery SET state = 2, lease = 0, status = ?, why = ?, finished = ? "
			    "WHERE id = ? AND token = ? AND state = 1");

	query_bind_int(&q, status);
	query_bind_text(&q, why, STORE_WHY_MAX);
	query_bind_int(&q, now);
	query_bind_int(&q, claimed->id);
	query_bind_int(&q, claimed->token);
	return query_run_one(&q);
}

int store_close_delivery(struct store *s, const struct delivery *claimed, int64_t now, int status,
			 const char *why)
{
	int r;

	r = change_begin(s);
	if (r < 0)
		return r;
	return change_end(s, update_done(s, claimed, now, status, why));
}

static int update_deferred(struct store *s, const struct delivery *claimed, int64_t due, int status,
			   const char *why, unsigned permanent, bool uncount)
{
	CLEANUP(query) struct query q =
		query_on(s, "UPDATE delivery SET state = 0, lease = 0, due = ?, status = ?, why = ?, "
			    "permanent = ?, attempt = attempt - ? WHERE id = ? AND token = ? AND state = 1");

	query_bind_int(&q, due);
	query_bind_int(&q, status);
	query_bind_text(&q, why, STORE_WHY_MAX);
	query_bind_int(&q, permanent);
	query_bind_int(&q, uncount);
	query_bind_int(&q, claimed->id);
	query_bind_int(&q, claimed->token);
	return query_run_one(&q);
}

int store_defer_delivery(struct store *s, const struct delivery *claimed, int64_t due, int status,
			 const char *why, unsigned permanent, bool uncount)
{
	int r;

	r = change_begin(s);
	if (r < 0)
		return r;
	return change_end(s, update_deferred(s, claimed, due, status, why, permanent, uncount));
}

/* `permanent` stays: the daily try of a parked delivery that is refused once more parks it at once. */
static int update_parked(struct store *s, const struct delivery *claimed, int64_t due, int status,
			 const char *why)
{
	CLEANUP(query) struct query q =
		query_on(s, "UPDATE delivery SET state = 3, lease = 0, attempt = 0, due = ?, status = ?, why = ? "
			    "WHERE id = ? AND token = ? AND state = 1");

	query_bind_int(&q, due);
	query_bind_int(&q, status);
	query_bind_text(&q, why, STORE_WHY_MAX);
	query_bind_int(&q, claimed->id);
	query_bind_int(&q, claimed->token);
	return query_run_one(&q);
}

int store_park_delivery(struct store *s, const struct delivery *claimed, int64_t due, int status,
			const char *why)
{
	int r;

	r = change_begin(s);
	if (r < 0)
		return r;
	return change_end(s, update_parked(s, claimed, due, status, why));
}

/* ---- storage commitment ----------------------------------------------------------------------- */

static int update_awaiting(struct store *s, const struct delivery *claimed, int64_t due, int status, const char *why)
{
	CLEANUP(query) struct query q =
		query_on(s, "UPDATE delivery SET state = 0, lease = 0, due = ?, status = ?, why = ? "
			    "WHERE id = ? AND token = ? AND state = 1");

	query_bind_int(&q, due);
	query_bind_int(&q, status);
	query_bind_text(&q, why, STORE_WHY_MAX);
	query_bind_int(&q, claimed->id);
	query_bind_int(&q, claimed->token);
	return query_run_one(&q);
}

static int put_transaction(struct store *s, int64_t delivery, const char *transaction)
{
	CLEANUP(query) struct query q =
		query_on(s, "INSERT INTO commitment (delivery, transaction_uid, asked) VALUES (?, ?, 0) "
			    "ON CONFLICT (delivery) DO UPDATE SET transaction_uid = excluded.transaction_uid, "
			    "asked = excluded.asked");

	query_bind_int(&q, delivery);
	query_bind_text(&q, transaction, SIZE_MAX);
	return query_run(&q);
}

int store_await_commitment(struct store *s, const struct delivery *claimed, const char *transaction, int64_t due,
			   int status, const char *why)
{
	int r;

	r = change_begin(s);
	if (r < 0)
		return r;
	r = update_awaiting(s, claimed, due, status, why);
	if (r >= 0)
		r = put_transaction(s, claimed->id, transaction);
	return change_end(s, r);
}

static int update_asked(struct store *s, const struct delivery *d, int64_t now)
{
	CLEANUP(query) struct query q = query_on(s, "UPDATE commitment SET asked = ? WHERE delivery = ?");

	query_bind_int(&q, now);
	query_bind_int(&q, d->id);
	return query_run(&q);
}

int store_commitment_asked(struct store *s, const struct delivery *d, int64_t now)
{
	int r;

	r = change_begin(s);
	if (r < 0)
		return r;
	return change_end(s, update_asked(s, d, now));
}

int store_find_commitment(struct store *s, const char *destination, const char *transaction, const char *sop_uid,
			  struct delivery *ret)
{
	CLEANUP(query) struct query q =
		query_on(s, "SELECT d.id FROM commitment c JOIN delivery d ON d.id = c.delivery "
			    "JOIN report r ON r.id = d.report "
			    "WHERE c.transaction_uid = ? AND d.destination = ? AND r.sop_uid = ?");
	int64_t id;
	int r;

	query_bind_text(&q, transaction, SIZE_MAX);
	query_bind_text(&q, destination, SIZE_MAX);
	query_bind_text(&q, sop_uid, SIZE_MAX);
	r = query_value(&q, &id);
	if (r < 0)
		return r;
	return get_delivery(s, id, ret);
}

static int forget_transaction(struct store *s, int64_t delivery)
{
	CLEANUP(query) struct query q = query_on(s, "DELETE FROM commitment WHERE delivery = ?");

	query_bind_int(&q, delivery);
	return query_run(&q);
}

static int update_confirmed(struct store *s, const struct delivery *d, int64_t now, const char *why)
{
	CLEANUP(query) struct query q = query_on(s, "UPDATE delivery SET state = 2, why = ?, finished = ? "
						    "WHERE id = ? AND token = ? AND state IN (0, 3)");

	query_bind_text(&q, why, STORE_WHY_MAX);
	query_bind_int(&q, now);
	query_bind_int(&q, d->id);
	query_bind_int(&q, d->token);
	return query_run_one(&q);
}

int store_confirm_delivery(struct store *s, const struct delivery *d, int64_t now, const char *why)
{
	int r;

	r = change_begin(s);
	if (r < 0)
		return r;
	r = update_confirmed(s, d, now, why);
	if (r >= 0)
		r = forget_transaction(s, d->id);
	return change_end(s, r);
}

static int update_resent(struct store *s, const struct delivery *d, int64_t due, bool parked, const char *why,
			 unsigned permanent)
{
	CLEANUP(query) struct query q =
		query_on(s, "UPDATE delivery SET state = ?, due = ?, why = ?, permanent = ?, attempt = iif(?1 = 3, 0, attempt) "
			    "WHERE id = ? AND token = ? AND state IN (0, 3)");

	query_bind_int(&q, parked ? 3 : 0);
	query_bind_int(&q, due);
	query_bind_text(&q, why, STORE_WHY_MAX);
	query_bind_int(&q, permanent);
	query_bind_int(&q, d->id);
	query_bind_int(&q, d->token);
	return query_run_one(&q);
}

int store_resend_delivery(struct store *s, const struct delivery *d, int64_t due, bool parked, const char *why,
			  unsigned permanent)
{
	int r;

	r = change_begin(s);
	if (r < 0)
		return r;
	r = update_resent(s, d, due, parked, why, permanent);
	if (r >= 0)
		r = forget_transaction(s, d->id);
	return change_end(s, r);
}

/* ---- flush ---------------------------------------------------------------------------------- */

static int forget_refused(struct store *s, const char *destination)
{
	CLEANUP(query) struct query q =
		query_on(s, "DELETE FROM refused WHERE EXISTS (SELECT 1 FROM delivery d WHERE "
			    "d.id = refused.delivery AND d.state IN (0, 3) AND (?1 = '' OR d.destination = ?1))");

	query_bind_text(&q, destination, SIZE_MAX);
	return query_run(&q);
}

/* Fresh rows (due 0) are at once already. */
static int update_flushed(struct store *s, const char *destination)
{
	const char *sql = destination[0] == '\0' ?
		"UPDATE delivery INDEXED BY delivery_due SET state = 0, due = 0, attempt = 0, permanent = 0 "
		"WHERE state IN (0, 3) AND due > 0 AND NOT EXISTS (SELECT 1 FROM commitment c WHERE c.delivery = delivery.id)" :
		"UPDATE delivery INDEXED BY delivery_next SET state = 0, due = 0, attempt = 0, permanent = 0 "
		"WHERE state IN (0, 3) AND due > 0 AND destination = ? AND rank IN (0, 1, 2) AND NOT EXISTS (SELECT 1 FROM commitment c WHERE c.delivery = delivery.id)";
	CLEANUP(query) struct query q = query_on(s, sql);

	if (destination[0] != '\0')
		query_bind_text(&q, destination, SIZE_MAX);
	return query_run(&q);
}

int store_flush_deliveries(struct store *s, const char *destination, int64_t now, unsigned *ret_n)
{
	unsigned n = 0;
	int r;

	(void)now; /* "due now" is due 0, which needs no clock */
	r = change_begin(s);
	if (r < 0)
		return r;
	r = forget_refused(s, destination);
	if (r >= 0)
		r = update_flushed(s, destination);
	if (r >= 0)
		n = (unsigned)sqlite3_changes(s->db);
	r = change_end(s, r);
	if (r < 0)
		return r;
	*ret_n = n;
	return 0;
}

int delivery_clamp(struct store *s, int64_t latest)
{
	CLEANUP(query) struct query q = query_on(s, "UPDATE delivery INDEXED BY delivery_due SET due = ?1 "
						    "WHERE state IN (0, 3) AND due > ?1");

	query_bind_int(&q, latest);
	return query_run(&q);
}

/* Noted, and then killed: whether the peer was asked nobody knows. */
static int unasked_recover(struct store *s, int64_t now)
{
	CLEANUP(query) struct query q =
		query_on(s, "UPDATE delivery SET due = min(due, ?) WHERE state = 0 AND "
			    "id IN (SELECT delivery FROM commitment INDEXED BY commitment_unasked WHERE asked = 0)");

	query_bind_int(&q, now);
	return query_run(&q);
}

int delivery_recover(struct store *s, int64_t now, unsigned *n)
{
	CLEANUP(query) struct query q =
		query_on(s, "UPDATE delivery INDEXED BY delivery_claimed SET state = 0, lease = 0, "
			    "due = min(due, ?) WHERE state = 1");
	int r;

	query_bind_int(&q, now);
	r = query_run(&q);
	if (r < 0)
		return r;
	*n += (unsigned)sqlite3_changes(s->db);
	return unasked_recover(s, now);
}

/* ---- looking -------------------------------------------------------------------------------- */

int store_study_deliveries(struct store *s, int64_t study, struct delivery *ret, size_t max, size_t *ret_n)
{
	CLEANUP(query) struct query q = query_on(s, SELECT_DELIVERY "WHERE study = ? ORDER BY id");
	size_t n = 0;
	int r;

	query_bind_int(&q, study);
	for (; (r = query_step(&q)) > 0; n++)
		if (n < max)
			read_delivery(&q, &ret[n]);
	return query_listed(&q, r, n, max, ret_n);
}

int store_list_deliveries(struct store *s, int64_t after, struct delivery *ret, size_t max, size_t *ret_n)
{
	CLEANUP(query) struct query q =
		query_on(s, SELECT_DELIVERY "INDEXED BY delivery_open WHERE state <> 2 AND id > ? "
					    "ORDER BY id LIMIT ?");
	size_t n = 0;
	int r;

	query_bind_int(&q, after);
	query_bind_int(&q, (int64_t)max);
	while ((r = query_step(&q)) > 0)
		read_delivery(&q, &ret[n++]);
	if (r < 0)
		return r;
	*ret_n = n;
	return 0;
}

/* One seek for each rank. */
#define EARLIEST(rank) "ifnull((SELECT min(due) FROM delivery d INDEXED BY delivery_next WHERE d.state IN (0, 3) " \
		       "AND d.destination = t.destination AND d.rank = " rank "), 9223372036854775807)"

int store_destinations(struct store *s, struct destination *ret, size_t max, size_t *ret_n)
{
	CLEANUP(query) struct query q =
		query_on(s, "SELECT destination, min(" EARLIEST("0") ", " EARLIEST("1") ", " EARLIEST("2") "), "
			    "sum(iif(state = 0, n, 0)), sum(iif(state = 3, n, 0)) FROM tally t "
			    "WHERE what = 'delivery' AND state IN (0, 3) AND n > 0 GROUP BY destination LIMIT ?");
	size_t n = 0;
	int r;

	query_bind_int(&q, (int64_t)max);
	for (; (r = query_step(&q)) > 0; n++) {
		query_field(&q, ret[n].ae_title);
		ret[n].due = query_int(&q);
		ret[n].queued = (unsigned)query_int(&q);
		ret[n].parked = (unsigned)query_int(&q);
	}
	if (r < 0)
		return r;
	*ret_n = n;
	return 0;
}
