/* vit.c: the image tower.  MODEL.md 2 has every tensor and the reasons.
 *
 *	crop         centre of the square, grey level -> (level/255 - mean) / deviation
 *	patches      [T-1, P*P]  row major over (y, x), each row major inside
 *	embed        x[0] = cls + pos[0];  x[1+t] = patch[t] * W' + b + pos[1+t]
 *	vit_depth times
 *	  attention  x += proj(MHA(qkv(norm1(x))))       no mask
 *	  mlp        x += fc2(gelu(fc1(norm2(x))))
 *	norm         x = norm(x)
 *
 * The residual stream x, the norms' sums and the softmax are float32 in every precision; what goes into
 * a product (h, q, k, v, mlp) is in rows of the precision.  With int8 that is float: a layer has its 8 bits inside, and
 * the products of attention stay float32.
 *
 * Row 0 is the image's global vector, the others its local ones, all after the last norm.
 * The three input channels carry the same picture, so W' is the sum of the kernel over them: a third
 * of the work, equal up to rounding.
 */
#include <stdint.h>

#include "base/mem.h"

#include "model/kernels.h"
#include "model/vit.h"

#define CHANNELS 3 /* of the trained patch kernel */

/* patch_w[d][i] = sum over channels of w[d][channel][i]. */
static int fold_channels(struct vit *vit, const float *w /* [D, 3, P, P] */)
{
	size_t dim = vit->dims->dim, area = vit->dims->patch * vit->dims->patch;

	vit->patch_w = malloc(dim * area * sizeof(float)); /* bounded by the limits of manifest.h */
	if (vit->patch_w == NULL)
		return -ENOMEM;
	for (size_t d = 0; d < dim; d++)
		for (size_t i = 0; i < area; i++) {
			const float *at = w + d * CHANNELS * area + i;

			vit->patch_w[d * area + i] = at[0] + at[area] + at[2 * area];
		}
	return 0;
}

static int bind_block(struct vit_block *b, size_t i, const struct dims *dims, struct weights *w,
		      struct err *e)
{
	size_t d = dims->dim, f = dims->vit_mlp;
	const float *qkv_w, *qkv_b;   /* [3D, D] out, in, rows q, k, v; [3D] */
	const float *proj_w, *proj_b; /* [D, D], [D] */
	const float *fc1_w, *fc1_b;   /* [F, D], [F] */
	const float *fc2_w, *fc2_b;   /* [D, F], [D] */
	const struct weights_want want[] = {
		{ "norm1.weight", &b->norm1_w, { d } },
		{ "norm1.bias", &b->norm1_b, { d } },
		{ "attn.qkv.weight", &qkv_w, { 3 * d, d } },
		{ "attn.qkv.bias", &qkv_b, { 3 * d } },
		{ "attn.proj.weight", &proj_w, { d, d } },
		{ "attn.proj.bias", &proj_b, { d } },
		{ "norm2.weight", &b->norm2_w, { d } },
		{ "norm2.bias", &b->norm2_b, { d } },
		{ "mlp.fc1.weight", &fc1_w, { f, d } },
		{ "mlp.fc1.bias", &fc1_b, { f } },
		{ "mlp.fc2.weight", &fc2_w, { d, f } },
		{ "mlp.fc2.bias", &fc2_b, { d } },
	};
	char prefix[WEIGHTS_NAME_MAX];
	int r;

	(void)snprintf(prefix, sizeof(prefix), "img_encoder.model.blocks.%zu.", i);
	r = weights_bind(w, prefix, want, ARRAY_SIZE(want), e);
	if (r < 0)
		return r;
	b->q = layer_of(qkv_w, qkv_b, d, d);
	b->k = layer_of(qkv_w + d * d, qkv_b + d, d, d);
	b->v = layer_of(qkv_w + 2 * d * d, qkv_b + 2 * d, d, d);
	b->proj = layer_of(proj_w, proj_b, d, d);
	b->fc1 = layer_of(fc1_w, fc1_b, d, f);
	b->fc2 = layer_of(fc2_w, fc2_b, f, d);
	return 0;
}

int vit_bind(struct vit *vit, const struct dims *dims, struct weights *w, struct err *e)
{
	size_t d = dims->dim, p = dims->patch;
	const float *patch_w, *patch_b; /* [D, 3, P, P], [D] */
	const struct weights_want want[] = {
		{ "patch_embed.proj.weight", &patch_w, { d, CHANNELS, p, p } },
		{ "patch_embed.proj.bias", &patch_b, { d } },
		{ "cls_token", &vit->cls, { 1, 1, d } },
		{ "pos_embed", &vit->pos, { 1, dims->tokens, d } },
		{ "norm.weight", &vit->norm_w, { d } },
		{ "norm.bias", &vit->norm_b, { d } },
	};
	int r;

	*vit = (struct vit){ .dims = dims };
	r = weights_bind(w, "img_encoder.model.", want, ARRAY_SIZE(want), e);
	if (r < 0)
		return r;
	vit->blocks = xcalloc(dims->vit_depth, sizeof(*vit->blocks));
	for (size_t i = 0; i < dims->vit_depth; i++) {
		r = bind_block(&vit->blocks[i], i, dims, w, e);
		if (r < 0)
			return r;
	}
	r = fold_channels(vit, patch_w);
	if (r < 0)
		return err_set(e, r, "no memory for the patch kernel");
	vit->patch = layer_of(vit->patch_w, patch_b, p * p, d);
	r = self_attention_init(&vit->attention, dims->tokens, d, dims->vit_heads, KERNELS_F32);
	if (r < 0)
		return err_set(e, r, "no memory for the attention");
	for (size_t i = 0; i < ARRAY_SIZE(vit->level); i++) /* in this order, in float32 */
		vit->level[i] = ((float)i / 255.0f - dims->mean) / dims->deviation;
	return 0;
}

static int pack_block(struct vit_block *b, size_t t, size_t d, enum kernels_precision precision, struct pool *pool)
{
	struct layer *const layers[] = { &b->q, &b->k, &b->v, &b->proj, &b->fc1, &b->fc2 };
	const float **const norms[] = { &b->norm1_w, &b->norm1_b, &b->norm2_w, &b->norm2_b };

	for (size_t i = 0; i < ARRAY_SIZE(layers); i++) {
		int r = layer_pack(layers[i], t, precision, pool);

		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < ARRAY_SIZE(norms); i++)
		if (!pool_keep(pool, norms[i], d))
			return -ENOMEM;
	return 0;
}

int vit_pack(struct vit *vit, enum kernels_precision precision, struct pool *pool)
{
	const struct dims *dims = vit->dims;
	size_t d = dims->dim;
	int r = layer_pack(&vit->patch, dims->tokens - 1, KERNELS_F32, pool);

	if (r == 0 && (!pool_keep(pool, &vit->cls, d) || !pool_keep(pool, &vit->pos, dims->tokens * d) ||
		       !pool_keep(pool, &vit->norm_w, d) || !pool_keep(pool, &vit->norm_b, d)))
		return -ENOMEM;
	for (size_t i = 0; r == 0 && i < dims->vit_depth; i++)
		r = pack_block(&vit->blocks[i], dims->tokens, d, precision, pool);
	if (r < 0)
		return r;
	self_attention_release(&vit->attention);
	vit->precision = precision;
	return self_attention_init(&vit->attention, dims->tokens, dims->dim, dims->vit_heads,
				   precision == KERNELS_INT8 ? KERNELS_F32 : precision);
}

void vit_release(struct vit *vit)
{
	for (size_t i = 0; vit->blocks != NULL && i < vit->dims->vit_depth; i++) {
		struct vit_block *b = &vit->blocks[i];

		layer_release(&b->q);
		layer_release(&b->k);
		layer_release(&b->v);
		layer_release(&b->proj);
		layer_release(&b->fc1);
		layer_release(&b->fc2);
	}
	layer_release(&vit->patch);
	self_attention_release(&vit->attention);
	free(vit->patch_w);
	free(vit->blocks);
	*vit = (struct vit){ .dims = NULL };
}

int vit_scratch_init(struct vit_scratch *s, const struct dims *dims)
{
	size_t t = dims->tokens, d = dims->dim;

	/* The limits of manifest.h keep every product below far inside a size_t. */
	*s = (struct vit_scratch){
		.patches = calloc((t - 1) * dims->patch * dims->patch, sizeof(float)),
		.x = calloc(t * d, sizeof(float)),
		.h = calloc(t * d, sizeof(float)),
		.q = calloc(t * d, sizeof(float)),
		.k = calloc(t * d, sizeof(float)),
		.v = calloc(t * d, sizeof(float)),
		.scores = calloc(self_attention_scratch(t, dims->vit_heads), sizeof(float)),
		.mlp = calloc(t * dims->vit_mlp, sizeof(float)),
	};
	if (s->patches != NULL && s->x != NULL && s->h != NULL && s->q != NULL && s->k != NULL &&
	    s->v != NULL && s->scores != NULL && s->mlp != NULL)
		return 0;
	vit_scratch_release(s);
	return -ENOMEM;
}

void vit_scratch_release(struct vit_scratch *s)
{
	free(s->patches);
	free(s->x);
	free(s->h);
	free(s->q);
	free(s->k);
	free(s->v);
	free(s->scores);
	free(s->mlp);
	*s = (struct vit_scratch){ .x = NULL };
}

void vit_patches(const struct vit *vit, struct vit_scratch *s, const uint8_t *square)
{
	const struct dims *dims = vit->dims;
	size_t p = dims->patch, margin = (dims->square - dims->image) / 2;

	for (size_t y = 0; y < dims->image; y++) {
		const uint8_t *line = square + (margin + y) * dims->square + margin; /* [image] */

		for (size_t x = 0; x < dims->image; x++) {
			size_t t = y / p * dims->grid + x / p, inside = y % p * p + x % p;

			s->patches[t * p * p + inside] = vit->level[line[x]];
		}
	}
}

void vit_forward(const struct vit *vit, struct vit_scratch *s, const uint8_t *square)
{
	const struct dims *dims = vit->dims;
	enum kernels_precision precision = vit->attention.precision; /* of rows */
	size_t t = dims->tokens, d = dims->dim;
	float eps = dims->vit_eps;

	/* Embed: x = pos, then the class token and the patches on top. */
	vit_patches(vit, s, square);
	memcpy(s->x, vit->pos, t * d * sizeof(float));
	for (size_t j = 0; j < d; j++)
		s->x[j] += vit->cls[j];
	layer_run(&vit->patch, s->patches, s->x + d, t - 1, LAYER_ADD);

	for (size_t i = 0; i < dims->vit_depth; i++) {
		const struct vit_block *b = &vit->blocks[i];

		/* Attention; h is read before it is overwritten. */
		layernorm_to(s->x, b->norm1_w, b->norm1_b, eps, s->h, t, d, precision);
		layer_run_three((const struct layer *const[]){ &b->q, &b->k, &b->v }, s->h,
				(void *const[]){ s->q, s->k, s->v }, t);
		self_attention_run(&vit->attention, s->q, s->k, s->v, s->h, s->scores);
		layer_run(&b->proj, s->h, s->x, t, LAYER_ADD);

		/* MLP */
		layernorm_to(s->x, b->norm2_w, b->norm2_b, eps, s->h, t, d, precision);
		layer_run(&b->fc1, s->h, s->mlp, t, LAYER_GELU);
		layer_run(&b->fc2, s->mlp, s->x, t, LAYER_ADD);
	}

	layernorm(s->x, vit->norm_w, vit->norm_b, eps, s->x, t, d);
}
