/* manifest.h: model.json, the part of a bundle that shapes cannot tell.
 *
 * It names the bundle, says what it was trained for, pins the SHA-256 of weights.safetensors, and
 * carries the network's dimensions, head counts, epsilons and the normalisation of pixels.  Nothing
 * is compiled in: any network of this form runs.  Keys that are not ours are ignored.
 *
 * A family is what calibrations refer to.  FAMILY_VERIFIED is a promise about the weights that only
 * manifest_verified() may write, after a comparison of scores; an import of the published size is of
 * FAMILY_UNVERIFIED, to which no shipped calibration refers.
 *
 * Every number has a limit below, wide enough for a network ten times the published one, so that
 * products of them fit a size_t and BLAS's int.
 */
#ifndef CARZEROD_MODEL_MANIFEST_H
#define CARZEROD_MODEL_MANIFEST_H

#include <stddef.h>
#include <stdint.h>

#include "base/digest.h"
#include "base/err.h"

#include "model/model.h"

#define MANIFEST_BYTES_MAX 65536
#define MANIFEST_FORMAT 1 /* key "format" */

#define FAMILY_VERIFIED "carzero"
#define FAMILY_UNVERIFIED "carzero-unverified"

#define DIMS_DIM_MAX 4096
#define DIMS_DEPTH_MAX 64
#define DIMS_HIDDEN_MAX 16384 /* width inside a feed-forward part or the head */
#define DIMS_POSITIONS_MAX 4096
#define DIMS_IMAGE_MAX 2048
#define DIMS_PATCH_MAX 128
#define DIMS_TOKENS_MAX 16385 /* patches of an image, and the class token */
#define DIMS_HEAD_LAYERS 3    /* hidden layers of the scoring head */

/* D = dim; the letters of MODEL.md in the comments. */
struct dims {
	size_t dim;			      /* D */
	size_t image, patch;		      /* pixels: side of the crop, side of a patch */
	size_t grid, tokens;		      /* derived: image / patch; grid * grid + 1 = T */
	size_t vit_depth, vit_heads, vit_mlp; /* vit_mlp = F of the image tower */
	size_t vocab, positions;
	size_t bert_depth, bert_heads, bert_mlp, last_layers;
	size_t fusion_depth, fusion_heads, fusion_mlp;
	size_t head[DIMS_HEAD_LAYERS];
	size_t word_num;		      /* W: rows of the text memory, 97 */
	size_t square;			      /* side of the letterboxed picture, 256 */
	float mean, deviation;		      /* of pixels scaled to 0..1 */
	float vit_eps, bert_eps, fusion_eps;  /* three different ones */
};

struct manifest {
	char name[64], family[64];
	enum model_domain domain;
	uint8_t digest[DIGEST_SIZE]; /* of weights.safetensors */
	struct dims dims;
};

/* An error names the file, the key, its value and what is expected. */
int manifest_read(const char *path, struct manifest *ret, struct err *e);
/* The same from text; `path` is what errors call it. */
int manifest_parse(const char *text, size_t n, const char *path, struct manifest *ret, struct err *e);

struct manifest_proof { /* what showed that these are the published weights */
	size_t images, findings;
	double difference;	     /* the largest between recorded and computed logits */
	uint8_t logits[DIGEST_SIZE]; /* SHA-256 of the recorded ones */
};

/* Gives DIR/model.json the family FAMILY_VERIFIED, the domain clinical and the proof, whole or not at
 * all; everything else in it stays. */
int manifest_verified(const char *dir, const struct manifest_proof *proof, struct err *e);

#endif
