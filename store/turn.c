/* turn.c: who is served first when several sorts of work wait: today's urgent reports, routine ones, the slow lane.
 *
 * Job: counts the claims of each sort, durably, and says what the next one is for.
 *
 * Promise: of any 4 claims in a row that one destination's deliveries get, one is for the oldest routine
 * report; of any 16, one is for the slow lane, and so for images and studies.  So a routine report that
 * has n older ones before it goes out with the 4 (n + 1)th claim at the latest, whatever comes in the
 * meantime, and what waits in the slow lane with the 16 (n + 1)th.  The count is in the database: a node
 * that dies after every second claim keeps the promise too.
 *
 * Never: looks at what waits.  A claim whose turn finds nothing takes the next best.
 */
#include <errno.h>

#include "base/mem.h"

#include "store/store-private.h"

enum store_rank turn_first(int64_t n)
{
	if (n % STORE_SLOW_EVERY == STORE_SLOW_EVERY / 2) /* never the routine's turn */
		return RANK_SLOW;
	if (n % STORE_ROUTINE_EVERY == STORE_ROUTINE_EVERY - 1)
		return RANK_ROUTINE;
	return RANK_URGENT;
}

int turn_number(struct store *s, const char *what, const char *destination, int64_t *ret)
{
	CLEANUP(query) struct query q = query_on(s, "SELECT n FROM turn WHERE what = ? AND destination = ?");
	int r;

	query_bind_text(&q, what, SIZE_MAX);
	query_bind_text(&q, destination, SIZE_MAX);
	*ret = 0;
	r = query_value(&q, ret);
	return r == -ENOENT ? 0 : r;
}

int turn_find(struct store *s, const char *what, turn_finder *find, int64_t now, int64_t *ret_id)
{
	int64_t turn;
	bool slow;
	int r;

	r = turn_number(s, what, "", &turn);
	if (r < 0)
		return r;
	slow = turn_first(turn) == RANK_SLOW;
	r = find(s, slow, now, ret_id);
	return r == -ENOENT ? find(s, !slow, now, ret_id) : r;
}

int turn_count(struct store *s, const char *what, const char *destination)
{
	CLEANUP(query) struct query q =
		query_on(s, "INSERT INTO turn (what, destination, n) VALUES (?, ?, 1) "
			    "ON CONFLICT (what, destination) DO UPDATE SET n = n + 1");

	query_bind_text(&q, what, SIZE_MAX);
	query_bind_text(&q, destination, SIZE_MAX);
	return query_run(&q);
}
