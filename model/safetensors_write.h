/* safetensors_write.h: writes a safetensors file as a stream, whole or not at all.
 *
 * Layout: 8 bytes little-endian header length, JSON header padded with blanks so that the data begin
 * at a multiple of 64, then float32 tensors without gaps.  Tensors whose size is not a multiple of 64
 * bytes go last, so that all others are 64-byte aligned; otherwise the given order is kept.  The same
 * entries, metadata and data give the same bytes.
 *
 * The file is written under a temporary name in the same directory, synced, renamed, and the
 * directory synced; until safetensors_write_commit() returns 0 the final name does not exist (or still
 * is the old file).  Memory use does not depend on the size of the tensors.
 */
#ifndef CARZEROD_MODEL_SAFETENSORS_WRITE_H
#define CARZEROD_MODEL_SAFETENSORS_WRITE_H

#include <stddef.h>
#include <stdint.h>

#include "base/digest.h"
#include "base/err.h"

#define SAFETENSORS_ALIGN 64
#define SAFETENSORS_NAME_MAX 256

struct safetensors_entry {
	const char *name;
	size_t rank;
	const size_t *shape; /* [rank] */
};

struct safetensors_meta {
	const char *key, *value; /* plain text: escaped as JSON */
};

struct safetensors_writer;

/* The order in which the data must come: ret_order[i] is the index of the i-th entry in the file. */
int safetensors_order(const struct safetensors_entry *entries, size_t n, size_t *ret_order, struct err *e);

/* Entries and metadata are only used during the call. */
int safetensors_write_open(int dir, const char *name, const struct safetensors_entry *entries, size_t n,
			   const struct safetensors_meta *meta, size_t n_meta, struct safetensors_writer **ret,
			   struct err *e);
/* The next bytes of data, in file order, little-endian float32. */
int safetensors_write_data(struct safetensors_writer *w, const void *p, size_t n, struct err *e);
/* -EINVAL when bytes are missing.  ret_digest: SHA-256 of the file. */
int safetensors_write_commit(struct safetensors_writer *w, uint8_t ret_digest[DIGEST_SIZE], struct err *e);
/* Removes the temporary file unless committed.  NULL allowed. */
void safetensors_write_close(struct safetensors_writer *w);

#endif
