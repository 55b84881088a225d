/* pool.h: memory in which tables are laid out once, block after block, and the file that keeps them.
 *
 * A pool is either new: pool_take() gives memory to be filled, on huge pages where the kernel grants
 * them, since a picture streams through all of it.  Or it is the file of one that was filled before:
 * then pool_take() gives the same blocks in the same order, filled and read-only, in memory that all
 * processes with that file share.  So one function lays a thing out and takes it up again: it asks
 * pool_filled() whether there is anything to compute.
 *
 * A block carries a tag: the taker's word for what is in it.  A file whose next block has another size
 * or tag is not what the taker would make; that pool has failed (pool_whole()), and the taker starts
 * anew with another one.
 */
#ifndef CARZEROD_MODEL_POOL_H
#define CARZEROD_MODEL_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/digest.h"
#include "base/err.h"

#define POOL_ALIGNMENT 64 /* of a block: a cache line, a vector */

struct pool;

struct pool *pool_new(void);
/* The file that pool_write() made under this key, of at most `max` bytes; `name` is for errors.  All of it
 * is read and checked here, by read(): a block that the disk cannot give back is an error and not a
 * signal.  -EBADMSG, -E2BIG, or what reading said. */
int pool_map(int fd, const uint8_t key[DIGEST_SIZE], uint64_t max, const char *name, struct pool **ret,
	     struct err *e);
void pool_free(struct pool *p); /* NULL allowed */

bool pool_filled(const struct pool *p);
/* n bytes; a new pool's are zero.  NULL: no memory, or a file that has something else there. */
void *pool_take(struct pool *p, size_t n, uint64_t tag);
/* A filled pool's next block, whatever it is: its tag and size; NULL behind the last. */
const void *pool_next(struct pool *p, uint64_t *ret_tag, size_t *ret_n);
void pool_rewind(struct pool *p); /* to its first block */
/* Makes *table, of n floats, the pool's copy of it.  False as pool_take(). */
bool pool_keep(struct pool *p, const float **table, size_t n);
/* Nothing was refused, and a filled pool has no block left. */
bool pool_whole(const struct pool *p);

/* Bytes that pool_write() will write. */
uint64_t pool_file_size(const struct pool *p);
/* Writes a new pool's blocks from the start of `fd`.  Nothing is synced. */
int pool_write(const struct pool *p, int fd, const uint8_t key[DIGEST_SIZE]);

#endif
