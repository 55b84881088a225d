/* spool.h: files by number, in six boxes, durable when spool_sync() has said so.
 *
 *	STATE/spool/incoming/ID          being written by a receiver or by an image worker
 *	STATE/spool/objects/XX/ID        whole DICOM files, named by a row (XX = first two digits of ID)
 *	STATE/spool/reports/XX/ID        what we made, named by a row
 *	STATE/spool/facts/XX/ID          what explains a report without the database, named by its row
 *	STATE/spool/embeddings/XX/ID     what the network made of an object (embedding.h), named by its row
 *	STATE/spool/quarantine/ID        objects that recovery found without a row, kept for a person
 *
 * ID is 16 lower-case hex digits of a 63-bit number, random but for XX, which a few hundred files in a row share: a name never
 * contains a peer's bytes.
 * Every path is opened relative to a directory descriptor, with O_NOFOLLOW | O_CLOEXEC, mode 0600 (directories 0700).
 *
 * Durability, in this order and nowhere else: whoever writes a file fsyncs it; spool_move() renames
 * (never over an existing file) and remembers the two directories; spool_sync() fsyncs every
 * directory touched since the last call; only then may the database commit a row that names the
 * file.  A failed fsync is reported once and is fatal to the caller (the kernel forgets the pages).
 *
 * Not here: what a file contains, which row names it, when it may go.
 */
#ifndef CARZEROD_STORE_SPOOL_H
#define CARZEROD_STORE_SPOOL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum spool_box { SPOOL_INCOMING, SPOOL_OBJECTS, SPOOL_REPORTS, SPOOL_QUARANTINE, SPOOL_FACTS, SPOOL_EMBEDDINGS, SPOOL_BOX_COUNT };

struct spool;

/* Opens STATE/spool, making (and fsyncing) what is missing.  *ret is closed by spool_close(). */
int spool_open(const char *state_dir, struct spool **ret, struct err *e);
void spool_close(struct spool *s); /* NULL allowed */

/* Makes a new empty file in SPOOL_INCOMING; returns a write-only descriptor (the caller's) or a
 * negative errno. */
int spool_create(struct spool *s, uint64_t *ret_id);

/* Returns a read-only descriptor (the caller's), or -ENOENT and the like. */
int spool_read(struct spool *s, enum spool_box box, uint64_t id);

/* A descriptor (the caller's) that writes at the end of a file that is there. */
int spool_append(struct spool *s, enum spool_box box, uint64_t id);

/* rename without replacement; -EEXIST, -ENOENT.  Not durable before spool_sync(). */
int spool_move(struct spool *s, uint64_t id, enum spool_box from, enum spool_box to);

/* unlink; a file that is not there is 0.  Not durable before spool_sync(). */
int spool_remove(struct spool *s, enum spool_box box, uint64_t id);

/* fsyncs the directories touched since the last call.  An error here is the caller's fatal(). */
int spool_sync(struct spool *s);

/* Calls `each` for every well-named file of a box, in no order, until it returns non-zero, which is
 * then returned.  Files with foreign names are counted in *ret_strangers (may be NULL) and left alone. */
int spool_scan(struct spool *s, enum spool_box box, int (*each)(uint64_t id, void *arg), void *arg,
	       unsigned *ret_strangers);

struct spool_space {
	uint64_t free_bytes; /* for us, not for root */
	uint64_t total_bytes;
	uint64_t free_inodes;
	uint64_t total_inodes;
};
int spool_space(struct spool *s, struct spool_space *ret);

#endif
