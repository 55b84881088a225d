/* model.h: the public face of CARZero: open a bundle, set the prompts, score pictures.
 *
 * A bundle is a directory: weights.safetensors, model.json, vocab.txt (MODEL.md).  The model is
 * read-only after model_set_prompts(); a model_run holds the scratch memory of one picture at a
 * time.  The same bytes in give the same logits out on the same machine with the same thread count and
 * precision.
 *
 * A logit is raw: no sigmoid, no temperature (carzero: (i2t + t2i) / 2).  It is not a probability
 * and zero has no meaning; daemon/findings.h turns it into one where a calibration applies.
 *
 * Never here: DICOM, files other than the bundle's, threads of our own.
 */
#ifndef CARZEROD_MODEL_MODEL_H
#define CARZEROD_MODEL_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/digest.h"
#include "base/err.h"

#define MODEL_PROMPTS_MAX 512
#define MODEL_PROMPT_BYTES_MAX 1024

struct model;
struct model_run;

enum model_precision { MODEL_F32, MODEL_BF16, MODEL_INT8 }; /* of the image tower's layers; the rest is f32 */
enum model_domain { MODEL_UNTRAINED, MODEL_PHANTOM, MODEL_CLINICAL }; /* model.json "domain" */

/* What everything says that a bundle of another domain than clinical has scored. */
#define MODEL_STAMP "DEMONSTRATION MODEL, NOT VALID ON PATIENTS"

struct model_info {
	char name[64];              /* model.json "name" */
	char family[64];            /* what calibrations refer to: model.json "family" */
	enum model_domain domain;
	uint8_t digest[DIGEST_SIZE]; /* SHA-256 of weights.safetensors, checked against model.json's sha256 */
	size_t dim, vit_depth, vit_heads, bert_depth, bert_heads, fusion_depth, fusion_heads;
	size_t image_size;          /* side of the letterboxed square that model_score takes: 256 */
	size_t crop;                /* 224 */
	size_t map_side;            /* crop / patch: 14 */
	size_t tokens;              /* rows of an embedding: map_side * map_side + 1, of dim numbers each */
	size_t word_num;            /* 97 */
	size_t vocab;
	uint64_t parameters;
};

struct model_use {
	enum model_precision precision;
	bool embeddings;   /* only embeddings are scored: the image tower is not made ready, nothing is cached */
	const char *cache; /* a folder for what can be computed again (cache.h), or NULL */
	uint64_t spare;	   /* bytes that the cache leaves free on its disk */
};

/* Opens the bundle and lays the weights out for scoring as `use` says; NULL: only to be looked at.  Every
 * tensor's name, type, shape and bounds are checked here, and the digest of what was not taken from the cache.
 * An error names file, tensor and both shapes.  -ENOTSUP: this CPU or build cannot do the precision; the text
 * says what would. */
int model_open(const char *dir, const struct model_use *use, struct model **ret, struct err *e);
void model_close(struct model *m); /* NULL allowed */
const struct model_info *model_info(const struct model *m);
/* What the cache gave, in a few words for a log; "" without one. */
const char *model_cache_note(const struct model *m);

/* Cleans, tokenises and encodes n prompts and keeps the tables of the text side (about 1 GMAC a
 * prompt at full size, once).  A prompt that cleans to nothing is -EBADMSG with the remedy in the
 * text.  Replaces earlier prompts.  Must not be called while a run is in use. */
int model_set_prompts(struct model *m, const char *const *text, size_t n, struct err *e);

/* Scratch memory for one picture at a time.  *ret is freed by model_run_free(). */
int model_run_new(const struct model *m, struct model_run **ret, struct err *e);
void model_run_free(struct model_run *run); /* NULL allowed */

/* square: [image_size][image_size] letterboxed 8-bit grey (preprocess.h).
 * ret_logits: [prompts].
 * ret_maps: NULL or [prompts][map_side][map_side], the grounding map of each prompt (carzero 5.2:
 * mean over layers and heads of the i2t attention, class column dropped, not renormalised).
 * -EINVAL before model_set_prompts(), or of a model that was opened for something else; -EDOM when a logit is
 * not a finite number (broken weights), -EIO when the library failed and no other code gives this
 * precision; the results are then undefined. */
int model_score(struct model_run *run, const uint8_t *square, float *ret_logits, float *ret_maps);

/* ---- embeddings: what the findings are asked of, without the picture ----
 *
 * The image tower's rows behind decoder_norm, [tokens][dim] in half.h's form: all that scores depend on besides the
 * prompts.  Another run of a model with the same weights scores them with other prompts, at a small
 * part of a picture's cost; the rounding to 11 bits is all that differs (MODEL.md). */

/* Of the picture that this run scored last.  -ERANGE: a number is too large for the form. */
int model_embedding(const struct model_run *run, uint16_t *ret);

/* embedding[i]: [tokens][dim]; ret_logits: [n][prompts].  Several share each product, so n should be
 * MODEL_EMBEDDINGS or a multiple.  As model_score(), and -ERANGE when an embedding holds what is no number. */
#define MODEL_EMBEDDINGS 16
int model_score_embeddings(struct model_run *run, const uint16_t *const *embedding, size_t n, float *ret_logits);

#endif
