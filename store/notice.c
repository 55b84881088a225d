/* notice.c: messages for hooks (webhooks, mail), kept until they are out.
 *
 * Promise: a notice that was added is there until it was taken or given up; one key of one hook is one
 * notice, for ever as far as this table reaches (the newest 10,000), so that a repeat after a crash
 * tells nobody twice.
 */
#include <errno.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

#include "store/store-private.h"

static int insert_notice(struct store *s, const struct notice *n)
{
	CLEANUP(query) struct query q =
		query_on(s, "INSERT INTO notice (hook, event, key, body, due, created) VALUES (?, ?, ?, ?, 0, ?) "
			    "ON CONFLICT (hook, key) DO NOTHING");

	query_bind_field(&q, n->hook);
	query_bind_field(&q, n->event);
	query_bind_field(&q, n->key);
	query_bind_field(&q, n->body);
	query_bind_int(&q, n->created);
	return query_run(&q);
}

int store_add_notice(struct store *s, const struct notice *n)
{
	int r;

	r = change_begin(s);
	if (r < 0)
		return r;
	return change_end(s, insert_notice(s, n));
}

int store_next_notice(struct store *s, const char *hook, int64_t now, struct notice *ret)
{
	CLEANUP(query) struct query q =
		query_on(s, "UPDATE notice SET attempt = attempt + 1, due = ?3 WHERE id = (SELECT id FROM notice "
			    "INDEXED BY notice_waiting WHERE hook = ?1 AND ended = 0 AND due <= ?2 ORDER BY id LIMIT 1) "
			    "RETURNING id, event, key, body, attempt, created");
	int r;

	query_bind_text(&q, hook, STORE_HOOK_MAX);
	query_bind_int(&q, now);
	query_bind_int(&q, now + STORE_NOTICE_LEASE_MS); /* should nobody say how it went */
	r = query_step(&q);
	if (r < 0)
		return r;
	if (r == 0)
		return -ENOENT;
	(void)str_copy(ret->hook, sizeof(ret->hook), hook);
	ret->id = query_int(&q);
	query_field(&q, ret->event);
	query_field(&q, ret->key);
	query_field(&q, ret->body);
	ret->attempt = (unsigned)query_int(&q);
	ret->created = query_int(&q);
	return query_run(&q);
}

static int set_notice(struct store *s, int64_t id, int64_t due, int64_t ended)
{
	CLEANUP(query) struct query q = query_on(s, "UPDATE notice SET due = ?2, ended = ?3 WHERE id = ?1");

	query_bind_int(&q, id);
	query_bind_int(&q, due);
	query_bind_int(&q, ended);
	return query_run(&q); /* a row that is gone was one of too many */
}

int store_defer_notice(struct store *s, int64_t id, int64_t due)
{
	int r;

	r = change_begin(s);
	if (r < 0)
		return r;
	return change_end(s, set_notice(s, id, due, 0));
}

int store_end_notice(struct store *s, int64_t id, int64_t now)
{
	int r;

	r = change_begin(s);
	if (r < 0)
		return r;
	return change_end(s, set_notice(s, id, 0, now));
}

/* What an earlier run was telling, or had put off, is due: nobody says any more how it went, a start is a good
 * moment to try again, and an urgent notice does not wait for a lease. */
int notice_recover(struct store *s, int64_t now)
{
	CLEANUP(query) struct query q =
		query_on(s, "UPDATE notice INDEXED BY notice_waiting SET due = ?1 WHERE hook > '' AND ended = 0 AND due > ?1");

	query_bind_int(&q, now);
	return query_run(&q);
}

int store_notices_due(struct store *s, const char *hook, int64_t *ret_due, uint64_t *ret_waiting)
{
	CLEANUP(query) struct query q = query_on(s, "SELECT min(due), count(*) FROM notice INDEXED BY notice_waiting "
						    "WHERE hook = ? AND ended = 0");
	int r;

	query_bind_text(&q, hook, STORE_HOOK_MAX);
	r = query_step(&q);
	if (r < 0)
		return r;
	*ret_due = query_int(&q);
	*ret_waiting = (uint64_t)query_int(&q);
	if (*ret_waiting == 0)
		*ret_due = INT64_MAX;
	return 0;
}
