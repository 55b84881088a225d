/* retention.c: what is done with goes, a little in every turn.
 *
 * The store decides what may go (store/retention.c): the row goes first and dooms the file; after
 * that commit, in a later turn, the file is unlinked, its directory synced with the turn's others,
 * and the doom forgotten.  A turn takes at most FILES_A_TURN files, so a backlog of a million costs
 * nobody's answer; a crash in the middle is finished by retention_recover() at the next start.
 *
 * After the wall clock jumped ahead nothing goes for a day: an age may be an error of the clock.
 */
#include <errno.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include "daemon/keeper.h"

#define FILES_A_TURN 64
#define STEP_MS 50
#define LOOK_MS 10000 /* or more often, where things are kept for less than minutes */
#define LOOK_MIN_MS 250

/* Unlinks at most FILES_A_TURN; the caller syncs the spool and commits. */
static size_t unlink_doomed(struct keeper *k)
{
	struct doomed d[FILES_A_TURN];
	size_t n = 0, i;

	keeper_must(k, store_list_doomed(k->store, d, ARRAY_SIZE(d), &n), "list what goes");
	for (i = 0; i < n; i++) {
		keeper_must(k, spool_remove(k->spool, (enum spool_box)d[i].box, d[i].file), "remove a file");
		keeper_must(k, store_forget_doomed(k->store, &d[i]), "forget a file");
	}
	return n;
}

void retention_recover(struct keeper *k)
{
	size_t n, total = 0;

	do {
		keeper_must(k, store_begin(k->store), "begin to remove files");
		n = unlink_doomed(k);
		keeper_must(k, spool_sync(k->spool), "sync the spool");
		keeper_must(k, store_commit(k->store), "commit removed files");
		total += n;
	} while (n > 0);
	if (total > 0)
		log_info("recovery: %zu files removed whose removal was under way", total);
}

static void expire(struct keeper *k, size_t *ret_n)
{
	struct removal what;
	const struct config *c = k->config;
	struct retention before = { .images = k->now - c->retention_images_ms,
					  .failed = k->now - c->retention_failed_ms,
					  .rows = k->now - c->retention_reports_ms };

	*ret_n = 0;
	if (k->purge_before > before.rows) /* an operator knows what the time is */
		before.rows = k->purge_before;
	else if (k->boot < k->retention_hold)
		return;
	keeper_must(k, store_expire(k->store, &before, FILES_A_TURN, ret_n, &what), "let expire");
	if (*ret_n > 0)
		audit_expired(k, &what);
	if (*ret_n == 0)
		k->purge_before = 0;
}

static int64_t look_ms(const struct config *c)
{
	int64_t age = c->retention_images_ms < c->retention_failed_ms ? c->retention_images_ms : c->retention_failed_ms;

	return age / 10 > LOOK_MS ? LOOK_MS : age / 10 < LOOK_MIN_MS ? LOOK_MIN_MS : age / 10;
}

void retention_turn(struct keeper *k)
{
	size_t removed, expired;

	if (k->boot < k->retention_at)
		return;
	removed = unlink_doomed(k);
	expire(k, &expired);
	k->expired += expired;
	k->retention_at = k->boot + (removed + expired > 0 ? STEP_MS : look_ms(k->config));
}
