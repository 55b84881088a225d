/* weights.h: tensors by name from a safetensors file, mapped read-only and never trusted.
 *
 * The file: 8 bytes little-endian header length, a JSON header {"name": {"dtype", "shape",
 * "data_offsets": [begin, end]}, ..., "__metadata__": {...}}, then the data.  Everything the header
 * says is checked at open, used or not: types, shapes against byte counts, bounds, and that the
 * tensors tile the data without gap or overlap.  After a successful open no lookup can reach outside
 * the file.
 *
 * weights_get() hands out float32.  An F32 tensor is a pointer into the mapping; F16 and BF16 are
 * widened into memory of ours, and so is an F32 tensor that is not aligned.  Pointers live until
 * weights_close().
 *
 * Never here: which tensors a network needs (vit, bert, fusion), or writing.
 */
#ifndef CARZEROD_MODEL_WEIGHTS_H
#define CARZEROD_MODEL_WEIGHTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/digest.h"
#include "base/err.h"

#define WEIGHTS_HEADER_MAX (4 * 1024 * 1024) /* the published model's header is 60 KB */
#define WEIGHTS_TENSORS_MAX 8192
#define WEIGHTS_RANK_MAX 8
#define WEIGHTS_NAME_MAX 192

struct weights;

/* An error names the file, the tensor, what was found and what is expected. */
int weights_open(const char *path, struct weights **ret, struct err *e);
/* The same on memory that the caller keeps until weights_close(); `name` is what errors call it. */
int weights_open_memory(const void *p, size_t n, const char *name, struct weights **ret,
			struct err *e);
void weights_close(struct weights *w); /* NULL allowed */

/* Gives the memory of a mapped file back to the kernel: what is read again comes from the file. */
void weights_rest(const struct weights *w);

const char *weights_name(const struct weights *w); /* as it was opened */
/* SHA-256 of the whole file. */
void weights_digest(const struct weights *w, uint8_t ret[DIGEST_SIZE]);

#define WEIGHTS_STAMP 6
/* Which file it was when it was opened: another one, or one that was written to since, has other numbers. */
void weights_stamp(const struct weights *w, uint64_t ret[WEIGHTS_STAMP]);

bool weights_has(const struct weights *w, const char *name);
/* Both there, of one type and shape, and equal to the last bit. */
bool weights_same(const struct weights *w, const char *a, const char *b);
/* Name and shape of tensor i, in the file's order; NULL from the last on. */
const char *weights_at(const struct weights *w, size_t i, const size_t **ret_shape, size_t *ret_rank);

/* The tensor, row-major, if it has exactly this shape; -ENOENT, -EBADMSG (shape), -ENOTSUP (type). */
int weights_get(struct weights *w, const char *name, const size_t *shape, size_t rank,
		const float **ret, struct err *e);

/* Elements handed out by weights_get() so far, each tensor counted once. */
uint64_t weights_used(const struct weights *w);

/* One tensor that a part of the network wants. */
struct weights_want {
	const char *name;		/* after the prefix */
	const float **ret;		/* where the pointer goes */
	size_t shape[WEIGHTS_RANK_MAX]; /* up to the first 0 */
};
/* weights_get() for each of n. */
int weights_bind(struct weights *w, const char *prefix, const struct weights_want *want, size_t n,
		 struct err *e);

#endif
