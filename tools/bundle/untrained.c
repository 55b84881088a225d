/* untrained.c: see untrained.h.
 *
 * The list of tensors below is written out apart from the readers in model/, so that each checks the
 * other.  File: header padded to 64 bytes, tensors without gaps, those whose size is no multiple of
 * 64 bytes last, hence every large one aligned to 64.
 */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <sys/stat.h>

#include "base/digest.h"
#include "base/fdio.h"
#include "base/mem.h"
#include "base/str.h"

#include "tools/bundle/untrained.h"
#include "tools/phantom/rng.h"

#define ALIGN 64
#define NAME_MAX_LEN 160
#define TENSORS_MAX 512
#define VOCAB_BYTES_MAX (1024 * 1024)

/* The network: as model.json names its parts. */
enum {
	DIM = 64,
	IMG = 224,
	PATCH = 16,
	VIT_DEPTH = 2,
	VIT_HEADS = 4,
	VIT_MLP = 160,
	MAX_POS = 112,
	BERT_DEPTH = 4,
	BERT_HEADS = 4,
	BERT_MLP = 112,
	FUS_DEPTH = 4,
	FUS_HEADS = 4,
	FUS_MLP = 96,
	HEAD_0 = 96,
	HEAD_1 = 48,
	HEAD_2 = 32,
	WORD_NUM = 97,
	LAST_N_LAYERS = 4,
	IMSIZE = 256,
};

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

static bool is_whole(const struct tensor *t)
{
	return t->count * sizeof(float) % ALIGN == 0;
}

/* Whole ones first, in the list's order. */
static void sort_for_alignment(struct list *l)
{
	CLEANUP(free) struct list *sorted = xcalloc(1, sizeof(*sorted));

	for (size_t i = 0; i < l->n; i++)
		if (is_whole(&l->t[i]))
			sorted->t[sorted->n++] = l->t[i];
	for (size_t i = 0; i < l->n; i++)
		if (!is_whole(&l->t[i]))
			sorted->t[sorted->n++] = l->t[i];
	*l = *sorted;
}

static void write_header(FILE *f, const struct list *l)
{
	CLEANUP(free) char *text = NULL;
	size_t size, at = 0, pad;
	uint64_t length;
	FILE *m = open_memstream(&text, &size);

	if (m == NULL)
		return; /* the caller sees an empty file */
	fputc('{', m);
	for (size_t i = 0; i < l->n; i++) {
		const struct tensor *t = &l->t[i];
		size_t bytes = t->count * sizeof(float);

		fprintf(m, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[", i > 0 ? "," : "", t->name);
		for (size_t j = 0; j < t->rank; j++)
			fprintf(m, j > 0 ? ",%zu" : "%zu", t->shape[j]);
		fprintf(m, "],\"data_offsets\":[%zu,%zu]}", at, at + bytes);
		at += bytes;
	}
	fputc('}', m);
	if (fclose(m) != 0)
		return;
	pad = (ALIGN - (size + sizeof(length)) % ALIGN) % ALIGN;
	length = size + pad;
	for (size_t i = 0; i < sizeof(length); i++)
		fputc((int)(length >> (8 * i) & 0xff), f);
	fwrite(text, 1, size, f);
	fprintf(f, "%*s", (int)pad, "");
}

static int write_weights(const char *path, struct list *l, uint64_t seed, struct err *e)
{
	FILE *f = fopen(path, "we");
	bool bad;

	if (f == NULL)
		return err_set(e, -errno, "%s: %s", path, strerror(errno));
	sort_for_alignment(l);
	write_header(f, l);
	for (size_t i = 0; i < l->n; i++) {
		CLEANUP(free) float *v = xcalloc(l->t[i].count, sizeof(float));
		struct rng rng = rng_open(seed, i);

		fill(&l->t[i], &rng, v);
		fwrite(v, sizeof(float), l->t[i].count, f); /* little-endian machines only, as the reader */
	}
	bad = ferror(f) != 0;
	if (fclose(f) != 0 || bad)
		return err_set(e, -EIO, "%s: cannot write", path);
	return 0;
}

static int write_text(const char *path, const void *p, size_t n, struct err *e)
{
	FILE *f = fopen(path, "we");
	bool bad;

	if (f == NULL)
		return err_set(e, -errno, "%s: %s", path, strerror(errno));
	bad = fwrite(p, 1, n, f) != n;
	if (fclose(f) != 0 || bad)
		return err_set(e, -EIO, "%s: cannot write", path);
	return 0;
}

static int write_manifest(const char *path, size_t vocab, uint64_t seed, const char *sha256, struct err *e)
{
	char text[2048];
	int n = snprintf(
		text, sizeof(text),
		"{\n \"format\": 1,\n \"name\": \"untrained-tiny-%llu\",\n \"family\": \"untrained-tiny\",\n"
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

	return write_text(path, text, (size_t)n, e);
}

static int digest_path(const char *path, char ret[DIGEST_HEX_MAX], struct err *e)
{
	uint8_t digest[DIGEST_SIZE];
	FILE *f = fopen(path, "re");
	int r;

	if (f == NULL)
		return err_set(e, -errno, "%s: %s", path, strerror(errno));
	r = digest_fd(fileno(f), 0, digest);
	(void)fclose(f); /* read side only */
	if (r < 0)
		return err_set(e, r, "%s: %s", path, strerror(-r));
	str_hex(ret, digest, sizeof(digest));
	return 0;
}

int untrained_write(const char *dir, const char *vocab, uint64_t seed, struct err *e)
{
	CLEANUP(free) struct list *l = xcalloc(1, sizeof(*l));
	CLEANUP(free) void *pieces = NULL;
	char path[PATH_MAX - NAME_MAX_LEN], file[PATH_MAX], sha256[DIGEST_HEX_MAX];
	size_t bytes, lines = 0;
	int r;

	r = read_path(vocab, VOCAB_BYTES_MAX, &pieces, &bytes, e);
	if (r < 0)
		return r;
	for (size_t i = 0; i < bytes; i++)
		lines += ((const char *)pieces)[i] == '\n';
	if (!str_copy(path, sizeof(path), dir))
		return err_set(e, -ENAMETOOLONG, "%s: path too long", dir);
	if (mkdir(dir, 0777) < 0 && errno != EEXIST)
		return err_set(e, -errno, "%s: %s", dir, strerror(errno));

	list_text(l, lines);
	list_image(l);
	list_fusion(l);
	(void)snprintf(file, sizeof(file), "%s/weights.safetensors", path);
	r = write_weights(file, l, seed, e);
	if (r < 0)
		return r;
	r = digest_path(file, sha256, e);
	if (r < 0)
		return r;
	(void)snprintf(file, sizeof(file), "%s/vocab.txt", path);
	r = write_text(file, pieces, bytes, e);
	if (r < 0)
		return r;
	(void)snprintf(file, sizeof(file), "%s/model.json", path);
	return write_manifest(file, lines, seed, sha256, e);
}
