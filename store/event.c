/* event.c: what happened, for people who ask why.
 *
 * Job: append to a bounded history of each study and of the node, and read it back.
 *
 * Promise: the same again in a row is counted, not repeated; the oldest go when there are too many
 * (the triggers of schema-2.sql); an event of a study that is gone is dropped without an error.
 *
 * Never: decides anything; no other file of the store reads these rows.
 */
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

#include "store/store-private.h"

/* 1 when the newest event of this study (or of the node) is the same one and was counted. */
static int count_again(struct store *s, int64_t study, int64_t now, enum event_kind kind, const char *text)
{
	CLEANUP(query) struct query q =
		query_on(s, "UPDATE event SET n = n + 1, last = ?2 WHERE kind = ?3 AND text = ?4 AND id = "
			    "(SELECT id FROM event WHERE study IS nullif(?1, 0) ORDER BY id DESC LIMIT 1)");
	int r;

	query_bind_int(&q, study);
	query_bind_int(&q, now);
	query_bind_int(&q, kind);
	query_bind_text(&q, text, STORE_EVENT_MAX);
	r = query_run(&q);
	if (r < 0)
		return r;
	return sqlite3_changes(s->db) > 0;
}

static int insert_event(struct store *s, int64_t study, int64_t now, enum event_kind kind, const char *text)
{
	CLEANUP(query) struct query q =
		query_on(s, "INSERT INTO event (study, kind, first, last, text) SELECT nullif(?1, 0), ?3, ?2, ?2, ?4 "
			    "WHERE ?1 = 0 OR EXISTS (SELECT 1 FROM study WHERE id = ?1)");

	query_bind_int(&q, study);
	query_bind_int(&q, now);
	query_bind_int(&q, kind);
	query_bind_text(&q, text, STORE_EVENT_MAX);
	return query_run(&q);
}

int store_add_event(struct store *s, int64_t study, int64_t now, enum event_kind kind, const char *text)
{
	int r;

	r = change_begin(s);
	if (r < 0)
		return r;
	r = count_again(s, study, now, kind, text);
	if (r == 0)
		r = insert_event(s, study, now, kind, text);
	return change_end(s, r < 0 ? r : 0);
}

int store_list_events(struct store *s, int64_t study, struct event *ret, size_t max, size_t *ret_n)
{
	CLEANUP(query) struct query q =
		query_on(s, "SELECT * FROM (SELECT id, kind, first, last, n, text FROM event WHERE study IS nullif(?1, 0) "
			    "ORDER BY id DESC LIMIT ?2) ORDER BY id");
	size_t n = 0;
	int r;

	query_bind_int(&q, study);
	query_bind_int(&q, (int64_t)max);
	while ((r = query_step(&q)) > 0) {
		struct event *e = &ret[n++];

		e->id = query_int(&q);
		e->kind = (enum event_kind)query_int(&q);
		e->first = query_int(&q);
		e->last = query_int(&q);
		e->n = (unsigned)query_int(&q);
		query_field(&q, e->text);
	}
	if (r < 0)
		return r;
	*ret_n = n;
	return 0;
}
