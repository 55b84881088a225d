/* import.h: from the published checkpoint to a bundle, without Python.
 *
 * Reads with checkpoint.h, keeps what inference uses, checks every shape, derives the dimensions
 * from the shapes, widens float16 and bfloat16 to float32, refuses weights that are not finite, and
 * writes OUT/weights.safetensors, OUT/model.json and OUT/vocab.txt.  The directory appears whole or
 * not at all, and an existing one is never overwritten.  The same input gives the same bytes.
 *
 * Keys count after the last "CARZero." in them, as in the reference's loader.  Head counts cannot be
 * read from shapes: with the published dimensions they are 12, 12 and 4, otherwise `model_json` must
 * name them.  A bundle made here is never of the domain "clinical" nor of the family "carzero"; that
 * takes a comparison of its scores with recorded ones (carzero-model verify, manifest_verified()).
 *
 * Streams: memory stays far below the size of the model.
 */
#ifndef CARZEROD_MODEL_IMPORT_H
#define CARZEROD_MODEL_IMPORT_H

#include <stddef.h>
#include <stdint.h>

#include "base/digest.h"
#include "base/err.h"

#include "model/checkpoint.h"
#include "model/manifest.h"

#define IMPORT_UNKNOWN_SHOWN 8
#define IMPORT_WARNINGS_MAX 16

enum import_ignored {
	IGNORED_POSITIONS, IGNORED_POOLER, IGNORED_SCALE, IGNORED_SELF_ATTENTION, IGNORED_NORM1, IGNORED_TWIN,
	IGNORED_UNKNOWN, IGNORED_KINDS
};
/* What they are, for people. */
const char *import_ignored_name(enum import_ignored what);

struct import_request {
	const char *checkpoint, *vocab, *out; /* files and a directory to make */
	const char *model_json;		      /* or NULL; see import.c for the keys that count */
	const char *tool;		      /* "carzero-model 1.0", for the metadata */
};

struct import_report {
	const char *format;
	uint8_t source[DIGEST_SIZE];
	size_t read, kept, widened;
	uint64_t parameters;
	size_t ignored[IGNORED_KINDS];
	char unknown[IMPORT_UNKNOWN_SHOWN][CHECKPOINT_NAME_MAX];
	size_t hyper_checked;
	size_t n_warnings;
	char warnings[IMPORT_WARNINGS_MAX][256];
	struct manifest manifest;
};

int import_bundle(const struct import_request *q, struct import_report *ret, struct err *e);

#endif
