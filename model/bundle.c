/* bundle.c: see bundle.h.  The order is chosen so that a person sees the most telling error: a broken
 * model.json before the weights, a damaged weights file before a digest mismatch, a foreign one
 * (wrong digest) before a missing tensor; so the digest is also taken where binding fails.
 */
#include <limits.h>
#include <stddef.h>

#include "base/mem.h"
#include "base/str.h"

#include "model/bundle.h"

static int path_in(char ret[PATH_MAX], const char *dir, const char *file, struct err *e)
{
	int n = snprintf(ret, PATH_MAX, "%s/%s", dir, file);

	if (n < 0 || n >= PATH_MAX)
		return err_set(e, -ENAMETOOLONG, "%s/%s: path too long", dir, file);
	return 0;
}

int bundle_verify(struct bundle *b, struct err *e)
{
	uint8_t digest[DIGEST_SIZE];
	char is[DIGEST_HEX_MAX], wanted[DIGEST_HEX_MAX];

	if (b->verified)
		return 0;
	weights_digest(b->weights, digest);
	b->verified = memcmp(digest, b->manifest.digest, DIGEST_SIZE) == 0;
	if (b->verified)
		return 0;
	str_hex(is, digest, DIGEST_SIZE);
	str_hex(wanted, b->manifest.digest, DIGEST_SIZE);
	return err_set(e, -EBADMSG, "%s: SHA-256 is %s, model.json names %s", weights_name(b->weights), is, wanted);
}

static int open_files(struct bundle *b, const char *dir, struct err *e)
{
	const struct dims *dims = &b->manifest.dims;
	char path[PATH_MAX];
	int r;

	r = path_in(path, dir, "model.json", e);
	if (r < 0)
		return r;
	r = manifest_read(path, &b->manifest, e);
	if (r < 0)
		return r;

	r = path_in(path, dir, "vocab.txt", e);
	if (r < 0)
		return r;
	r = tokenizer_open(path, &b->tokenizer, e);
	if (r < 0)
		return r;
	if (tokenizer_size(b->tokenizer) != dims->vocab)
		return err_set(e, -EBADMSG, "%s: %zu pieces, model.json says vocab %zu: it is not the vocabulary of these weights; "
			       "import again, with the vocab.txt that came with them (carzero-model import)", path,
			       tokenizer_size(b->tokenizer), dims->vocab);

	r = path_in(path, dir, "weights.safetensors", e);
	if (r < 0)
		return r;
	return weights_open(path, &b->weights, e);
}

static int bind_parts(struct bundle *b, struct err *e)
{
	const struct dims *dims = &b->manifest.dims;
	int r;

	r = vit_bind(&b->vit, dims, b->weights, e);
	if (r < 0)
		return r;
	r = bert_bind(&b->bert, dims, b->weights, e);
	if (r < 0)
		return r;
	return fusion_bind(&b->fusion, dims, b->weights, e);
}

/* Bound anew to the file, as after bundle_map(). */
static int bind_again(struct bundle *b, struct err *e)
{
	fusion_release(&b->fusion);
	bert_release(&b->bert);
	vit_release(&b->vit);
	pool_free(b->pool);
	b->pool = NULL;
	return bind_parts(b, e);
}

int bundle_map(const char *dir, struct bundle **ret, struct err *e)
{
	struct bundle *b = xcalloc(1, sizeof(*b));
	int r;

	r = open_files(b, dir, e);
	if (r == 0 && bind_parts(b, e) < 0) {
		r = bundle_verify(b, e);
		r = r < 0 ? r : bind_again(b, e); /* and its error */
	}
	if (r < 0) {
		bundle_close(b);
		return r;
	}
	*ret = b;
	return 0;
}

int bundle_open(const char *dir, struct bundle **ret, struct err *e)
{
	struct bundle *b;
	int r = bundle_map(dir, &b, e);

	if (r < 0)
		return r;
	r = bundle_verify(b, e);
	if (r < 0)
		bundle_close(b);
	else
		*ret = b;
	return r;
}

/* ---- packed weights ------------------------------------------------------------------------------ */

int bundle_key(const struct bundle *b, struct digest *d, struct err *e)
{
	uint64_t numbers[WEIGHTS_STAMP + 1] = { [WEIGHTS_STAMP] = kernels_threads() };
	int r = cache_key_begin(d, kernels_identity(), e);

	if (r < 0)
		return r;
	weights_stamp(b->weights, numbers);
	digest_update(d, numbers, sizeof(numbers));
	digest_update(d, b->manifest.digest, DIGEST_SIZE);
	/* no padding before the last member, and none of what is behind it */
	digest_update(d, &b->manifest.dims, offsetof(struct dims, fusion_eps) + sizeof(b->manifest.dims.fusion_eps));
	return 0;
}

/* The same steps for a new pool and for a filled one; -EBADMSG: it was filled with something else. */
static int lay_out(struct bundle *b, enum kernels_precision precision, struct pool *pool)
{
	int r = vit_pack(&b->vit, precision, pool);

	if (r == 0)
		r = fusion_pack(&b->fusion, pool);
	return r == 0 && !pool_whole(pool) ? -EBADMSG : r;
}

/* 0, -ENOENT, or why the file is of no use. */
static int take_packed(struct bundle *b, enum kernels_precision precision, struct cache *c, const uint8_t key[DIGEST_SIZE],
		       struct err *e)
{
	struct err ignored;
	int r = cache_get(c, "weights", key, &b->pool, e);

	if (r < 0)
		return r;
	r = lay_out(b, precision, b->pool);
	if (r == 0)
		return 0;
	(void)bind_again(b, &ignored); /* it has worked before */
	return err_set(e, -EBADMSG, "packed weights of another order than oneDNN wants now");
}

static int make_packed(struct bundle *b, enum kernels_precision precision, struct err *e)
{
	int r = bundle_verify(b, e);

	if (r < 0)
		return r;
	b->pool = pool_new();
	r = lay_out(b, precision, b->pool);
	return r < 0 ? err_set(e, r, "the weights cannot be packed: %s", strerror(-r)) : 0;
}

/* Under the cache's lock: whoever came second finds what the first has made. */
static int pack_through(struct bundle *b, enum kernels_precision precision, struct cache *c, struct err *note,
			struct err *e)
{
	struct digest *d = digest_new();
	uint8_t key[DIGEST_SIZE];
	struct err why;
	int r = bundle_key(b, d, e);

	digest_update(d, &precision, sizeof(precision));
	digest_final(d, key);
	digest_free(d);
	if (r < 0)
		return r;
	r = take_packed(b, precision, c, key, &why);
	if (r == 0) {
		(void)err_set(note, 0, "found");
		return 0;
	}
	(void)err_set(note, 0, "made%s%s", r == -ENOENT ? "" : ": ", r == -ENOENT ? "" : why.text);
	r = make_packed(b, precision, e);
	if (r < 0)
		return r;
	if (cache_put(c, "weights", key, b->pool, &why) < 0) {
		(void)err_set(note, 0, "not kept: %s", why.text);
		return 0;
	}
	r = bind_again(b, e); /* from now on in the file's pages, which others share */
	if (r < 0)
		return r;
	r = take_packed(b, precision, c, key, &why);
	if (r == 0)
		return 0;
	(void)err_set(note, 0, "not kept: %s", why.text);
	return make_packed(b, precision, e);
}

int bundle_pack(struct bundle *b, enum kernels_precision precision, struct cache *c, struct err *note, struct err *e)
{
	int r;

	if (!kernels_can(precision))
		return err_set(e, -ENOTSUP, "precision %s and a build with oneDNN; this is %s",
			       precision == KERNELS_BF16 ? "bf16 needs a CPU with AVX512_BF16 or AMX"
							 : "int8 needs a CPU with AVX512_VNNI or AVX2",
			       kernels_core());
	if (!kernels_pack()) { /* OpenBLAS, on the weights as they lie in the file */
		(void)err_set(note, 0, "not packed");
		return bundle_verify(b, e);
	}
	if (c == NULL)
		return make_packed(b, precision, e);
	cache_lock(c);
	r = pack_through(b, precision, c, note, e);
	cache_unlock(c);
	return r;
}

int bundle_pack_fusion(struct bundle *b, struct err *e)
{
	int r = bundle_verify(b, e);

	if (r < 0)
		return r;
	b->pool = pool_new();
	r = fusion_pack(&b->fusion, b->pool);
	return r < 0 ? err_set(e, r, "the weights cannot be packed: %s", strerror(-r)) : 0;
}

void bundle_close(struct bundle *b)
{
	if (b == NULL)
		return;
	fusion_release(&b->fusion);
	bert_release(&b->bert);
	vit_release(&b->vit);
	pool_free(b->pool);
	tokenizer_close(b->tokenizer);
	weights_close(b->weights);
	free(b);
}
