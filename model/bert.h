/* bert.h: the text tower, a BERT encoder with post-norm layers (MODEL.md 3).
 *
 * Runs on the real tokens only, several texts in one pass: they share every layer except attention,
 * which stays inside each text.  Used when prompts are set, never per picture.
 *
 * Products see a multiple of BERT_ROWS rows, the last of them empty: libraries choose code and order of
 * sums by the shape.  So a text's result is the same to the last bit alone and in any company that fits
 * BERT_ROWS tokens; and what was kept of it is what would be computed.
 */
#ifndef CARZEROD_MODEL_BERT_H
#define CARZEROD_MODEL_BERT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#include "model/manifest.h"
#include "model/weights.h"

#define BERT_ROWS 128

/* D = dim, F = bert_mlp. */
struct bert_layer {
	const float *q_w, *k_w, *v_w;	/* [D, D] out, in */
	const float *q_b, *k_b, *v_b;	/* [D] */
	const float *out_w;		/* [D, D] out, in */
	const float *out_b;		/* [D] */
	const float *norm1_w, *norm1_b; /* [D] attention.output.LayerNorm */
	const float *up_w;		/* [F, D] out, in */
	const float *up_b;		/* [F] */
	const float *down_w;		/* [D, F] out, in */
	const float *down_b;		/* [D] */
	const float *norm2_w, *norm2_b; /* [D] output.LayerNorm */
};

struct bert {
	const struct dims *dims;
	const float *word;	      /* [vocab, D] */
	const float *position;	      /* [positions, D] */
	const float *type;	      /* [2, D]; row 0 is used */
	const float *norm_w, *norm_b; /* [D] */
	struct bert_layer *layers;    /* [bert_depth] own */
};

/* One text: [CLS] pieces [SEP], no padding. */
struct bert_text {
	const int32_t *ids;    /* [n] each below vocab */
	const bool *continues; /* [n] the piece continues a word ("##..."); for prompts.c, not read here */
	size_t n;	       /* 2 .. word_num */
};

/* `dims` and `w` must outlive the struct. */
int bert_bind(struct bert *bert, const struct dims *dims, struct weights *w, struct err *e);
void bert_release(struct bert *bert); /* also of a zeroed or half-bound one */

/* ret_sum: [sum of n, D], the texts' tokens one after the other: each the sum of its last
 * `last_layers` hidden states (hidden state 0 is the embedding).
 * -EBADMSG for an id outside the vocabulary or a length outside 2 .. word_num, -ENOMEM. */
int bert_encode(const struct bert *bert, const struct bert_text *texts, size_t n_texts, float *ret_sum);

#endif
