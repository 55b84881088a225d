/* bundle.c: see bundle.h.  The order is chosen so that a person sees the most telling error: a broken
 * model.json before the weights, a damaged weights file before a digest mismatch, a foreign one
 * (wrong digest) before a missing tensor.
 */
#include <limits.h>

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

static int check_digest(const struct bundle *b, const char *path, struct err *e)
{
	uint8_t digest[DIGEST_SIZE];
	char is[DIGEST_HEX_MAX], wanted[DIGEST_HEX_MAX];

	weights_digest(b->weights, digest);
	if (memcmp(digest, b->manifest.digest, DIGEST_SIZE) == 0)
		return 0;
	str_hex(is, digest, DIGEST_SIZE);
	str_hex(wanted, b->manifest.digest, DIGEST_SIZE);
	return err_set(e, -EBADMSG, "%s: SHA-256 is %s, model.json names %s", path, is, wanted);
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
	r = weights_open(path, &b->weights, e);
	if (r < 0)
		return r;
	return check_digest(b, path, e);
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

int bundle_open(const char *dir, struct bundle **ret, struct err *e)
{
	struct bundle *b = xcalloc(1, sizeof(*b));
	int r;

	r = open_files(b, dir, e);
	if (r == 0)
		r = bind_parts(b, e);
	if (r < 0) {
		bundle_close(b);
		return r;
	}
	*ret = b;
	return 0;
}

int bundle_pack(struct bundle *b, enum kernels_precision precision, struct err *e)
{
	int r;

	if (!kernels_can(precision))
		return err_set(e, -ENOTSUP, "precision bf16 needs a CPU with AVX512_BF16 or AMX and a build with oneDNN; "
			       "this is %s", kernels_core());
	b->pool = kernels_pool_new();
	r = vit_pack(&b->vit, precision, b->pool);
	if (r == 0)
		r = fusion_pack(&b->fusion, b->pool);
	return r < 0 ? err_set(e, r, "the weights cannot be packed: %s", strerror(-r)) : 0;
}

int bundle_pack_fusion(struct bundle *b, struct err *e)
{
	int r;

	b->pool = kernels_pool_new();
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
	kernels_pool_free(b->pool);
	tokenizer_close(b->tokenizer);
	weights_close(b->weights);
	free(b);
}
