/* model.c: the public face.  See model.h for what is promised; bundle.c opens, prompts.c, vit.c and
 * fusion.c compute.
 */
#include <math.h>

#include "base/mem.h"
#include "base/str.h"

#include "model/bundle.h"
#include "model/cache.h"
#include "model/half.h"
#include "model/kernels.h"
#include "model/model.h"
#include "model/texts.h"

struct model {
	struct bundle *bundle;
	struct cache *cache; /* NULL: none */
	struct err packed, note; /* what it gave for the weights; altogether */
	bool prepared, embeddings; /* to score; embeddings alone */
	struct model_info info;
	struct fusion_text text; /* n = 0 until prompts are set */
};

static const enum kernels_precision kernels_precision[] = {
	[MODEL_F32] = KERNELS_F32, [MODEL_BF16] = KERNELS_BF16, [MODEL_INT8] = KERNELS_INT8,
};

struct model_run {
	const struct model *model;
	struct vit_scratch vit;
	struct fusion_scratch fusion;
	float i2t[MODEL_PROMPTS_MAX], t2i[MODEL_PROMPTS_MAX]; /* [prompts], or [embeddings, prompts] */
	float *memory; /* [MODEL_EMBEDDINGS, T, D] of embeddings; NULL before the first */
};

static void describe(const struct bundle *b, struct model_info *info)
{
	const struct dims *d = &b->manifest.dims;

	*info = (struct model_info){
		.domain = b->manifest.domain,
		.dim = d->dim,
		.vit_depth = d->vit_depth,
		.vit_heads = d->vit_heads,
		.bert_depth = d->bert_depth,
		.bert_heads = d->bert_heads,
		.fusion_depth = d->fusion_depth,
		.fusion_heads = d->fusion_heads,
		.image_size = d->square,
		.crop = d->image,
		.map_side = d->grid,
		.tokens = d->tokens,
		.word_num = d->word_num,
		.vocab = d->vocab,
		.parameters = weights_used(b->weights),
	};
	(void)str_copy(info->name, sizeof(info->name), b->manifest.name);	/* same sizes */
	(void)str_copy(info->family, sizeof(info->family), b->manifest.family); /* same sizes */
	memcpy(info->digest, b->manifest.digest, DIGEST_SIZE);
}

static int prepare(struct model *m, const struct model_use *use, struct err *e)
{
	struct err note = { "" };
	int r;

	if (use->embeddings)
		return bundle_pack_fusion(m->bundle, e);
	if (use->cache != NULL && cache_open(use->cache, use->spare, &m->cache, &note) < 0)
		(void)err_set(&m->note, 0, "none: %s", note.text);
	r = bundle_pack(m->bundle, kernels_precision[use->precision], m->cache, &note, e);
	if (m->cache != NULL)
		(void)err_set(&m->packed, 0, "weights %s", note.text);
	return r;
}

int model_open(const char *dir, const struct model_use *use, struct model **ret, struct err *e)
{
	struct model *m = xcalloc(1, sizeof(*m));
	int r = bundle_map(dir, &m->bundle, e);

	if (r == 0)
		r = use != NULL ? prepare(m, use, e) : bundle_verify(m->bundle, e);
	if (r < 0) {
		model_close(m);
		return r;
	}
	m->prepared = use != NULL;
	m->embeddings = use != NULL && use->embeddings;
	describe(m->bundle, &m->info);
	*ret = m;
	return 0;
}

void model_close(struct model *m)
{
	if (m == NULL)
		return;
	fusion_text_release(&m->text);
	bundle_close(m->bundle);
	cache_close(m->cache);
	free(m);
}

const struct model_info *model_info(const struct model *m)
{
	return &m->info;
}

const char *model_cache_note(const struct model *m)
{
	return m->note.text;
}

/* One prompt as ids and marks, both [word_num]. */
static int tokenise(const struct tokenizer *t, const char *prompt, size_t word_num, int32_t *ids,
		    bool *continues, size_t *ret_n, struct err *e)
{
	char clean[MODEL_PROMPT_BYTES_MAX + 1], shown[128];
	size_t n;
	int r;

	str_quote(shown, sizeof(shown), prompt);
	if (strlen(prompt) > MODEL_PROMPT_BYTES_MAX)
		return err_set(e, -E2BIG, "prompt \"%s\" has %zu bytes, at most %d are read", shown,
			       strlen(prompt), MODEL_PROMPT_BYTES_MAX);
	r = tokenizer_clean(prompt, clean, e);
	if (r < 0)
		return err_prefix(e, r, "prompt \"%s\"", shown);
	if (clean[0] == '\0')
		return err_set(e, -EBADMSG,
			       "prompt \"%s\" has no sentence of two words and would be empty to the model; "
			       "write \"There is %s\"",
			       shown, shown);
	r = tokenizer_encode(t, clean, ids, word_num, &n);
	if (r < 0)
		return err_set(e, r, "prompt \"%s\" cannot be tokenised", shown);
	for (size_t i = 0; i < n; i++)
		continues[i] = tokenizer_continues(t, ids[i]);
	*ret_n = n;
	return 0;
}

static int compute_tables(struct model *m, const struct bert_text *texts, size_t n, struct err *e)
{
	struct fusion_text text;
	struct err note;
	int r = texts_tables(m->bundle, m->cache, texts, n, &text, &note, e);

	if (r < 0)
		return r;
	if (m->cache != NULL)
		(void)err_set(&m->note, 0, "%s, %s", m->packed.text, note.text);
	fusion_text_release(&m->text);
	m->text = text;
	weights_rest(m->bundle->weights); /* the text tower is read no more; packed layers neither */
	return 0;
}

int model_set_prompts(struct model *m, const char *const *text, size_t n, struct err *e)
{
	size_t word_num = m->info.word_num;
	CLEANUP(free) struct bert_text *texts = NULL; /* [n] */
	CLEANUP(free) int32_t *ids = NULL;	      /* [n, word_num] */
	CLEANUP(free) bool *continues = NULL;	      /* [n, word_num] */
	int r;

	if (n == 0 || n > MODEL_PROMPTS_MAX)
		return err_set(e, -E2BIG, "%zu prompts, expected 1 to %d", n, MODEL_PROMPTS_MAX);
	texts = xcalloc(n, sizeof(*texts));
	ids = xcalloc(n * word_num, sizeof(*ids)); /* both bounded: 512 x 4096 */
	continues = xcalloc(n * word_num, sizeof(*continues));
	for (size_t p = 0; p < n; p++) {
		texts[p].ids = ids + p * word_num;
		texts[p].continues = continues + p * word_num;
		r = tokenise(m->bundle->tokenizer, text[p], word_num, ids + p * word_num,
			     continues + p * word_num, &texts[p].n, e);
		if (r < 0)
			return r;
	}
	return compute_tables(m, texts, n, e);
}

int model_run_new(const struct model *m, struct model_run **ret, struct err *e)
{
	const struct dims *dims = &m->bundle->manifest.dims;
	struct model_run *run = xcalloc(1, sizeof(*run));
	int r;

	run->model = m;
	r = vit_scratch_init(&run->vit, dims);
	if (r == 0)
		r = fusion_scratch_init(&run->fusion, dims);
	if (r < 0) {
		model_run_free(run);
		return err_set(e, r, "no memory for a run of model %s", m->info.name);
	}
	*ret = run;
	return 0;
}

void model_run_free(struct model_run *run)
{
	if (run == NULL)
		return;
	vit_scratch_release(&run->vit);
	fusion_scratch_release(&run->fusion);
	free(run->memory);
	free(run);
}

/* The mean of both directions; -EDOM when one is out of its senses (broken weights): never a score. */
static int take_logits(const struct model_run *run, size_t n, float *ret /* [n] */)
{
	for (size_t p = 0; p < n; p++)
		if (!isfinite(run->i2t[p] + run->t2i[p]))
			return -EDOM;
	for (size_t p = 0; p < n; p++)
		ret[p] = (run->i2t[p] + run->t2i[p]) / 2;
	return 0;
}

int model_score(struct model_run *run, const uint8_t *square, float *ret_logits, float *ret_maps)
{
	const struct model *m = run->model;
	const struct fusion_text *text = &m->text;
	unsigned long fallbacks = kernels_fallbacks();

	if (text->n == 0 || !m->prepared || m->embeddings)
		return -EINVAL;
	vit_forward(&m->bundle->vit, &run->vit, square);
	fusion_forward(&m->bundle->fusion, &run->fusion, text, run->vit.x, run->i2t, run->t2i, ret_maps);
	if (m->bundle->vit.precision != KERNELS_F32 && kernels_fallbacks() != fallbacks)
		return -EIO;
	return take_logits(run, text->n, ret_logits);
}

int model_embedding(const struct model_run *run, uint16_t *ret)
{
	return half_from_float(run->fusion.memory, ret, run->model->info.tokens * run->model->info.dim);
}

int model_score_embeddings(struct model_run *run, const uint16_t *const *embedding, size_t n, float *ret_logits)
{
	const struct model *m = run->model;
	const struct fusion_text *text = &m->text;
	size_t size = m->info.tokens * m->info.dim, at_once, some;
	int r;

	if (text->n == 0 || !m->prepared)
		return -EINVAL;
	if (run->memory == NULL)
		run->memory = calloc(MODEL_EMBEDDINGS * size, sizeof(float)); /* the limits of manifest.h keep it in a size_t */
	if (run->memory == NULL)
		return -ENOMEM;
	at_once = fusion_images(text) < MODEL_EMBEDDINGS ? fusion_images(text) : MODEL_EMBEDDINGS;
	for (size_t done = 0; done < n; done += some) {
		some = n - done < at_once ? n - done : at_once;
		for (size_t i = 0; i < some; i++) {
			r = half_to_float(embedding[done + i], run->memory + i * size, size);
			if (r < 0)
				return r;
		}
		fusion_forward_memory(&m->bundle->fusion, &run->fusion, text, run->memory, some, run->i2t, run->t2i);
		r = take_logits(run, some * text->n, ret_logits + done * text->n);
		if (r < 0)
			return r;
	}
	return 0;
}
