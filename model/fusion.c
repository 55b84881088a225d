/* fusion.c: decoder and head.  MODEL.md 4 and 5 have every tensor and the reasons.
 *
 *	N            LN with decoder_norm, used three times: query, memory, output
 *	memory       i2t: N(image rows)                t2i: N(text global, words, padding), cached
 *	x            i2t: N(text global), one a prompt  t2i: N(image global), the same for all
 *	fusion_depth times
 *	  attention  x += out(MHA(q(norm2(x)), k(memory), v(memory)))   memory is not normed again
 *	  mlp        x += down(relu(up(norm3(x))))
 *	N            x = N(x)
 *	head         D -> head[0] -> head[1] -> head[2] -> 1, relu between
 *
 * Both directions share all weights, so 2n rows go through together: rows [0, n) are i2t, rows
 * [n, 2n) are t2i; only the attention differs.  Queries never see each other, hence any number of
 * prompts may share a pass.
 *
 * i2t never projects the image's rows.  Keys: see fusion_ask().  Values: the weights of a softmax add
 * up to 1, so sum(p (Wv m + bv)) = Wv sum(p m) + bv: mix first, project the mixed row.
 */
#include <math.h>

#include "base/mem.h"

#include "model/fusion.h"
#include "model/kernels.h"

static const unsigned head_index[FUSION_HEAD_LINEARS] = { 0, 3, 6, 9 }; /* in mlp_head; relu, dropout between */

static int bind_layer(struct fusion_layer *l, size_t i, const struct dims *dims, struct weights *w,
		      struct err *e)
{
	size_t d = dims->dim, f = dims->fusion_mlp;
	const float *out_w, *out_b;   /* [D, D], [D] */
	const float *up_w, *up_b;     /* [F, D], [F] */
	const float *down_w, *down_b; /* [D, F], [D] */
	const struct weights_want want[] = {
		{ "multihead_attn.in_proj_weight", &l->in_w, { 3 * d, d } },
		{ "multihead_attn.in_proj_bias", &l->in_b, { 3 * d } },
		{ "multihead_attn.out_proj.weight", &out_w, { d, d } },
		{ "multihead_attn.out_proj.bias", &out_b, { d } },
		{ "norm2.weight", &l->norm2_w, { d } },
		{ "norm2.bias", &l->norm2_b, { d } },
		{ "norm3.weight", &l->norm3_w, { d } },
		{ "norm3.bias", &l->norm3_b, { d } },
		{ "linear1.weight", &up_w, { f, d } },
		{ "linear1.bias", &up_b, { f } },
		{ "linear2.weight", &down_w, { d, f } },
		{ "linear2.bias", &down_b, { d } },
	};
	char prefix[WEIGHTS_NAME_MAX];
	int r;

	(void)snprintf(prefix, sizeof(prefix), "fusion_module.decoder.layers.%zu.", i);
	r = weights_bind(w, prefix, want, ARRAY_SIZE(want), e);
	if (r < 0)
		return r;
	l->q = layer_of(l->in_w, l->in_b, d, d);
	l->out = layer_of(out_w, out_b, d, d);
	l->up = layer_of(up_w, up_b, d, f);
	l->down = layer_of(down_w, down_b, f, d);
	return 0;
}

/* decoder_norm is one module that a checkpoint holds under two names.  Should they differ, somebody has
 * edited the file and nobody can know which one is meant. */
static int bind_norm(struct fusion *fusion, struct weights *w, struct err *e)
{
	size_t d = fusion->dims->dim;
	const struct weights_want want[] = {
		{ "weight", &fusion->norm_w, { d } },
		{ "bias", &fusion->norm_b, { d } },
	};
	static const char one[] = "fusion_module.decoder_norm.", other[] = "fusion_module.decoder.norm.";
	char a[WEIGHTS_NAME_MAX], b[WEIGHTS_NAME_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		(void)snprintf(a, sizeof(a), "%s%s", one, want[i].name);
		(void)snprintf(b, sizeof(b), "%s%s", other, want[i].name);
		if (weights_has(w, b) && !weights_same(w, a, b))
			return err_set(e, -EBADMSG,
				       "weights.safetensors: tensors %s and %s differ, expected one module under "
				       "two names", a, b);
	}
	return weights_bind(w, one, want, ARRAY_SIZE(want), e);
}

static int bind_head(struct fusion *fusion, struct weights *w, struct err *e)
{
	const struct dims *dims = fusion->dims;
	size_t in = dims->dim;
	char prefix[WEIGHTS_NAME_MAX];
	int r;

	for (size_t j = 0; j < FUSION_HEAD_LINEARS; j++) {
		size_t out = j < DIMS_HEAD_LAYERS ? dims->head[j] : 1;
		const float *head_w, *head_b; /* [out, in], [out] */
		const struct weights_want want[] = {
			{ "weight", &head_w, { out, in } },
			{ "bias", &head_b, { out } },
		};

		(void)snprintf(prefix, sizeof(prefix), "fusion_module.mlp_head.%u.", head_index[j]);
		r = weights_bind(w, prefix, want, ARRAY_SIZE(want), e);
		if (r < 0)
			return r;
		fusion->head[j] = layer_of(head_w, head_b, in, out);
		in = out;
	}
	return 0;
}

int fusion_bind(struct fusion *fusion, const struct dims *dims, struct weights *w, struct err *e)
{
	int r;

	*fusion = (struct fusion){ .dims = dims };
	r = bind_norm(fusion, w, e);
	if (r < 0)
		return r;
	fusion->layers = xcalloc(dims->fusion_depth, sizeof(*fusion->layers));
	for (size_t i = 0; i < dims->fusion_depth; i++) {
		r = bind_layer(&fusion->layers[i], i, dims, w, e);
		if (r < 0)
			return r;
	}
	return bind_head(fusion, w, e);
}

static int pack_layer(struct fusion_layer *l, size_t n, size_t d, struct pool *pool)
{
	struct layer *const layers[] = { &l->q, &l->out, &l->up, &l->down };
	const float **const norms[] = { &l->norm2_w, &l->norm2_b, &l->norm3_w, &l->norm3_b };

	for (size_t j = 0; j < ARRAY_SIZE(layers); j++) {
		int r = layer_pack(layers[j], n, KERNELS_F32, pool);

		if (r < 0)
			return r;
	}
	for (size_t j = 0; j < ARRAY_SIZE(norms); j++)
		if (!pool_keep(pool, norms[j], d))
			return -ENOMEM;
	return pool_keep(pool, &l->in_w, 3 * d * d) && pool_keep(pool, &l->in_b, 3 * d) ? 0 : -ENOMEM;
}

int fusion_pack(struct fusion *fusion, struct pool *pool)
{
	size_t n = 2 * FUSION_CHUNK, d = fusion->dims->dim;
	int r = 0;

	if (!pool_keep(pool, &fusion->norm_w, d) || !pool_keep(pool, &fusion->norm_b, d))
		return -ENOMEM;
	for (size_t i = 0; r == 0 && i < fusion->dims->fusion_depth; i++)
		r = pack_layer(&fusion->layers[i], n, d, pool);
	for (size_t j = 0; r == 0 && j < FUSION_HEAD_LINEARS; j++)
		r = layer_pack(&fusion->head[j], n, KERNELS_F32, pool);
	return r;
}

void fusion_release(struct fusion *fusion)
{
	for (size_t i = 0; fusion->layers != NULL && i < fusion->dims->fusion_depth; i++) {
		layer_release(&fusion->layers[i].q);
		layer_release(&fusion->layers[i].out);
		layer_release(&fusion->layers[i].up);
		layer_release(&fusion->layers[i].down);
	}
	for (size_t j = 0; j < FUSION_HEAD_LINEARS; j++)
		layer_release(&fusion->head[j]);
	free(fusion->layers);
	*fusion = (struct fusion){ .dims = NULL };
}

int fusion_scratch_init(struct fusion_scratch *s, const struct dims *dims)
{
	size_t c = FUSION_CHUNK, t = dims->tokens, d = dims->dim, h = dims->fusion_heads;
	size_t widest = dims->fusion_mlp;

	for (size_t j = 0; j < DIMS_HEAD_LAYERS; j++)
		widest = dims->head[j] > widest ? dims->head[j] : widest;
	/* The limits of manifest.h keep every product below inside a size_t. */
	*s = (struct fusion_scratch){
		.memory = calloc(t * d, sizeof(float)),
		.x = calloc(2 * c * d, sizeof(float)),
		.h = calloc(2 * c * d, sizeof(float)),
		.q = calloc(2 * c * d, sizeof(float)),
		.asked = calloc(c * h * d, sizeof(float)),
		.scores = calloc(c * h * t, sizeof(float)),
		.mlp = calloc(2 * c * widest, sizeof(float)),
		.mlp2 = calloc(2 * c * widest, sizeof(float)),
	};
	if (s->memory != NULL && s->x != NULL && s->h != NULL && s->q != NULL && s->asked != NULL &&
	    s->scores != NULL && s->mlp != NULL && s->mlp2 != NULL)
		return 0;
	fusion_scratch_release(s);
	return -ENOMEM;
}

void fusion_scratch_release(struct fusion_scratch *s)
{
	free(s->memory);
	free(s->x);
	free(s->h);
	free(s->q);
	free(s->asked);
	free(s->scores);
	free(s->mlp);
	free(s->mlp2);
	*s = (struct fusion_scratch){ .x = NULL };
}

void fusion_text_release(struct fusion_text *text)
{
	pool_free(text->pool);
	*text = (struct fusion_text){ .n = 0 };
}

void fusion_norm(const struct fusion *fusion, const float *x, float *y, size_t n)
{
	layernorm(x, fusion->norm_w, fusion->norm_b, fusion->dims->fusion_eps, y, n, fusion->dims->dim);
}

void fusion_ask(const struct fusion *fusion, size_t layer, const float *q, float *ret, size_t n)
{
	size_t d = fusion->dims->dim, heads = fusion->dims->fusion_heads, width = d / heads;
	const float *k_w = fusion->layers[layer].in_w + d * d; /* [D, D] out, in */

	for (size_t h = 0; h < heads; h++)
		matmul_nn(1 / sqrtf((float)width), q + h * width, d, k_w + h * width * d, d, 0, ret + h * d,
			  heads * d, n, d, width);
}

/* maps += scores / (heads * layers), without the class token's column. */
static void add_to_maps(const struct dims *dims, const float *scores /* [n, H, T] */,
			float *maps /* [n, T-1] */, size_t n)
{
	size_t t = dims->tokens, heads = dims->fusion_heads;
	float share = 1 / (float)(heads * dims->fusion_depth);

	for (size_t p = 0; p < n; p++)
		for (size_t h = 0; h < heads; h++)
			for (size_t i = 1; i < t; i++)
				maps[p * (t - 1) + i - 1] += share * scores[(p * heads + h) * t + i];
}

/* Row i of n becomes `times` equal rows, in place. */
static void spread(float *x /* [n * times, D] */, size_t n, size_t times, size_t dim)
{
	for (size_t i = n; i-- > 0;)
		for (size_t j = times; j-- > 0;)
			memmove(x + (i * times + j) * dim, x + i * dim, dim * sizeof(float));
}

/* Each of `images` pictures with prompts [from, from + n): pair (image, prompt) is row image * n + prompt; at most
 * FUSION_CHUNK pairs. */
static void forward_chunk(const struct fusion *fusion, struct fusion_scratch *s,
			  const struct fusion_text *text, const float *memory /* [images, T, D] N(image) */,
			  size_t images, size_t from, size_t n, float *ret_i2t /* [pairs] */,
			  float *ret_t2i /* [pairs] */, float *ret_maps /* [pairs, T-1] or NULL */)
{
	const struct dims *dims = fusion->dims;
	size_t d = dims->dim, t = dims->tokens, heads = dims->fusion_heads, pairs = images * n;
	size_t width = d / heads, rows = text->first[text->n];
	float eps = dims->fusion_eps;
	float *x_t2i = s->x + pairs * d, *h_t2i = s->h + pairs * d, *q_t2i = s->q + pairs * d; /* [pairs, D] */
	float *from_head = s->x, *to_head = s->mlp; /* [2 pairs, in], [2 pairs, out] */

	/* Queries.  Row 0 of a memory is N(image global). */
	for (size_t m = 0; m < images; m++) {
		memcpy(s->x + m * n * d, text->query + from * d, n * d * sizeof(float));
		memcpy(x_t2i + m * d, memory + m * t * d, d * sizeof(float));
	}

	for (size_t i = 0; i < dims->fusion_depth; i++) {
		const struct fusion_layer *l = &fusion->layers[i];
		const float *k = text->k + i * rows * d, *v = text->v + i * rows * d; /* [M, D] */
		const float *v_w = l->in_w + 2 * d * d;				      /* [D, D] out, in */

		/* Queries of this layer.  In layer 0 those of i2t are constant, those of t2i equal for each image. */
		if (i == 0) {
			layernorm(x_t2i, l->norm2_w, l->norm2_b, eps, h_t2i, images, d);
			layer_run(&l->q, h_t2i, q_t2i, images, LAYER_PLAIN);
			spread(x_t2i, images, n, d);
			spread(q_t2i, images, n, d);
		} else {
			layernorm(s->x, l->norm2_w, l->norm2_b, eps, s->h, 2 * pairs, d);
			layer_run(&l->q, s->h, s->q, 2 * pairs, LAYER_PLAIN);
			fusion_ask(fusion, i, s->q, s->asked, pairs);
		}

		/* i2t: n * H queries on the T rows of each image; mix the rows, then project the mixtures. */
		for (size_t m = 0; m < images; m++) {
			size_t at = m * n * heads;
			const float *image = memory + m * t * d; /* [T, D] */
			const float *asked = i == 0 ? text->asked0 + from * heads * d : s->asked + at * d; /* [n, H, D] */

			matmul_nt(1, asked, d, image, d, 0, s->scores + at * t, t, n * heads, t, d);
			softmax(s->scores + at * t, NULL, n * heads, t);
			matmul_nn(1, s->scores + at * t, t, image, d, 0, s->asked + at * d, d, n * heads, d, t);
		}
		if (ret_maps != NULL)
			add_to_maps(dims, s->scores, ret_maps, pairs);
		for (size_t p = 0; p < pairs; p++)
			memcpy(s->h + p * d, l->in_b + 2 * d, d * sizeof(float));
		for (size_t h = 0; h < heads; h++)
			matmul_nt(1, s->asked + h * d, heads * d, v_w + h * width * d, d, 1,
				  s->h + h * width, d, pairs, width, d);

		/* t2i: each prompt's query on its own few rows. */
		attention_apart(q_t2i, k, v, text->count, text->first + from, n, h_t2i, pairs, d, heads);
		layer_run(&l->out, s->h, s->x, 2 * pairs, LAYER_ADD);

		/* MLP */
		layernorm(s->x, l->norm3_w, l->norm3_b, eps, s->h, 2 * pairs, d);
		layer_run(&l->up, s->h, s->mlp, 2 * pairs, LAYER_RELU);
		layer_run(&l->down, s->mlp, s->x, 2 * pairs, LAYER_ADD);
	}

	/* Head */
	fusion_norm(fusion, s->x, s->x, 2 * pairs);
	for (size_t j = 0; j < FUSION_HEAD_LINEARS; j++) {
		layer_run(&fusion->head[j], from_head, to_head, 2 * pairs,
			  j < DIMS_HEAD_LAYERS ? LAYER_RELU : LAYER_PLAIN);
		from_head = to_head;
		to_head = from_head == s->mlp ? s->mlp2 : s->mlp;
	}
	memcpy(ret_i2t, from_head, pairs * sizeof(float));
	memcpy(ret_t2i, from_head + pairs, pairs * sizeof(float));
}

void fusion_forward(const struct fusion *fusion, struct fusion_scratch *s, const struct fusion_text *text,
		    const float *image, float *ret_i2t, float *ret_t2i, float *ret_maps)
{
	size_t patches = fusion->dims->tokens - 1;

	fusion_norm(fusion, image, s->memory, fusion->dims->tokens);
	if (ret_maps != NULL)
		memset(ret_maps, 0, text->n * patches * sizeof(float));
	for (size_t from = 0; from < text->n; from += FUSION_CHUNK) {
		size_t n = text->n - from < FUSION_CHUNK ? text->n - from : FUSION_CHUNK;

		forward_chunk(fusion, s, text, s->memory, 1, from, n, ret_i2t + from, ret_t2i + from,
			      ret_maps != NULL ? ret_maps + from * patches : NULL);
	}
}

size_t fusion_images(const struct fusion_text *text)
{
	return text->n < FUSION_CHUNK ? FUSION_CHUNK / text->n : 1;
}

void fusion_forward_memory(const struct fusion *fusion, struct fusion_scratch *s, const struct fusion_text *text,
			   const float *memory, size_t images, float *ret_i2t, float *ret_t2i)
{
	for (size_t from = 0; from < text->n; from += FUSION_CHUNK) {
		size_t n = text->n - from < FUSION_CHUNK ? text->n - from : FUSION_CHUNK;

		forward_chunk(fusion, s, text, memory, images, from, n, ret_i2t + from, ret_t2i + from, NULL);
	}
}
