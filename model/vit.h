/* vit.h: the image tower, a ViT with pre-norm blocks (MODEL.md 2).
 *
 * struct vit points into the weights file and is read-only after vit_bind(); struct vit_scratch is
 * the memory of one picture in flight.
 */
#ifndef CARZEROD_MODEL_VIT_H
#define CARZEROD_MODEL_VIT_H

#include "base/err.h"

#include "model/kernels.h"
#include "model/manifest.h"
#include "model/weights.h"

/* D = dim, T = tokens, F = vit_mlp, P = patch. */
struct vit_block {
	const float *norm1_w, *norm1_b; /* [D] */
	struct layer q, k, v;		/* D -> D; the rows of attn.qkv */
	struct layer proj;		/* D -> D */
	const float *norm2_w, *norm2_b; /* [D] */
	struct layer fc1, fc2;		/* D -> F, F -> D */
};

struct vit {
	const struct dims *dims;
	float *patch_w;		      /* [D, P*P] own: the three equal channels folded into one */
	struct layer patch;	      /* P*P -> D; float32 in every precision */
	const float *cls;	      /* [D] */
	const float *pos;	      /* [T, D] */
	struct vit_block *blocks;     /* [vit_depth] own */
	enum kernels_precision precision; /* of the blocks' layers */
	struct self_attention attention;
	const float *norm_w, *norm_b; /* [D] */
	float level[256];	      /* normalised value of each grey level */
};

struct vit_scratch {
	float *patches; /* [T-1, P*P] */
	float *x;	/* [T, D] the residual stream; after vit_forward() the result */
	void *h;	/* [T, D] rows of the precision: normed input of a part, then the attention's output */
	void *q, *k, *v; /* [T, D] rows of the precision */
	float *scores;	/* [self_attention_scratch()] */
	void *mlp;	/* [T, F] rows of the precision */
};

/* `dims` and `w` must outlive the struct. */
int vit_bind(struct vit *vit, const struct dims *dims, struct weights *w, struct err *e);
/* Packs every layer (kernels.h) and keeps the rest of what a picture needs beside them; without it the
 * tower runs in float32 on the weights of the file.  `pool` must outlive the struct. */
int vit_pack(struct vit *vit, enum kernels_precision precision, struct pool *pool);
void vit_release(struct vit *vit); /* also of a zeroed or half-bound one */

int vit_scratch_init(struct vit_scratch *s, const struct dims *dims);
void vit_scratch_release(struct vit_scratch *s); /* also of a zeroed one */

/* square: [square, square] letterboxed grey.  Afterwards s->x holds [T, D]: row 0 the image's global
 * vector, row 1 + grid*y + x the local vector of patch (y, x). */
void vit_forward(const struct vit *vit, struct vit_scratch *s, const uint8_t *square);

/* The first step alone: the centre crop, normalised, cut into patches in s->patches. */
void vit_patches(const struct vit *vit, struct vit_scratch *s, const uint8_t *square);

#endif
