/* untrained.c: see untrained.h.
 *
 * The list of tensors below is written out apart from the readers in model/, so that each checks the
 * other.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <sys/stat.h>

#include "base/digest.h"
#include "base/fdio.h"
#include "base/mem.h"
#include "base/str.h"

#include "model/safetensors_write.h"

#include "tools/bundle/untrained.h"
#include "tools/phantom/rng.h"

#define NAME_MAX_LEN 160
#define TENSORS_MAX 512
#define VOCAB_BYTES_MAX (1024 * 1024)

/* The network: as model.json names its parts. */
#ifdef UNTRAINED_PUBLISHED /* the published sizes, for tools/bench */
#define SIZE_NAME "full"
enum { DIM = 768, VIT_DEPTH = 12, VIT_HEADS = 12, VIT_MLP = 3072 };
enum { BERT_DEPTH = 12, BERT_HEADS = 12, BERT_MLP = 3072, FUS_MLP = 1024, HEAD_0 = 1024, HEAD_1 = 512, HEAD_2 = 256 };
#else
#define SIZE_NAME "tiny"
enum { DIM = 64, VIT_DEPTH = 2, VIT_HEADS = 4, VIT_MLP = 160 };
enum { BERT_DEPTH = 4, BERT_HEADS = 4, BERT_MLP = 112, FUS_MLP = 96, HEAD_0 = 96, HEAD_1 = 48, HEAD_2 = 32 };
#endif
enum { IMG = 224, PATCH = 16, MAX_POS = 112, FUS_DEPTH = 4, FUS_HEADS = 4, WORD_NUM = 97, LAST_N_LAYERS = 4, IMSIZE = 256 };

/* How a tensor's numbers are scaled.  Fusion is louder, so that its attention is not flat. */
enum kind { NORM_WEIGHT, NORM_BIAS, BIAS, EMBEDDING, LINEAR, FUSION_LINEAR };

struct tensor {
	char name[NAME_MAX_LEN];
	enum kind kind;
	size_t rank, shape[4], count;
};

struct list {
	struct tensor t[TENSORS_MAX];
	size_t n;
};

__attribute__((format(printf, 7, 8))) static void add(struct list *l, enum kind kind, size_t a, size_t b,
						      size_t c, size_t d, const char *format, ...)
{
	struct tensor *t = &l->t[l->n++];
	va_list ap;

	*t = (struct tensor){ .kind = kind, .shape = { a, b, c, d }, .count = 1 };
	for (; t->rank < 4 && t->shape[t->rank] > 0; t->rank++)
		t->count *= t->shape[t->rank];
	va_start(ap, format);
	(void)vsnprintf(t->name, sizeof(t->name), format, ap); /* names of ours: they fit */
	va_end(ap);
}

static void add_linear(struct list *l, enum kind kind, size_t in, size_t out, const char *name)
{
	add(l, kind, out, in, 0, 0, "%s.weight", name);
	add(l, BIAS, out, 0, 0, 0, "%s.bias", name);
}

static void add_norm(struct list *l, const char *name)
{
	add(l, NORM_WEIGHT, DIM, 0, 0, 0, "%s.weight", name);
	add(l, NORM_BIAS, DIM, 0, 0, 0, "%s.bias", name);
}

static const char *named(char ret[NAME_MAX_LEN], const char *format, size_t i, const char *rest)
{
	int n = snprintf(ret, NAME_MAX_LEN, "%s%zu.%s", format, i, rest);

	return n < NAME_MAX_LEN ? ret : "";
}

static void list_text(struct list *l, size_t vocab)
{
	static const char root[] = "text_encoder.model.encoder.layer.";
	char name[NAME_MAX_LEN];

	add(l, EMBEDDING, vocab, DIM, 0, 0, "text_encoder.model.embeddings.word_embeddings.weight");
	add(l, EMBEDDING, MAX_POS, DIM, 0, 0, "text_encoder.model.embeddings.position_embeddings.weight");
	add(l, EMBEDDING, 2, DIM, 0, 0, "text_encoder.model.embeddings.token_type_embeddings.weight");
	add_norm(l, "text_encoder.model.embeddings.LayerNorm");
	for (size_t i = 0; i < BERT_DEPTH; i++) {
		add_linear(l, LINEAR, DIM, DIM, named(name, root, i, "attention.self.query"));
		add_linear(l, LINEAR, DIM, DIM, named(name, root, i, "attention.self.key"));
		add_linear(l, LINEAR, DIM, DIM, named(name, root, i, "attention.self.value"));
		add_linear(l, LINEAR, DIM, DIM, named(name, root, i, "attention.output.dense"));
		add_norm(l, named(name, root, i, "attention.output.LayerNorm"));
		add_linear(l, LINEAR, DIM, BERT_MLP, named(name, root, i, "intermediate.dense"));
		add_linear(l, LINEAR, BERT_MLP, DIM, named(name, root, i, "output.dense"));
		add_norm(l, named(name, root, i, "output.LayerNorm"));
	}
}

static void list_image(struct list *l)
{
	static const char root[] = "img_encoder.model.blocks.";
	char name[NAME_MAX_LEN];

	add(l, EMBEDDING, 1, 1, DIM, 0, "img_encoder.model.cls_token");
	add(l, EMBEDDING, 1, (IMG / PATCH) * (IMG / PATCH) + 1, DIM, 0, "img_encoder.model.pos_embed");
	add(l, LINEAR, DIM, 3, PATCH, PATCH, "img_encoder.model.patch_embed.proj.weight");
	add(l, BIAS, DIM, 0, 0, 0, "img_encoder.model.patch_embed.proj.bias");
	for (size_t i = 0; i < VIT_DEPTH; i++) {
		add_norm(l, named(name, root, i, "norm1"));
		add_linear(l, LINEAR, DIM, 3 * DIM, named(name, root, i, "attn.qkv"));
		add_linear(l, LINEAR, DIM, DIM, named(name, root, i, "attn.proj"));
		add_norm(l, named(name, root, i, "norm2"));
		add_linear(l, LINEAR, DIM, VIT_MLP, named(name, root, i, "mlp.fc1"));
		add_linear(l, LINEAR, VIT_MLP, DIM, named(name, root, i, "mlp.fc2"));
	}
	add_norm(l, "img_encoder.model.norm");
}

static void list_fusion(struct list *l)
{
	static const char root[] = "fusion_module.decoder.layers.", head[] = "fusion_module.mlp_head.";
	char name[NAME_MAX_LEN];

	add_norm(l, "fusion_module.decoder_norm");
	for (size_t i = 0; i < FUS_DEPTH; i++) {
		add(l, FUSION_LINEAR, 3 * DIM, DIM, 0, 0, "%s%zu.multihead_attn.in_proj_weight", root, i);
		add(l, BIAS, 3 * DIM, 0, 0, 0, "%s%zu.multihead_attn.in_proj_bias", root, i);
		add_linear(l, FUSION_LINEAR, DIM, DIM, named(name, root, i, "multihead_attn.out_proj"));
		add_linear(l, FUSION_LINEAR, DIM, FUS_MLP, named(name, root, i, "linear1"));
		add_linear(l, FUSION_LINEAR, FUS_MLP, DIM, named(name, root, i, "linear2"));
		add_norm(l, named(name, root, i, "norm2"));
		add_norm(l, named(name, root, i, "norm3"));
	}
	add(l, FUSION_LINEAR, HEAD_0, DIM, 0, 0, "%s0.weight", head);
	add(l, BIAS, HEAD_0, 0, 0, 0, "%s0.bias", head);
	add(l, FUSION_LINEAR, HEAD_1, HEAD_0, 0, 0, "%s3.weight", head);
	add(l, BIAS, HEAD_1, 0, 0, 0, "%s3.bias", head);
	add(l, FUSION_LINEAR, HEAD_2, HEAD_1, 0, 0, "%s6.weight", head);
	add(l, BIAS, HEAD_2, 0, 0, 0, "%s6.bias", head);
	add(l, FUSION_LINEAR, 1, HEAD_2, 0, 0, "%s9.weight", head);
	add(l, BIAS, 1, 0, 0, 0, "%s9.bias", head);
}

/* Only products, and sums of an exact product: the same bits with and without fused multiply-add. */
static void fill(const struct tensor *t, struct rng *rng, float *ret /* [count] */)
{
	float fan_in = (float)(t->rank > 1 ? t->count / t->shape[0] : 1);
	float scale = (t->kind == FUSION_LINEAR ? 2 : 1) / sqrtf(fan_in);

	for (size_t i = 0; i < t->count; i++) {
		float n = rng_bell(rng);

		switch (t->kind) {
		case NORM_WEIGHT:
			ret[i] = 1 + n * 0.125f;
			break;
		case NORM_BIAS:
			ret[i] = n * 0.125f;
			break;
		case BIAS:
			ret[i] = n * 0.0625f;
			break;
		case EMBEDDING:
			ret[i] = n * 0.5f;
			break;
		case LINEAR:
		case FUSION_LINEAR:
			ret[i] = n * scale;
			break;
		}
	}
}

static int write_weights(int dir, const struct list *l, uint64_t seed, uint8_t ret_digest[DIGEST_SIZE],
			 struct err *e)
{
	CLEANUP(free) struct safetensors_entry *entries = xcalloc(l->n, sizeof(*entries));
	CLEANUP(free) size_t *order = xcalloc(l->n, sizeof(*order));
	struct safetensors_writer *w;
	int r;

	for (size_t i = 0; i < l->n; i++)
		entries[i] = (struct safetensors_entry){ l->t[i].name, l->t[i].rank, l->t[i].shape };
	r = safetensors_order(entries, l->n, order, e);
	if (r < 0)
		return r;
	r = safetensors_write_open(dir, "weights.safetensors", entries, l->n, NULL, 0, &w, e);
	for (size_t i = 0; r == 0 && i < l->n; i++) {
		const struct tensor *t = &l->t[order[i]];
		CLEANUP(free) float *v = xcalloc(t->count, sizeof(float));
		struct rng rng = rng_open(seed, order[i]);

		fill(t, &rng, v);
		r = safetensors_write_data(w, v, t->count * sizeof(float), e);
	}
	if (r == 0)
		r = safetensors_write_commit(w, ret_digest, e);
	safetensors_write_close(w);
	return r;
}

static int write_text(int dir, const char *name, const void *p, size_t n, struct err *e)
{
	CLEANUP(close) int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	int r;

	if (fd < 0)
		return err_set(e, -errno, "%s: %s", name, strerror(errno));
	r = write_full(fd, p, n);
	if (r < 0)
		return err_set(e, r, "%s: %s", name, strerror(-r));
	return 0;
}

static int write_manifest(int dir, size_t vocab, uint64_t seed, const uint8_t digest[DIGEST_SIZE],
			  struct err *e)
{
	char text[2048], sha256[DIGEST_HEX_MAX];
	int n;

	str_hex(sha256, digest, DIGEST_SIZE);
	n = snprintf(
		text, sizeof(text),
		"{\n \"format\": 1,\n \"name\": \"untrained-" SIZE_NAME "-%llu\",\n"
		" \"family\": \"untrained-" SIZE_NAME "\",\n"
		" \"domain\": \"untrained\",\n \"sha256\": \"%s\",\n \"dim\": %d,\n \"img\": %d,\n"
		" \"patch\": %d,\n \"vit_depth\": %d,\n \"vit_heads\": %d,\n \"vit_mlp\": %d,\n"
		" \"vocab\": %zu,\n \"max_pos\": %d,\n \"bert_depth\": %d,\n \"bert_heads\": %d,\n"
		" \"bert_mlp\": %d,\n \"fus_depth\": %d,\n \"fus_heads\": %d,\n \"fus_mlp\": %d,\n"
		" \"head\": [%d, %d, %d],\n \"word_num\": %d,\n \"last_n_layers\": %d,\n \"imsize\": %d,\n"
		" \"crop\": %d,\n \"mean\": 0.4978,\n \"std\": 0.2449,\n"
		" \"eps\": {\"vit\": 1e-06, \"bert\": 1e-12, \"fusion\": 1e-05}\n}\n",
		(unsigned long long)seed, sha256, DIM, IMG, PATCH, VIT_DEPTH, VIT_HEADS, VIT_MLP, vocab,
		MAX_POS, BERT_DEPTH, BERT_HEADS, BERT_MLP, FUS_DEPTH, FUS_HEADS, FUS_MLP, HEAD_0, HEAD_1,
		HEAD_2, WORD_NUM, LAST_N_LAYERS, IMSIZE, IMG);
	return write_text(dir, "model.json", text, (size_t)n, e);
}

int untrained_write(const char *dir, const char *vocab, uint64_t seed, struct err *e)
{
	CLEANUP(free) struct list *l = xcalloc(1, sizeof(*l));
	CLEANUP(free) void *pieces = NULL;
	CLEANUP(close) int fd = -1;
	uint8_t digest[DIGEST_SIZE];
	size_t bytes, lines = 0;
	int r;

	r = read_path(vocab, VOCAB_BYTES_MAX, &pieces, &bytes, e);
	if (r < 0)
		return r;
	for (size_t i = 0; i < bytes; i++)
		lines += ((const char *)pieces)[i] == '\n';
	if (mkdir(dir, 0777) < 0 && errno != EEXIST)
		return err_set(e, -errno, "%s: %s", dir, strerror(errno));
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_set(e, -errno, "%s: %s", dir, strerror(errno));

	list_text(l, lines);
	list_image(l);
	list_fusion(l);
	r = write_weights(fd, l, seed, digest, e);
	if (r < 0)
		return err_prefix(e, r, "%s", dir);
	r = write_text(fd, "vocab.txt", pieces, bytes, e);
	if (r < 0)
		return err_prefix(e, r, "%s", dir);
	r = write_manifest(fd, lines, seed, digest, e);
	if (r < 0)
		return err_prefix(e, r, "%s", dir);
	return 0;
}
