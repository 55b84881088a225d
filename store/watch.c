/* watch.c: what those ask who watch the node, and the memory of the drift monitor.
 *
 * Nothing of the node's work depends on an answer from here.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "base/str.h"

#include "store/store-private.h"

int store_outbox(struct store *s, const char *destination, struct outbox *ret)
{
	CLEANUP(query) struct query counts =
		query_on(s, "SELECT sum(iif(state IN (0, 1), n, 0)), sum(iif(state = 3, n, 0)), sum(iif(state = 2, n, 0)) "
			    "FROM tally WHERE what = 'delivery' AND destination = ?");
	CLEANUP(query) struct query first =
		query_on(s, "SELECT created FROM delivery INDEXED BY delivery_waiting "
			    "WHERE destination = ? AND state <> 2 ORDER BY id LIMIT 1");
	int64_t oldest = 0;
	int r;

	query_bind_text(&counts, destination, AE_TITLE_MAX);
	r = query_step(&counts);
	if (r < 0)
		return r;
	ret->waiting = (uint64_t)query_int(&counts); /* NULL, of no rows, is 0 */
	ret->parked = (uint64_t)query_int(&counts);
	ret->done = (uint64_t)query_int(&counts);
	query_bind_text(&first, destination, AE_TITLE_MAX);
	r = query_value(&first, &oldest);
	if (r < 0 && r != -ENOENT)
		return r;
	ret->oldest = r == -ENOENT ? 0 : oldest;
	return 0;
}

uint64_t store_log_bytes(struct store *s)
{
	struct stat st;

	return stat(sqlite3_filename_wal(sqlite3_db_filename(s->db, "main")), &st) == 0 ? (uint64_t)st.st_size : 0;
}

int store_study_received(struct store *s, int64_t study, int64_t *ret)
{
	CLEANUP(query) struct query q =
		query_on(s, "SELECT max(received) FROM instance INDEXED BY instance_by_study WHERE study = ?");

	query_bind_int(&q, study);
	return query_value(&q, ret);
}

static int put_drift(struct store *s, const char *source, const uint8_t key[DIGEST_SIZE], const void *state, size_t n)
{
	CLEANUP(query) struct query q =
		query_on(s, "INSERT INTO drift (source, key, state) VALUES (?, ?, ?) "
			    "ON CONFLICT (source) DO UPDATE SET key = excluded.key, state = excluded.state");

	query_bind_text(&q, source, AE_TITLE_MAX);
	query_bind_blob(&q, key, DIGEST_SIZE);
	query_bind_blob(&q, state, n);
	return query_run(&q);
}

int store_put_drift(struct store *s, const char *source, const uint8_t key[DIGEST_SIZE], const void *state, size_t n)
{
	int r;

	r = change_begin(s);
	if (r < 0)
		return r;
	return change_end(s, put_drift(s, source, key, state, n));
}

int store_each_drift(struct store *s, const uint8_t key[DIGEST_SIZE],
		     void (*each)(const char *source, const void *state, size_t n, void *arg), void *arg)
{
	CLEANUP(query) struct query q = query_on(s, "SELECT source, state FROM drift WHERE key = ?");
	char source[AE_TITLE_MAX];
	int r;

	query_bind_blob(&q, key, DIGEST_SIZE);
	while ((r = query_step(&q)) > 0) {
		query_field(&q, source);
		each(source, sqlite3_column_blob(q.st, 1), (size_t)sqlite3_column_bytes(q.st, 1), arg);
	}
	return r;
}
