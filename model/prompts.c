/* prompts.c: see prompts.h.
 *
 *	s            bert_encode(): one row a token
 *	merge        a piece that continues a word is added to the word before it; [CLS] and [SEP] are
 *	             words of their own
 *	global       (sum of the words) / W, W = 97: the reference takes the mean over 97 rows, most of
 *	             them zero, so the vector grows with the number of words
 *	query        N(global), and layer 0's query made from it
 *	memory       N of: global, k words, and one zero row that stands for all 97 - k of them
 *	k, v         of the memory, for every layer
 *
 * The zero rows are not masked: each takes its share of the softmax.  LN(0) is the bias of
 * decoder_norm for all of them, so one row with a count of 97 - k is the same thing.
 */
#include "base/mem.h"

#include "model/kernels.h"
#include "model/prompts.h"

/* How many of the n texts fit one pass, at least one. */
static size_t texts_at_once(const struct bert_text *texts, size_t n, size_t *ret_tokens)
{
	size_t tokens = texts[0].n, i;

	for (i = 1; i < n && tokens + texts[i].n <= BERT_ROWS; i++)
		tokens += texts[i].n;
	*ret_tokens = tokens;
	return i;
}

/* Adds the tokens of one text to word rows; returns the number of words. */
static size_t merge(const struct bert_text *text, const float *tokens /* [text->n, D] */,
		    float *words /* [<= text->n, D], zeroed */, size_t dim)
{
	size_t n = 0;

	for (size_t i = 0; i < text->n; i++) {
		if (i == 0 || !text->continues[i])
			n++;
		for (size_t j = 0; j < dim; j++)
			words[(n - 1) * dim + j] += tokens[i * dim + j];
	}
	return n;
}

static void mean(const float *words /* [k, D] */, size_t k, size_t word_num, float *ret /* [D] */,
		 size_t dim)
{
	for (size_t i = 0; i < k; i++)
		for (size_t j = 0; j < dim; j++)
			ret[j] += words[i * dim + j];
	for (size_t j = 0; j < dim; j++)
		ret[j] /= (float)word_num;
}

static int encode_all(const struct bert *bert, const struct bert_text *texts, float *tokens,
		      struct prompt_words *words)
{
	size_t dim = bert->dims->dim, n, ignored;
	int r;

	for (size_t done = 0; done < words->n; done += n) {
		const float *at = tokens; /* [text's n, D] */

		n = texts_at_once(texts + done, words->n - done, &ignored);
		r = bert_encode(bert, texts + done, n, tokens);
		if (r < 0)
			return r;
		for (size_t p = done; p < done + n; p++) {
			float *rows = words->rows + words->first[p] * dim;
			size_t k = merge(&texts[p], at, rows, dim);

			words->first[p + 1] = words->first[p] + k;
			mean(rows, k, bert->dims->word_num, words->global + p * dim, dim);
			at += texts[p].n * dim;
		}
	}
	return 0;
}

int prompts_encode_ids(const struct bert *bert, const struct bert_text *texts, size_t n,
		       struct prompt_words *ret)
{
	size_t dim = bert->dims->dim, all = 0, most = 0, tokens, bytes;
	struct prompt_words words = { .n = n };
	CLEANUP(free) float *pass = NULL; /* [most, D] */
	int r;

	for (size_t p = 0; p < n; p++) {
		if (texts[p].n > bert->dims->word_num || !add_ok(all, texts[p].n, &all))
			return -EBADMSG;
		(void)texts_at_once(texts + p, n - p, &tokens);
		most = tokens > most ? tokens : most;
	}
	if (!mul_ok(all, dim * sizeof(float), &bytes)) /* dim: bounded by manifest.h */
		return -ENOMEM;
	pass = calloc(most, dim * sizeof(float));
	words.global = calloc(n, dim * sizeof(float));
	words.first = calloc(n + 1, sizeof(*words.first));
	words.rows = calloc(1, bytes);
	r = -ENOMEM;
	if (pass != NULL && words.global != NULL && words.first != NULL && words.rows != NULL)
		r = encode_all(bert, texts, pass, &words);
	if (r < 0) {
		prompt_words_release(&words);
		return r;
	}
	*ret = words;
	return 0;
}

void prompt_words_release(struct prompt_words *words)
{
	free(words->global);
	free(words->first);
	free(words->rows);
	*words = (struct prompt_words){ .n = 0 };
}

int prompt_words_join(const struct dims *dims, const float *const *rows, const size_t *k, size_t n,
		      struct prompt_words *ret)
{
	size_t dim = dims->dim, all = 0, bytes;
	struct prompt_words words = { .n = n };

	for (size_t p = 0; p < n; p++)
		if (!add_ok(all, k[p], &all))
			return -ENOMEM;
	if (!mul_ok(all, dim * sizeof(float), &bytes))
		return -ENOMEM;
	words.global = calloc(n, dim * sizeof(float));
	words.first = calloc(n + 1, sizeof(*words.first));
	words.rows = calloc(1, bytes);
	if (words.global == NULL || words.first == NULL || words.rows == NULL) {
		prompt_words_release(&words);
		return -ENOMEM;
	}
	for (size_t p = 0; p < n; p++) {
		float *to = words.rows + words.first[p] * dim;

		memcpy(to, rows[p], k[p] * dim * sizeof(float));
		mean(to, k[p], dims->word_num, words.global + p * dim, dim);
		words.first[p + 1] = words.first[p] + k[p];
	}
	*ret = words;
	return 0;
}

/* Places for the tables of n prompts with `rows` memory rows; a filled pool knows both numbers itself. */
static int tables_take(struct fusion_text *t, const struct dims *dims, size_t n, size_t rows, struct pool *pool)
{
	size_t row = dims->dim * sizeof(float), bytes, *shape = pool_take(pool, 2 * sizeof(*shape), 0);

	if (shape == NULL)
		return -EBADMSG;
	if (!pool_filled(pool)) {
		shape[0] = n;
		shape[1] = rows;
	}
	n = shape[0];
	rows = shape[1];
	if (n > MODEL_PROMPTS_MAX || !mul_ok(rows, dims->fusion_depth * row, &bytes))
		return -EBADMSG;
	*t = (struct fusion_text){
		.n = n,
		.pool = pool,
		.query = pool_take(pool, n * row, 0),
		.asked0 = pool_take(pool, n * dims->fusion_heads * row, 0),
		.first = pool_take(pool, (n + 1) * sizeof(*t->first), 0),
		.count = pool_take(pool, rows * sizeof(float), 0),
		.k = pool_take(pool, bytes, 0),
		.v = pool_take(pool, bytes, 0),
	};
	return pool_whole(pool) ? 0 : -ENOMEM;
}

int prompts_take_tables(const struct fusion *fusion, struct pool *filled, struct fusion_text *ret)
{
	struct fusion_text t;
	int r = tables_take(&t, fusion->dims, 0, 0, filled);

	if (r == 0)
		*ret = t;
	return r;
}

/* Fills memory with global, words and a zero row of each prompt; first and count with their meaning. */
static void lay_out_memory(const struct prompt_words *words, const struct dims *dims, struct fusion_text *t,
			   float *memory /* [M, D], zeroed */)
{
	size_t dim = dims->dim, at = 0;

	for (size_t p = 0; p < words->n; p++) {
		size_t k = words->first[p + 1] - words->first[p];

		t->first[p] = at;
		memcpy(memory + at * dim, words->global + p * dim, dim * sizeof(float));
		memcpy(memory + (at + 1) * dim, words->rows + words->first[p] * dim,
		       k * dim * sizeof(float));
		for (size_t i = 0; i < k + 1; i++)
			t->count[at + i] = 1;
		t->count[at + k + 1] = (float)(dims->word_num - k);
		at += k + 2;
	}
	t->first[words->n] = at;
}

int prompts_tables(const struct fusion *fusion, const struct prompt_words *words, struct fusion_text *ret)
{
	const struct dims *dims = fusion->dims;
	size_t n = words->n, d = dims->dim, rows = words->first[n] + 2 * n;
	const struct fusion_layer *l0 = &fusion->layers[0];
	CLEANUP(free) float *memory = calloc(rows, d * sizeof(float)); /* [M, D] */
	CLEANUP(free) float *h = calloc(n, d * sizeof(float));	       /* [n, D] */
	CLEANUP(free) float *q = calloc(n, d * sizeof(float));	       /* [n, D] */
	struct fusion_text t;
	struct pool *pool;
	int r;

	if (memory == NULL || h == NULL || q == NULL)
		return -ENOMEM;
	pool = pool_new();
	r = tables_take(&t, dims, n, rows, pool);
	if (r < 0) {
		pool_free(pool);
		return r;
	}

	fusion_norm(fusion, words->global, t.query, n);
	layernorm(t.query, l0->norm2_w, l0->norm2_b, dims->fusion_eps, h, n, d);
	layer_run(&l0->q, h, q, n, LAYER_PLAIN);
	fusion_ask(fusion, 0, q, t.asked0, n);

	lay_out_memory(words, dims, &t, memory);
	fusion_norm(fusion, memory, memory, rows);
	for (size_t i = 0; i < dims->fusion_depth; i++) {
		const struct fusion_layer *l = &fusion->layers[i];

		linear(memory, l->in_w + d * d, l->in_b + d, t.k + i * rows * d, rows, d, d);
		linear(memory, l->in_w + 2 * d * d, l->in_b + 2 * d, t.v + i * rows * d, rows, d, d);
	}
	*ret = t;
	return 0;
}
