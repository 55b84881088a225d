/* fusion.h: the cross-attention decoder and the scoring head (MODEL.md 4, 5).
 *
 * One set of weights, used in both directions: i2t asks the image with a text, t2i asks a text with
 * the image.  Everything about the texts that does not depend on the picture lies ready in struct
 * fusion_text (prompts.c makes it); struct fusion_scratch is the memory of one picture in flight.
 */
#ifndef CARZEROD_MODEL_FUSION_H
#define CARZEROD_MODEL_FUSION_H

#include "base/err.h"

#include "model/kernels.h"
#include "model/manifest.h"
#include "model/weights.h"

#define FUSION_CHUNK 64 /* prompts that go through together; bounds the scratch memory */
#define FUSION_HEAD_LINEARS (DIMS_HEAD_LAYERS + 1)

/* D = dim, F = fusion_mlp, H = fusion_heads, T = tokens of the image. */
struct fusion_layer {
	const float *in_w;		/* [3D, D] out, in; rows: q, k, v */
	const float *in_b;		/* [3D] */
	struct layer q;			/* D -> D: the first D rows of in_w */
	struct layer out;		/* D -> D */
	const float *norm2_w, *norm2_b; /* [D] before attention */
	const float *norm3_w, *norm3_b; /* [D] before the feed-forward part */
	struct layer up, down;		/* D -> F, F -> D: linear1, linear2 */
};

struct fusion {
	const struct dims *dims;
	const float *norm_w, *norm_b;		    /* [D] decoder_norm: query, memory and output */
	struct fusion_layer *layers;		    /* [fusion_depth] own */
	struct layer head[FUSION_HEAD_LINEARS];	    /* head[j-1] -> head[j]; the first from D, the last to 1 */
};

/* The text side, constant per list of prompts.  M = first[n] memory rows altogether. */
struct fusion_text {
	size_t n;
	struct pool *pool; /* own: all of it lies there */
	float *query;	/* [n, D] N(text global): the i2t query, and what its residuals add to */
	float *asked0;	/* [n, H, D] layer 0's i2t query in image space, see fusion_ask() */
	size_t *first;	/* [n + 1] first memory row of each prompt */
	float *count;	/* [M] how many equal rows of the reference's memory a row stands for */
	float *k, *v;	/* [fusion_depth, M, D] t2i keys and values */
};

struct fusion_scratch {
	float *memory;	 /* [T, D] N(image) */
	float *x;	 /* [2C, D] C = FUSION_CHUNK; first the i2t rows, then the t2i rows */
	float *h;	 /* [2C, D] normed input of a part, then the attention's output */
	float *q;	 /* [2C, D] */
	float *asked;	 /* [C, H, D] i2t queries in image space, then the mixed image rows */
	float *scores;	 /* [C, H, T] */
	float *mlp;	 /* [2C, max(F, head widths)] */
	float *mlp2;	 /* the same */
};

int fusion_bind(struct fusion *fusion, const struct dims *dims, struct weights *w, struct err *e);
/* As vit_pack(), in float32; `pool` must outlive the struct. */
int fusion_pack(struct fusion *fusion, struct pool *pool);
void fusion_release(struct fusion *fusion); /* also of a zeroed or half-bound one */

int fusion_scratch_init(struct fusion_scratch *s, const struct dims *dims);
void fusion_scratch_release(struct fusion_scratch *s); /* also of a zeroed one */

void fusion_text_release(struct fusion_text *text); /* also of a zeroed one */

/* N: y = LN(x; decoder_norm).  x, y: [n, D] */
void fusion_norm(const struct fusion *fusion, const float *x, float *y, size_t n);

/* An i2t query of a layer against image rows that are never projected:
 * q . (Wk m + bk) = (Wk' q) . m + a constant that the softmax forgets.  So asked = Wk' q / sqrt(D/H),
 * head by head, meets N(image) directly.  q: [n, D], ret: [n, H, D] */
void fusion_ask(const struct fusion *fusion, size_t layer, const float *q, float *ret, size_t n);

/* image: [T, D] as vit_forward() leaves it.  ret_i2t, ret_t2i: [n].
 * ret_maps: NULL or [n, T-1]: the i2t attention on the patches, mean over heads and layers. */
void fusion_forward(const struct fusion *fusion, struct fusion_scratch *s, const struct fusion_text *text,
		    const float *image, float *ret_i2t, float *ret_t2i, float *ret_maps);

/* The same for several pictures of which N(image) is known (s->memory after fusion_forward()): they share every
 * product with weights.  memory: [images, T, D]; ret_i2t, ret_t2i: [images, n]; images: at most
 * fusion_images(text), as many as fill a chunk. */
size_t fusion_images(const struct fusion_text *text);
void fusion_forward_memory(const struct fusion *fusion, struct fusion_scratch *s, const struct fusion_text *text,
			   const float *memory, size_t images, float *ret_i2t, float *ret_t2i);

#endif
