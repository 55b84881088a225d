/* vit.h: the image tower, a ViT with pre-norm blocks (MODEL.md 2).
 *
 * struct vit points into the weights file and is read-only after vit_bind(); struct vit_scratch is
 * the memory of one picture in flight.
 */
#ifndef CARZEROD_MODEL_VIT_H
#define CARZEROD_MODEL_VIT_H

#include "base/err.h"

#include "model/manifest.h"
#include "model/weights.h"

/* D = dim, T = tokens, F = vit_mlp, P = patch. */
struct vit_block {
	const float *norm1_w, *norm1_b; /* [D] */
	const float *qkv_w;		/* [3D, D] out, in; rows: q, k, v */
	const float *qkv_b;		/* [3D] */
	const float *proj_w;		/* [D, D] out, in */
	const float *proj_b;		/* [D] */
	const float *norm2_w, *norm2_b; /* [D] */
	const float *fc1_w;		/* [F, D] out, in */
	const float *fc1_b;		/* [F] */
	const float *fc2_w;		/* [D, F] out, in */
	const float *fc2_b;		/* [D] */
};

struct vit {
	const struct dims *dims;
	float *patch_w;		      /* [D, P*P] own: the three equal channels folded into one */
	const float *patch_b;	      /* [D] */
	const float *cls;	      /* [D] */
	const float *pos;	      /* [T, D] */
	struct vit_block *blocks;     /* [vit_depth] own */
	const float *norm_w, *norm_b; /* [D] */
	float level[256];	      /* normalised value of each grey level */
};

struct vit_scratch {
	float *patches; /* [T-1, P*P] */
	float *x;	/* [T, D] the residual stream; after vit_forward() the result */
	float *h;	/* [T, D] normed input of a part, then the attention's output */
	float *qkv;	/* [T, 3D] */
	float *scores;	/* [T, T] of one head */
	float *mlp;	/* [T, F] */
};

/* `dims` and `w` must outlive the struct. */
int vit_bind(struct vit *vit, const struct dims *dims, struct weights *w, struct err *e);
void vit_release(struct vit *vit); /* also of a zeroed or half-bound one */

int vit_scratch_init(struct vit_scratch *s, const struct dims *dims);
void vit_scratch_release(struct vit_scratch *s); /* also of a zeroed one */

/* square: [square, square] letterboxed grey.  Afterwards s->x holds [T, D]: row 0 the image's global
 * vector, row 1 + grid*y + x the local vector of patch (y, x). */
void vit_forward(const struct vit *vit, struct vit_scratch *s, const uint8_t *square);

/* The first step alone: the centre crop, normalised, cut into patches in s->patches. */
void vit_patches(const struct vit *vit, struct vit_scratch *s, const uint8_t *square);

#endif
