/* bert.c: the text tower.  MODEL.md 3 has every tensor and the reasons.
 *
 *	embed        x = norm(word[id] + type[0] + position[i])          hidden state 0
 *	bert_depth times
 *	  attention  x = norm1(x + out(MHA(q(x), k(x), v(x))))            inside each text
 *	  mlp        x = norm2(x + down(gelu(up(x))))                     hidden state i + 1
 *	sum          of the last `last_layers` hidden states, token by token
 *
 * The reference pads every text to 97 tokens and masks the padding, so padding reaches no real token;
 * and nothing downstream reads a padded position.  So only real tokens are computed.
 */
#include "base/mem.h"

#include "model/bert.h"
#include "model/kernels.h"

struct scratch {
	float *x;      /* [N, D] N = tokens of all texts, and empty rows */
	float *q, *k, *v; /* [N, D] */
	float *h;      /* [N, D] attention's output */
	float *scores; /* [longest text, longest text] of one head */
	float *mlp;    /* [N, F] */
};

static int bind_layer(struct bert_layer *l, size_t i, const struct dims *dims, struct weights *w,
		      struct err *e)
{
	size_t d = dims->dim, f = dims->bert_mlp;
	const struct weights_want want[] = {
		{ "attention.self.query.weight", &l->q_w, { d, d } },
		{ "attention.self.query.bias", &l->q_b, { d } },
		{ "attention.self.key.weight", &l->k_w, { d, d } },
		{ "attention.self.key.bias", &l->k_b, { d } },
		{ "attention.self.value.weight", &l->v_w, { d, d } },
		{ "attention.self.value.bias", &l->v_b, { d } },
		{ "attention.output.dense.weight", &l->out_w, { d, d } },
		{ "attention.output.dense.bias", &l->out_b, { d } },
		{ "attention.output.LayerNorm.weight", &l->norm1_w, { d } },
		{ "attention.output.LayerNorm.bias", &l->norm1_b, { d } },
		{ "intermediate.dense.weight", &l->up_w, { f, d } },
		{ "intermediate.dense.bias", &l->up_b, { f } },
		{ "output.dense.weight", &l->down_w, { d, f } },
		{ "output.dense.bias", &l->down_b, { d } },
		{ "output.LayerNorm.weight", &l->norm2_w, { d } },
		{ "output.LayerNorm.bias", &l->norm2_b, { d } },
	};
	char prefix[WEIGHTS_NAME_MAX];

	(void)snprintf(prefix, sizeof(prefix), "text_encoder.model.encoder.layer.%zu.", i);
	return weights_bind(w, prefix, want, ARRAY_SIZE(want), e);
}

int bert_bind(struct bert *bert, const struct dims *dims, struct weights *w, struct err *e)
{
	size_t d = dims->dim;
	const struct weights_want want[] = {
		{ "word_embeddings.weight", &bert->word, { dims->vocab, d } },
		{ "position_embeddings.weight", &bert->position, { dims->positions, d } },
		{ "token_type_embeddings.weight", &bert->type, { 2, d } },
		{ "LayerNorm.weight", &bert->norm_w, { d } },
		{ "LayerNorm.bias", &bert->norm_b, { d } },
	};
	int r;

	*bert = (struct bert){ .dims = dims };
	r = weights_bind(w, "text_encoder.model.embeddings.", want, ARRAY_SIZE(want), e);
	if (r < 0)
		return r;
	bert->layers = xcalloc(dims->bert_depth, sizeof(*bert->layers));
	for (size_t i = 0; i < dims->bert_depth; i++) {
		r = bind_layer(&bert->layers[i], i, dims, w, e);
		if (r < 0)
			return r;
	}
	return 0;
}

void bert_release(struct bert *bert)
{
	free(bert->layers);
	*bert = (struct bert){ .dims = NULL };
}

static void scratch_release(struct scratch *s)
{
	free(s->x);
	free(s->q);
	free(s->k);
	free(s->v);
	free(s->h);
	free(s->scores);
	free(s->mlp);
}

static int scratch_init(struct scratch *s, const struct dims *dims, size_t tokens, size_t longest)
{
	size_t n;

	if (!mul_ok(tokens, dims->dim > dims->bert_mlp ? dims->dim : dims->bert_mlp, &n))
		return -ENOMEM;
	*s = (struct scratch){
		.x = calloc(tokens * dims->dim, sizeof(float)),
		.q = calloc(tokens * dims->dim, sizeof(float)),
		.k = calloc(tokens * dims->dim, sizeof(float)),
		.v = calloc(tokens * dims->dim, sizeof(float)),
		.h = calloc(tokens * dims->dim, sizeof(float)),
		.scores = calloc(longest * longest, sizeof(float)),
		.mlp = calloc(tokens * dims->bert_mlp, sizeof(float)),
	};
	if (s->x != NULL && s->q != NULL && s->k != NULL && s->v != NULL && s->h != NULL &&
	    s->scores != NULL && s->mlp != NULL)
		return 0;
	scratch_release(s);
	return -ENOMEM;
}

/* Adds x to the result when hidden state `state` is one of the last `last_layers`. */
static void sum_state(const struct dims *dims, size_t state, const float *x /* [n] */,
		      float *sum /* [n] */, size_t n)
{
	if (state + dims->last_layers < dims->bert_depth + 1)
		return;
	for (size_t i = 0; i < n; i++)
		sum[i] += x[i];
}

/* tokens: of all texts; n: rows, of which the last are empty. */
static void forward(const struct bert *bert, struct scratch *s, const struct bert_text *texts,
		    size_t n_texts, size_t tokens, size_t n, float *sum /* [tokens, D] */)
{
	const struct dims *dims = bert->dims;
	size_t d = dims->dim, f = dims->bert_mlp;
	float *row = s->x; /* [D] */
	float eps = dims->bert_eps;

	memset(sum, 0, tokens * d * sizeof(float));

	/* Embed: positions count from 0 in every text. */
	for (size_t t = 0; t < n_texts; t++)
		for (size_t i = 0; i < texts[t].n; i++, row += d)
			for (size_t j = 0; j < d; j++)
				row[j] = bert->word[(size_t)texts[t].ids[i] * d + j] + bert->type[j] +
					 bert->position[i * d + j];
	layernorm(s->x, bert->norm_w, bert->norm_b, eps, s->x, n, d);
	sum_state(dims, 0, s->x, sum, tokens * d);

	for (size_t i = 0; i < dims->bert_depth; i++) {
		const struct bert_layer *l = &bert->layers[i];
		size_t at = 0; /* first element of the text's rows */

		/* Attention */
		linear(s->x, l->q_w, l->q_b, s->q, n, d, d);
		linear(s->x, l->k_w, l->k_b, s->k, n, d, d);
		linear(s->x, l->v_w, l->v_b, s->v, n, d, d);
		for (size_t t = 0; t < n_texts; at += texts[t].n * d, t++)
			attention(s->q + at, d, s->k + at, d, s->v + at, d, NULL, s->h + at, d, s->scores,
				  texts[t].n, texts[t].n, d, dims->bert_heads);
		linear_add(s->h, l->out_w, l->out_b, s->x, n, d, d);
		layernorm(s->x, l->norm1_w, l->norm1_b, eps, s->x, n, d);

		/* MLP */
		linear(s->x, l->up_w, l->up_b, s->mlp, n, d, f);
		gelu(s->mlp, n * f);
		linear_add(s->mlp, l->down_w, l->down_b, s->x, n, f, d);
		layernorm(s->x, l->norm2_w, l->norm2_b, eps, s->x, n, d);
		sum_state(dims, i + 1, s->x, sum, tokens * d);
	}
}

int bert_encode(const struct bert *bert, const struct bert_text *texts, size_t n_texts, float *ret_sum)
{
	const struct dims *dims = bert->dims;
	size_t tokens = 0, longest = 0, rows;
	struct scratch s;
	int r;

	for (size_t t = 0; t < n_texts; t++) {
		if (texts[t].n < 2 || texts[t].n > dims->word_num)
			return -EBADMSG;
		for (size_t i = 0; i < texts[t].n; i++)
			if (texts[t].ids[i] < 0 || (size_t)texts[t].ids[i] >= dims->vocab)
				return -EBADMSG;
		tokens += texts[t].n;
		longest = texts[t].n > longest ? texts[t].n : longest;
	}
	rows = (tokens + BERT_ROWS - 1) / BERT_ROWS * BERT_ROWS;
	r = scratch_init(&s, dims, rows, longest);
	if (r < 0)
		return r;
	forward(bert, &s, texts, n_texts, tokens, rows, ret_sum);
	scratch_release(&s);
	return 0;
}
