/* cache.h: a folder of things that were computed and can be computed again.
 *
 * A file is named KEY.KIND.  The key is a digest of everything that its content follows from: the inputs,
 * this program, its libraries, this processor; so another program, CPU or model finds nothing, and never
 * something wrong.  A file that is damaged is a miss: it is removed and made again.  Files come
 * whole or not at all (written aside, synced, renamed), and of each kind the CACHE_KEPT last
 * used stay.  The folder may be emptied at any time.
 *
 * Processes that want the same thing wait for each other (cache_lock()): one computes, the others map.
 */
#ifndef CARZEROD_MODEL_CACHE_H
#define CARZEROD_MODEL_CACHE_H

#include "base/digest.h"
#include "base/err.h"

#include "model/pool.h"

#define CACHE_KEPT 2 /* of a kind: the present model's, and one beside it while a reload tries another */
#define CACHE_FILE_MAX ((uint64_t)8 << 30)
#define CACHE_ENTRIES_MAX 4096 /* of the folder, looked at */

struct cache;

/* The folder must be there.  A file is only written when `spare` bytes stay free on its disk besides it. */
int cache_open(const char *folder, uint64_t spare, struct cache **ret, struct err *e);
void cache_close(struct cache *c); /* NULL allowed */

/* What every key begins with: this program's file, the processor, `libraries`. */
int cache_key_begin(struct digest *d, const char *libraries, struct err *e);

/* -ENOENT: not there.  Any other code: it was not usable and is gone, and the text says why. */
int cache_get(struct cache *c, const char *kind, const uint8_t key[DIGEST_SIZE], struct pool **ret,
	      struct err *e);
/* Keeps a new pool's blocks. */
int cache_put(struct cache *c, const char *kind, const uint8_t key[DIGEST_SIZE], const struct pool *p,
	      struct err *e);

/* Waits.  Where the disk does not lock, everybody computes. */
void cache_lock(struct cache *c);
void cache_unlock(struct cache *c);

#endif
