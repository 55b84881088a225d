/* checkpoint.h: the tensors of a published model file, where they lie in it.
 *
 * Three formats, told apart by their first bytes: PyTorch's zip archive, PyTorch's older sequence of
 * pickles ("legacy"), and safetensors.  The file is mapped, never loaded: a tensor is a pointer into
 * the mapping, checked against its storage, which is checked against the file.  Nothing in the file
 * is called (pickle.h).  Only the state_dict of a Lightning checkpoint is listed; optimizer state and
 * the rest are not touched.
 *
 * What cannot be used but does no harm (integers, strided views) is listed with a `problem`; what
 * contradicts itself is an error.
 *
 * Never here: which tensors a network needs (import.h).
 */
#ifndef CARZEROD_MODEL_CHECKPOINT_H
#define CARZEROD_MODEL_CHECKPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/digest.h"
#include "base/err.h"

#define CHECKPOINT_TENSORS_MAX 8192
#define CHECKPOINT_RANK_MAX 8
#define CHECKPOINT_NAME_MAX 256

enum checkpoint_type { CHECKPOINT_OTHER, CHECKPOINT_F32, CHECKPOINT_F16, CHECKPOINT_BF16 };

struct checkpoint_tensor {
	char name[CHECKPOINT_NAME_MAX]; /* as in the file */
	enum checkpoint_type type;
	size_t rank, shape[CHECKPOINT_RANK_MAX];
	size_t count;	     /* elements */
	const uint8_t *data; /* little-endian, row-major; NULL when there is a problem */
	size_t bytes;
	const char *problem; /* why it cannot be used, or NULL */
	size_t storage;	     /* ours: index for checkpoint_verify() */
};

struct checkpoint;

int checkpoint_open(const char *path, struct checkpoint **ret, struct err *e);
/* The same on memory that the caller keeps; `what` is what errors call it. */
int checkpoint_open_memory(const void *p, size_t n, const char *what, struct checkpoint **ret, struct err *e);
void checkpoint_close(struct checkpoint *c); /* NULL allowed */

/* "PyTorch zip archive", "PyTorch legacy file" or "safetensors file". */
const char *checkpoint_format(const struct checkpoint *c);
size_t checkpoint_size(const struct checkpoint *c); /* bytes of the file */
size_t checkpoint_count(const struct checkpoint *c);
const struct checkpoint_tensor *checkpoint_tensor(const struct checkpoint *c, size_t i); /* in file order */

/* Checks the checksum that the archive has for this tensor's storage, once per storage. */
int checkpoint_verify(struct checkpoint *c, size_t i, struct err *e);
/* SHA-256 of the whole file. */
void checkpoint_digest(const struct checkpoint *c, uint8_t ret[DIGEST_SIZE]);
/* The pages under these bytes are no longer needed in memory. */
void checkpoint_release(const struct checkpoint *c, const void *p, size_t n);

/* A hyper-parameter by its dotted path ("model.text.norm") as text: number, true, false, null, string.
 * Plain dicts and omegaconf's containers are understood; false when it is not there. */
bool checkpoint_hyper(const struct checkpoint *c, const char *path, char *ret, size_t size);

#endif
