/* texts.c: see texts.h.
 *
 * A prompt is what the text tower is told of it: ids, and which of them continue a word.  So cleaning,
 * vocabulary and text are in its digest without being named.
 *
 * Nothing here is worth an error of its own: what cannot be read is computed, what cannot be kept is
 * computed the next time.
 */
#include "base/mem.h"

#include "model/prompts.h"
#include "model/texts.h"

#define TABLES "tables"
#define WORDS "words"

struct known { /* of one prompt */
	uint8_t key[DIGEST_SIZE];
	const float *rows; /* [k, D], or NULL */
	size_t k;
};

/* ---- keys ------------------------------------------------------------------------------------ */

static void prompt_key(const struct bert_text *t, uint8_t ret[DIGEST_SIZE])
{
	struct digest *d = digest_new();

	for (size_t i = 0; i < t->n; i++) {
		const int32_t token[2] = { t->ids[i], t->continues[i] };

		digest_update(d, token, sizeof(token));
	}
	digest_final(d, ret);
	digest_free(d);
}

/* n = 0: of the words of any prompt. */
static int key_of(const struct bundle *b, const struct known *prompts, size_t n, uint8_t ret[DIGEST_SIZE], struct err *e)
{
	struct digest *d = digest_new();
	int r = bundle_key(b, d, e);

	for (size_t p = 0; p < n; p++)
		digest_update(d, prompts[p].key, DIGEST_SIZE);
	digest_final(d, ret);
	digest_free(d);
	return r;
}

/* ---- words ----------------------------------------------------------------------------------- */

/* A record: the prompt's key, then its rows.  False: no record. */
static bool read_record(struct pool *p, size_t dim, struct known *ret)
{
	size_t row = dim * sizeof(float), n;
	uint64_t tag;
	const uint8_t *record = pool_next(p, &tag, &n);

	if (record == NULL || n < DIGEST_SIZE || (n - DIGEST_SIZE) % row != 0 || n == DIGEST_SIZE)
		return false;
	memcpy(ret->key, record, DIGEST_SIZE);
	ret->rows = (const float *)(const void *)(record + DIGEST_SIZE);
	ret->k = (n - DIGEST_SIZE) / row;
	return true;
}

static void add_record(struct pool *to, const struct known *k, size_t dim, size_t *records, size_t *bytes)
{
	size_t n = DIGEST_SIZE + k->k * dim * sizeof(float);
	uint8_t *record;

	if (*records >= TEXTS_KEPT_MAX || n > TEXTS_KEPT_BYTES_MAX - *bytes)
		return;
	record = pool_take(to, n, 0);
	if (record == NULL)
		return;
	memcpy(record, k->key, DIGEST_SIZE);
	memcpy(record + DIGEST_SIZE, k->rows, n - DIGEST_SIZE);
	*records += 1;
	*bytes += n;
}

static struct known *find(struct known *prompts, size_t n, const uint8_t key[DIGEST_SIZE])
{
	for (size_t p = 0; p < n; p++)
		if (memcmp(prompts[p].key, key, DIGEST_SIZE) == 0)
			return &prompts[p];
	return NULL;
}

/* Gives the prompts their rows of the file, where it has them. */
static void read_words(struct pool *file, struct known *prompts, size_t n, const struct dims *dims)
{
	struct known record;

	while (read_record(file, dims->dim, &record))
		for (size_t p = 0; p < n; p++)
			if (memcmp(prompts[p].key, record.key, DIGEST_SIZE) == 0 && record.k <= dims->word_num) {
				prompts[p].rows = record.rows;
				prompts[p].k = record.k;
			}
}

/* The present prompts first, then the others of the old file as far as there is room. */
static int keep_words(struct cache *c, const uint8_t key[DIGEST_SIZE], struct pool *old, struct known *prompts, size_t n,
		      size_t dim, struct err *e)
{
	struct pool *to = pool_new();
	size_t records = 0, bytes = 0;
	struct known record;
	int r;

	for (size_t p = 0; p < n; p++)
		if (find(prompts, p, prompts[p].key) == NULL)
			add_record(to, &prompts[p], dim, &records, &bytes);
	if (old != NULL)
		pool_rewind(old);
	while (old != NULL && read_record(old, dim, &record))
		if (find(prompts, n, record.key) == NULL)
			add_record(to, &record, dim, &records, &bytes);
	r = cache_put(c, WORDS, key, to, e);
	pool_free(to);
	return r;
}

/* The text tower for those that have no rows yet; `made` is what they point into. */
static int encode_missing(struct bundle *b, const struct bert_text *texts, struct known *prompts, size_t n,
			  struct prompt_words *made, struct err *e)
{
	CLEANUP(free) struct bert_text *missing = xcalloc(n, sizeof(*missing));
	size_t m = 0, dim = b->manifest.dims.dim;
	int r;

	for (size_t p = 0; p < n; p++)
		if (prompts[p].rows == NULL)
			missing[m++] = texts[p];
	if (m == 0)
		return 0;
	r = bundle_verify(b, e);
	if (r < 0)
		return r;
	r = prompts_encode_ids(&b->bert, missing, m, made);
	if (r < 0)
		return err_set(e, r, "the text tower refused the prompts: %s", strerror(-r));
	m = 0;
	for (size_t p = 0; p < n; p++) {
		if (prompts[p].rows != NULL)
			continue;
		prompts[p].rows = made->rows + made->first[m] * dim;
		prompts[p].k = made->first[m + 1] - made->first[m];
		m++;
	}
	return 0;
}

static int make_tables(const struct bundle *b, const struct known *prompts, size_t n, struct fusion_text *ret, struct err *e)
{
	CLEANUP(free) const float **rows = xcalloc(n, sizeof(*rows)); /* [n] */
	CLEANUP(free) size_t *k = xcalloc(n, sizeof(*k));	      /* [n] */
	struct prompt_words words;
	int r;

	for (size_t p = 0; p < n; p++) {
		rows[p] = prompts[p].rows;
		k[p] = prompts[p].k;
	}
	r = prompt_words_join(&b->manifest.dims, rows, k, n, &words);
	if (r == 0) {
		r = prompts_tables(&b->fusion, &words, ret);
		prompt_words_release(&words);
	}
	return r < 0 ? err_set(e, r, "no memory for the tables of %zu prompts", n) : 0;
}

/* ---- tables ---------------------------------------------------------------------------------- */

static int take_tables(const struct bundle *b, struct cache *c, const uint8_t key[DIGEST_SIZE], size_t n,
		       struct fusion_text *ret, struct err *e)
{
	struct pool *file;
	int r = cache_get(c, TABLES, key, &file, e);

	if (r < 0)
		return r;
	if (prompts_take_tables(&b->fusion, file, ret) == 0 && ret->n == n)
		return 0;
	pool_free(file);
	return err_set(e, -EBADMSG, "tables of something else");
}

/* In the pages that others share, if that can be. */
static int keep_tables(const struct bundle *b, struct cache *c, const uint8_t key[DIGEST_SIZE], struct fusion_text *text,
		       struct err *e)
{
	struct fusion_text shared;
	int r = cache_put(c, TABLES, key, text->pool, e);

	if (r == 0)
		r = take_tables(b, c, key, text->n, &shared, e);
	if (r < 0)
		return r;
	fusion_text_release(text);
	*text = shared;
	return 0;
}

static size_t without_rows(const struct known *prompts, size_t n)
{
	size_t missing = 0;

	for (size_t p = 0; p < n; p++)
		missing += prompts[p].rows == NULL;
	return missing;
}

/* Under the lock, or without a cache.  note: what was wrong with the cache so far, as ": TEXT", or "". */
static int make(struct bundle *b, struct cache *c, const uint8_t tables_key[DIGEST_SIZE], const struct bert_text *texts,
		struct known *prompts, size_t n, struct fusion_text *ret, struct err *note, struct err *e)
{
	struct prompt_words made = { .n = 0 };
	uint8_t key[DIGEST_SIZE];
	struct pool *old = NULL;
	struct err why;
	size_t missing;
	int r = c != NULL ? key_of(b, NULL, 0, key, e) : 0;

	if (r < 0)
		return r;
	if (c != NULL) {
		r = cache_get(c, WORDS, key, &old, &why);
		if (r == 0)
			read_words(old, prompts, n, &b->manifest.dims);
		else if (r != -ENOENT)
			(void)err_set(note, 0, ": %s", why.text);
	}
	missing = without_rows(prompts, n);
	r = encode_missing(b, texts, prompts, n, &made, e);
	if (r == 0)
		r = make_tables(b, prompts, n, ret, e);
	if (r == 0 && c != NULL && missing > 0 && keep_words(c, key, old, prompts, n, b->manifest.dims.dim, &why) < 0)
		(void)err_set(note, 0, ", not kept: %s", why.text);
	if (r == 0 && c != NULL && keep_tables(b, c, tables_key, ret, &why) < 0)
		(void)err_set(note, 0, ", not kept: %s", why.text);
	why = *note;
	(void)err_set(note, 0, "%zu of %zu texts made%s", missing, n, why.text);
	pool_free(old);
	prompt_words_release(&made);
	return r;
}

int texts_tables(struct bundle *b, struct cache *c, const struct bert_text *texts, size_t n, struct fusion_text *ret,
		 struct err *note, struct err *e)
{
	CLEANUP(free) struct known *prompts = xcalloc(n, sizeof(*prompts));
	uint8_t key[DIGEST_SIZE] = { 0 };
	struct err why;
	int r;

	*note = (struct err){ "" };
	for (size_t p = 0; p < n; p++)
		prompt_key(&texts[p], prompts[p].key);
	if (c == NULL)
		return make(b, NULL, key, texts, prompts, n, ret, note, e);
	r = key_of(b, prompts, n, key, e);
	if (r < 0)
		return r;
	cache_lock(c); /* whoever came second finds what the first has made */
	r = take_tables(b, c, key, n, ret, &why);
	if (r == 0)
		(void)err_set(note, 0, "texts found");
	else if (r != -ENOENT)
		(void)err_set(note, 0, ": %s", why.text);
	if (r < 0)
		r = make(b, c, key, texts, prompts, n, ret, note, e);
	cache_unlock(c);
	return r;
}
