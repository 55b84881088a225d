/* facts.c: what lies beside every report so that it explains itself: spool/facts/XX/ID.
 *
 * The first part are the rows behind one revision of a study's report (store/facts.c), written and synced
 * before the transaction that records the report; then a line for each delivery that a destination
 * has accepted, appended and synced before the transaction that closes it.  Nothing reads them as long
 * as the database is whole.  When it is older than the spool, or gone, they say what was reported and
 * what need not be sent again.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fdio.h"
#include "base/log.h"
#include "base/mem.h"

#include "daemon/keeper.h"

#define FACTS_BYTES_MAX (64 << 20)

static int write_file(struct keeper *k, const void *bytes, size_t n, uint64_t *ret_id)
{
	CLEANUP(close) int fd = spool_create(k->spool, ret_id);
	int r;

	if (fd < 0)
		return fd;
	r = write_full(fd, bytes, n);
	if (r == 0 && fsync(fd) < 0)
		fatal(FATAL_IO, "fsync of a report's facts: %s; the node stops, restart recovers", strerror(errno));
	if (r == 0)
		r = spool_move(k->spool, *ret_id, SPOOL_INCOMING, SPOOL_FACTS);
	if (r < 0)
		(void)spool_remove(k->spool, SPOOL_INCOMING, *ret_id);
	return r;
}

void facts_write(struct keeper *k, int64_t study, unsigned revision)
{
	CLEANUP(free) void *bytes = NULL;
	uint64_t id = 0;
	size_t n = 0;
	int r = store_export_facts(k->store, study, revision, &bytes, &n);

	if (r == 0)
		r = write_file(k, bytes, n, &id);
	if (r == 0)
		r = store_set_facts(k->store, study, revision, id);
	keeper_must(k, r, "write a report's facts");
}

void facts_delivered(struct keeper *k, const struct delivery *d, int status)
{
	char sop_uid[UID_MAX], line[256];
	uint64_t file = 0;
	int n, fd, r = store_delivery_facts(k->store, d->id, &file, sop_uid);

	if (r == -ENOENT)
		return; /* of a report that an older program made */
	keeper_must(k, r, "find a report's facts");
	fd = spool_append(k->spool, SPOOL_FACTS, file);
	if (fd == -ENOENT)
		return; /* removed by hand: it only costs a repeat after a rebuild */
	keeper_must(k, fd, "open a report's facts");
	if (fd < 0)
		return;
	n = snprintf(line, sizeof(line), "\ndelivered\t%s\t%s\t%d\t%" PRId64 "\n", sop_uid, d->destination, status, k->now);
	r = write_full(fd, line, (size_t)n);
	if (r == 0 && fsync(fd) < 0)
		fatal(FATAL_IO, "fsync of a report's facts: %s; the node stops, restart recovers", strerror(errno));
	(void)close(fd); /* synced */
	keeper_must(k, r, "add to a report's facts");
}

/* ---- the way back ----------------------------------------------------------------------------------------- */

/* SQLite's file format, 1.3: page size at 16, number of pages at 28, big endian. */
static size_t database_bytes(const uint8_t *p, size_t n)
{
	uint64_t page, pages;

	if (n < 100 || memcmp(p, "SQLite format 3", 16) != 0)
		return 0;
	page = (uint64_t)p[16] << 8 | p[17];
	pages = (uint64_t)p[28] << 24 | (uint64_t)p[29] << 16 | (uint64_t)p[30] << 8 | p[31];
	return page * pages <= n ? (size_t)(page * pages) : 0;
}

/* A line that a crash cut short lacks its end. */
static void take_lines(struct keeper *k, char *text, const char *end)
{
	char *next, sop_uid[UID_MAX], destination[AE_TITLE_MAX];
	int status;
	int64_t at;

	for (; text < end && (next = memchr(text, '\n', (size_t)(end - text))) != NULL; text = next + 1) {
		*next = '\0';
		if (sscanf(text, "delivered\t%64[0-9.]\t%16[^\t]\t%d\t%" SCNd64, sop_uid, destination, &status, &at) == 4)
			keeper_must(k, store_restore_delivered(k->store, sop_uid, destination, status, at), "restore a delivery");
	}
}

struct facts_scan {
	struct keeper *k;
	unsigned taken, removed;
};

static int take_one(uint64_t id, void *arg)
{
	struct facts_scan *scan = arg;
	struct keeper *k = scan->k;
	CLEANUP(close) int fd = -1;
	CLEANUP(free) void *bytes = NULL;
	bool named = false;
	size_t n = 0, database;
	int r = store_named_facts(k->store, id, &named);

	keeper_must(k, r, "look for a report's facts");
	if (named)
		return 0;
	fd = spool_read(k->spool, SPOOL_FACTS, id);
	r = fd < 0 ? fd : read_file(fd, FACTS_BYTES_MAX, &bytes, &n);
	database = r == 0 ? database_bytes(bytes, n) : 0;
	r = database > 0 ? store_import_facts(k->store, bytes, database, id) : -EBADMSG;
	if (r == 0) {
		take_lines(k, (char *)bytes + database, (char *)bytes + n);
		scan->taken++;
		return 0;
	}
	if (r == -EBADMSG) {
		log_error("facts %016" PRIx64 " cannot be read (%s): moved to quarantine/", id,
			  database > 0 ? store_error(k->store) : "not a database");
		return spool_move(k->spool, id, SPOOL_FACTS, SPOOL_QUARANTINE);
	}
	if (r != -EEXIST)
		keeper_must(k, r, "take a report's facts");
	scan->removed++; /* its report was made once more, by another file */
	return spool_remove(k->spool, SPOOL_FACTS, id);
}

void facts_recover(struct keeper *k)
{
	struct facts_scan scan = { .k = k };

	keeper_must(k, spool_scan(k->spool, SPOOL_FACTS, take_one, &scan, NULL), "read the facts of reports");
	if (scan.taken + scan.removed > 0)
		log_warning("recovery: %u reports known again by their facts, %u facts of no report removed", scan.taken,
			    scan.removed);
}
