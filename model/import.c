/* import.c: see import.h.
 *
 * The tables at the top are the whole knowledge about names and shapes (carzero.md 1.3); dimensions
 * are read from a few tensors first, then every tensor of the tables must be there with exactly the
 * shape that follows.  The file's own order does not matter: tensors are written in the order of the
 * tables.
 *
 * Keys that --model-json may set: name, family (not carzero), domain (not clinical), vit_heads, bert_heads,
 * fus_heads, word_num, last_n_layers, imsize, mean, std, eps.  Dimensions in it must equal those of
 * the shapes; other keys are ignored.  The result passes the same reader as any bundle's.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fdio.h"
#include "base/mem.h"
#include "base/str.h"

#include "model/import.h"
#include "model/safetensors_write.h"
#include "model/tokenizer.h"

#define PREFIX "CARZero."
#define CHUNK ((size_t)256 * 1024) /* elements converted at a time */
#define SHAPE_SHOWN 96
#define RANK_MAX 4
#define UNNAMED "unnamed"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensors are copied as they lie in the file");

/* Sizes that shapes are made of. */
enum axis {
	NO_AXIS, ONE, TWO, THREE, DIM, DIM3, VOCAB, POSITIONS, TOKENS, PATCH, VIT_MLP, BERT_MLP, FUSION_MLP, HEAD0,
	HEAD1, HEAD2, VIT_DEPTH, BERT_DEPTH, FUSION_DEPTH, AXES
};

struct row {
	const char *name; /* after the part's prefix */
	enum axis shape[RANK_MAX];
};

static const struct row text_embeddings[] = {
	{ "word_embeddings.weight", { VOCAB, DIM } },
	{ "position_embeddings.weight", { POSITIONS, DIM } },
	{ "token_type_embeddings.weight", { TWO, DIM } },
	{ "LayerNorm.weight", { DIM } },
	{ "LayerNorm.bias", { DIM } },
};
static const struct row text_layer[] = {
	{ "attention.self.query.weight", { DIM, DIM } },
	{ "attention.self.query.bias", { DIM } },
	{ "attention.self.key.weight", { DIM, DIM } },
	{ "attention.self.key.bias", { DIM } },
	{ "attention.self.value.weight", { DIM, DIM } },
	{ "attention.self.value.bias", { DIM } },
	{ "attention.output.dense.weight", { DIM, DIM } },
	{ "attention.output.dense.bias", { DIM } },
	{ "attention.output.LayerNorm.weight", { DIM } },
	{ "attention.output.LayerNorm.bias", { DIM } },
	{ "intermediate.dense.weight", { BERT_MLP, DIM } },
	{ "intermediate.dense.bias", { BERT_MLP } },
	{ "output.dense.weight", { DIM, BERT_MLP } },
	{ "output.dense.bias", { DIM } },
	{ "output.LayerNorm.weight", { DIM } },
	{ "output.LayerNorm.bias", { DIM } },
};
static const struct row image_ends[] = {
	{ "cls_token", { ONE, ONE, DIM } },
	{ "pos_embed", { ONE, TOKENS, DIM } },
	{ "patch_embed.proj.weight", { DIM, THREE, PATCH, PATCH } },
	{ "patch_embed.proj.bias", { DIM } },
	{ "norm.weight", { DIM } },
	{ "norm.bias", { DIM } },
};
static const struct row image_block[] = {
	{ "norm1.weight", { DIM } },
	{ "norm1.bias", { DIM } },
	{ "attn.qkv.weight", { DIM3, DIM } },
	{ "attn.qkv.bias", { DIM3 } },
	{ "attn.proj.weight", { DIM, DIM } },
	{ "attn.proj.bias", { DIM } },
	{ "norm2.weight", { DIM } },
	{ "norm2.bias", { DIM } },
	{ "mlp.fc1.weight", { VIT_MLP, DIM } },
	{ "mlp.fc1.bias", { VIT_MLP } },
	{ "mlp.fc2.weight", { DIM, VIT_MLP } },
	{ "mlp.fc2.bias", { DIM } },
};
static const struct row fusion_ends[] = {
	{ "decoder_norm.weight", { DIM } },
	{ "decoder_norm.bias", { DIM } },
	{ "mlp_head.0.weight", { HEAD0, DIM } },
	{ "mlp_head.0.bias", { HEAD0 } },
	{ "mlp_head.3.weight", { HEAD1, HEAD0 } },
	{ "mlp_head.3.bias", { HEAD1 } },
	{ "mlp_head.6.weight", { HEAD2, HEAD1 } },
	{ "mlp_head.6.bias", { HEAD2 } },
	{ "mlp_head.9.weight", { ONE, HEAD2 } },
	{ "mlp_head.9.bias", { ONE } },
};
static const struct row fusion_layer[] = {
	{ "multihead_attn.in_proj_weight", { DIM3, DIM } },
	{ "multihead_attn.in_proj_bias", { DIM3 } },
	{ "multihead_attn.out_proj.weight", { DIM, DIM } },
	{ "multihead_attn.out_proj.bias", { DIM } },
	{ "linear1.weight", { FUSION_MLP, DIM } },
	{ "linear1.bias", { FUSION_MLP } },
	{ "linear2.weight", { DIM, FUSION_MLP } },
	{ "linear2.bias", { DIM } },
	{ "norm2.weight", { DIM } },
	{ "norm2.bias", { DIM } },
	{ "norm3.weight", { DIM } },
	{ "norm3.bias", { DIM } },
};

#define ROWS(a) a, ARRAY_SIZE(a)
static const struct part {
	const char *prefix; /* a layer's number and a dot follow when depth is not ONE */
	enum axis depth;
	const struct row *rows;
	size_t n;
} parts[] = {
	{ "text_encoder.model.embeddings.", ONE, ROWS(text_embeddings) },
	{ "text_encoder.model.encoder.layer.", BERT_DEPTH, ROWS(text_layer) },
	{ "img_encoder.model.", ONE, ROWS(image_ends) },
	{ "img_encoder.model.blocks.", VIT_DEPTH, ROWS(image_block) },
	{ "fusion_module.", ONE, ROWS(fusion_ends) },
	{ "fusion_module.decoder.layers.", FUSION_DEPTH, ROWS(fusion_layer) },
};

/* Where each derived size is read: dimension `axis` of this tensor. */
static const struct derived {
	enum axis axis;
	const char *key; /* in model.json */
	const char *tensor;
	size_t rank, at, max;
} sizes[] = {
	{ DIM, "dim", "text_encoder.model.embeddings.word_embeddings.weight", 2, 1, DIMS_DIM_MAX },
	{ VOCAB, "vocab", "text_encoder.model.embeddings.word_embeddings.weight", 2, 0, TOKENIZER_VOCAB_MAX },
	{ POSITIONS, "max_pos", "text_encoder.model.embeddings.position_embeddings.weight", 2, 0,
	  DIMS_POSITIONS_MAX },
	{ BERT_MLP, "bert_mlp", "text_encoder.model.encoder.layer.0.intermediate.dense.weight", 2, 0,
	  DIMS_HIDDEN_MAX },
	{ PATCH, "patch", "img_encoder.model.patch_embed.proj.weight", 4, 3, DIMS_PATCH_MAX },
	{ TOKENS, NULL, "img_encoder.model.pos_embed", 3, 1, DIMS_TOKENS_MAX },
	{ VIT_MLP, "vit_mlp", "img_encoder.model.blocks.0.mlp.fc1.weight", 2, 0, DIMS_HIDDEN_MAX },
	{ FUSION_MLP, "fus_mlp", "fusion_module.decoder.layers.0.linear1.weight", 2, 0, DIMS_HIDDEN_MAX },
	{ HEAD0, NULL, "fusion_module.mlp_head.0.weight", 2, 0, DIMS_HIDDEN_MAX },
	{ HEAD1, NULL, "fusion_module.mlp_head.3.weight", 2, 0, DIMS_HIDDEN_MAX },
	{ HEAD2, NULL, "fusion_module.mlp_head.6.weight", 2, 0, DIMS_HIDDEN_MAX },
};

/* How many layers: the numbers from 0 on for which this tensor is there. */
static const struct depth {
	enum axis axis;
	const char *key, *before, *after; /* the layer's number */
} depths[] = {
	{ BERT_DEPTH, "bert_depth", "text_encoder.model.encoder.layer.", ".attention.self.query.weight" },
	{ VIT_DEPTH, "vit_depth", "img_encoder.model.blocks.", ".norm1.weight" },
	{ FUSION_DEPTH, "fus_depth", "fusion_module.decoder.layers.", ".multihead_attn.in_proj_weight" },
};

static const size_t published[AXES] = {
	[NO_AXIS] = 0, [ONE] = 1, [TWO] = 2, [THREE] = 3, [DIM] = 768, [DIM3] = 2304, [VOCAB] = 28996,
	[POSITIONS] = 512, [TOKENS] = 197, [PATCH] = 16, [VIT_MLP] = 3072, [BERT_MLP] = 3072, [FUSION_MLP] = 1024,
	[HEAD0] = 1024, [HEAD1] = 512, [HEAD2] = 256, [VIT_DEPTH] = 12, [BERT_DEPTH] = 12, [FUSION_DEPTH] = 4,
};

struct named { /* a tensor of the file under its key */
	const char *key;
	size_t index;
	bool used;
};

struct wanted { /* a tensor of the bundle */
	char key[CHECKPOINT_NAME_MAX];
	size_t rank, shape[RANK_MAX];
	size_t index; /* in the checkpoint */
};

struct import {
	const struct import_request *q;
	struct import_report *report;
	struct err *e;
	struct checkpoint *c;
	struct named *named; /* [count] by key */
	size_t count;
	size_t axis[AXES];
	struct wanted *wanted;
	size_t n_wanted, room_wanted;
	json_t *json;
};

const char *import_ignored_name(enum import_ignored what)
{
	static const char *const names[IGNORED_KINDS] = {
		[IGNORED_POSITIONS] = "position numbers of the text encoder",
		[IGNORED_POOLER] = "pooler of the text encoder",
		[IGNORED_SCALE] = "logit_scale",
		[IGNORED_SELF_ATTENTION] = "self-attention of the decoder, which is never called",
		[IGNORED_NORM1] = "norm1 of the decoder, which is never called",
		[IGNORED_TWIN] = "decoder.norm, the same as decoder_norm",
		[IGNORED_UNKNOWN] = "unknown to this model",
	};

	return names[what];
}

static int by_key(const void *pa, const void *pb)
{
	const struct named *a = pa, *b = pb;

	return strcmp(a->key, b->key);
}

/* The key is what stands after the last "CARZero.". */
static int name_tensors(struct import *im)
{
	size_t i;

	im->count = checkpoint_count(im->c);
	im->named = xcalloc(im->count, sizeof(*im->named));
	for (i = 0; i < im->count; i++) {
		const char *key = checkpoint_tensor(im->c, i)->name, *next;

		while ((next = strstr(key, PREFIX)) != NULL)
			key = next + strlen(PREFIX);
		im->named[i] = (struct named){ key, i, false };
	}
	qsort(im->named, im->count, sizeof(*im->named), by_key);
	for (i = 1; i < im->count; i++)
		if (strcmp(im->named[i - 1].key, im->named[i].key) == 0)
			return err_set(im->e, -EBADMSG, "%s: tensors %s and %s are the same key",
				       im->q->checkpoint,
				       checkpoint_tensor(im->c, im->named[i - 1].index)->name,
				       checkpoint_tensor(im->c, im->named[i].index)->name);
	return 0;
}

static struct named *find(const struct import *im, const char *key)
{
	struct named want = { .key = key };

	return im->count > 0 ? bsearch(&want, im->named, im->count, sizeof(want), by_key) : NULL;
}

static int missing(const struct import *im, const char *key)
{
	return err_set(im->e, -ENOENT,
		       "%s: no tensor %s among its %zu (the first is %s); this is not a CARZero "
		       "checkpoint, or not a whole one",
		       im->q->checkpoint, key, im->count,
		       im->count > 0 ? checkpoint_tensor(im->c, 0)->name : "none");
}

static const char *shape_text(char ret[SHAPE_SHOWN], const size_t *shape, size_t rank)
{
	size_t i, n = (size_t)snprintf(ret, SHAPE_SHOWN, "[");

	for (i = 0; i < rank && n < SHAPE_SHOWN - 1; i++)
		n += (size_t)snprintf(ret + n, SHAPE_SHOWN - n, i > 0 ? ", %zu" : "%zu", shape[i]);
	if (n < SHAPE_SHOWN - 1)
		(void)snprintf(ret + n, SHAPE_SHOWN - n, "]");
	return ret;
}

static int derive_size(struct import *im, const struct derived *d)
{
	struct named *n = find(im, d->tensor);
	const struct checkpoint_tensor *t;
	char shape[SHAPE_SHOWN];

	if (n == NULL)
		return missing(im, d->tensor);
	t = checkpoint_tensor(im->c, n->index);
	if (t->rank != d->rank || t->shape[d->at] == 0 || t->shape[d->at] > d->max)
		return err_set(
			im->e, -EBADMSG,
			"%s: tensor %s has shape %s, expected %zu dimensions, the %zu. from 1 to "
			"%zu",
			im->q->checkpoint, t->name, shape_text(shape, t->shape, t->rank), d->rank,
			d->at + 1, d->max);
	im->axis[d->axis] = t->shape[d->at];
	return 0;
}

static int derive_depth(struct import *im, const struct depth *d)
{
	char key[CHECKPOINT_NAME_MAX];
	size_t n;

	for (n = 0;; n++) {
		(void)snprintf(key, sizeof(key), "%s%zu%s", d->before, n, d->after);
		if (find(im, key) == NULL)
			break;
	}
	if (n == 0)
		return missing(im, key);
	if (n > DIMS_DEPTH_MAX)
		return err_set(im->e, -E2BIG, "%s: %zu layers like %s, at most %d are taken",
			       im->q->checkpoint, n, key, DIMS_DEPTH_MAX);
	im->axis[d->axis] = n;
	return 0;
}

static int derive(struct import *im)
{
	size_t i, grid = 1;
	int r;

	im->axis[ONE] = 1;
	im->axis[TWO] = 2;
	im->axis[THREE] = 3;
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		r = derive_size(im, &sizes[i]);
		if (r < 0)
			return r;
	}
	for (i = 0; i < ARRAY_SIZE(depths); i++) {
		r = derive_depth(im, &depths[i]);
		if (r < 0)
			return r;
	}
	im->axis[DIM3] = 3 * im->axis[DIM];
	while (grid * grid + 1 < im->axis[TOKENS])
		grid++;
	if (grid * grid + 1 != im->axis[TOKENS])
		return err_set(
			im->e, -EBADMSG,
			"%s: tensor img_encoder.model.pos_embed has %zu rows, expected a square "
			"number and one",
			im->q->checkpoint, im->axis[TOKENS]);
	json_object_set_new(im->json, "img", json_integer((json_int_t)(grid * im->axis[PATCH])));
	json_object_set_new(im->json, "crop", json_integer((json_int_t)(grid * im->axis[PATCH])));
	for (i = 0; i < ARRAY_SIZE(sizes); i++)
		if (sizes[i].key != NULL)
			json_object_set_new(im->json, sizes[i].key,
					    json_integer((json_int_t)im->axis[sizes[i].axis]));
	for (i = 0; i < ARRAY_SIZE(depths); i++)
		json_object_set_new(im->json, depths[i].key,
				    json_integer((json_int_t)im->axis[depths[i].axis]));
	json_object_set_new(im->json, "head",
			    json_pack("[I, I, I]", (json_int_t)im->axis[HEAD0],
				      (json_int_t)im->axis[HEAD1], (json_int_t)im->axis[HEAD2]));
	return 0;
}

static int want(struct import *im, const char *key, const enum axis *shape)
{
	struct named *n = find(im, key);
	const struct checkpoint_tensor *t;
	char got[SHAPE_SHOWN], expected[SHAPE_SHOWN];
	struct wanted *w;

	if (n == NULL)
		return missing(im, key);
	n->used = true;
	t = checkpoint_tensor(im->c, n->index);
	if (im->n_wanted == im->room_wanted) {
		im->room_wanted = im->room_wanted * 2 + 64;
		im->wanted = xreallocarray(im->wanted, im->room_wanted, sizeof(*im->wanted));
	}
	w = &im->wanted[im->n_wanted];
	*w = (struct wanted){ .index = n->index };
	(void)str_copy(w->key, sizeof(w->key), key); /* a key of the file: fits */
	while (w->rank < RANK_MAX && shape[w->rank] != NO_AXIS) {
		w->shape[w->rank] = im->axis[shape[w->rank]];
		w->rank++;
	}
	if (t->rank != w->rank || memcmp(t->shape, w->shape, w->rank * sizeof(*w->shape)) != 0)
		return err_set(im->e, -EBADMSG, "%s: tensor %s has shape %s, expected %s",
			       im->q->checkpoint, t->name, shape_text(got, t->shape, t->rank),
			       shape_text(expected, w->shape, w->rank));
	if (t->problem != NULL)
		return err_set(im->e, -ENOTSUP, "%s: tensor %s %s", im->q->checkpoint, t->name,
			       t->problem);
	im->n_wanted++;
	im->report->parameters += t->count;
	im->report->widened += t->type != CHECKPOINT_F32;
	return 0;
}

static int want_part(struct import *im, const struct part *part)
{
	size_t layers = im->axis[part->depth], layer, i;
	char key[CHECKPOINT_NAME_MAX];
	int r;

	for (layer = 0; layer < layers; layer++)
		for (i = 0; i < part->n; i++) {
			if (part->depth == ONE)
				(void)snprintf(key, sizeof(key), "%s%s", part->prefix,
					       part->rows[i].name);
			else
				(void)snprintf(key, sizeof(key), "%s%zu.%s", part->prefix, layer,
					       part->rows[i].name);
			r = want(im, key, part->rows[i].shape);
			if (r < 0)
				return r;
		}
	return 0;
}

/* decoder_norm and decoder.norm are one module saved under two names. */
static int check_twin(struct import *im, const char *key, const char *twin)
{
	struct named *n = find(im, key), *m = find(im, twin);
	const struct checkpoint_tensor *a, *b;

	if (m == NULL)
		return 0;
	a = checkpoint_tensor(im->c, n->index); /* wanted, so it is there */
	b = checkpoint_tensor(im->c, m->index);
	if (b->problem != NULL || a->type != b->type || a->bytes != b->bytes ||
	    memcmp(a->data, b->data, a->bytes) != 0)
		return err_set(im->e, -EBADMSG,
			       "%s: tensors %s and %s differ, but are one in CARZero",
			       im->q->checkpoint, a->name, b->name);
	return 0;
}

static enum import_ignored ignored_kind(const char *key)
{
	static const char layers[] = "fusion_module.decoder.layers.",
			  pooler[] = "text_encoder.model.pooler.",
			  twin[] = "fusion_module.decoder.norm.";

	if (strcmp(key, "text_encoder.model.embeddings.position_ids") == 0)
		return IGNORED_POSITIONS;
	if (strncmp(key, pooler, sizeof(pooler) - 1) == 0)
		return IGNORED_POOLER;
	if (strcmp(key, "fusion_module.logit_scale") == 0)
		return IGNORED_SCALE;
	if (strncmp(key, twin, sizeof(twin) - 1) == 0)
		return IGNORED_TWIN;
	if (strncmp(key, layers, sizeof(layers) - 1) == 0) {
		const char *rest =
			key + sizeof(layers) - 1 + strspn(key + sizeof(layers) - 1, "0123456789");

		if (strncmp(rest, ".self_attn.", 11) == 0)
			return IGNORED_SELF_ATTENTION;
		if (strncmp(rest, ".norm1.", 7) == 0)
			return IGNORED_NORM1;
	}
	return IGNORED_UNKNOWN;
}

static int choose(struct import *im)
{
	struct import_report *report = im->report;
	uint64_t bytes;
	size_t i;
	int r;

	for (i = 0; i < ARRAY_SIZE(parts); i++) {
		r = want_part(im, &parts[i]);
		if (r < 0)
			return r;
	}
	r = check_twin(im, "fusion_module.decoder_norm.weight", "fusion_module.decoder.norm.weight");
	if (r < 0)
		return r;
	r = check_twin(im, "fusion_module.decoder_norm.bias", "fusion_module.decoder.norm.bias");
	if (r < 0)
		return r;
	for (i = 0; i < im->count; i++) {
		enum import_ignored kind = ignored_kind(im->named[i].key);

		if (im->named[i].used)
			continue;
		if (kind == IGNORED_UNKNOWN && report->ignored[kind] < IMPORT_UNKNOWN_SHOWN)
			(void)str_copy(report->unknown[report->ignored[kind]], CHECKPOINT_NAME_MAX,
				       im->named[i].key);
		report->ignored[kind]++;
	}
	report->read = im->count;
	report->kept = im->n_wanted;
	/* Tensors may share a storage, so shapes alone could claim a disk full of weights. */
	bytes = report->parameters * sizeof(float);
	if (bytes / 2 > checkpoint_size(im->c))
		return err_set(im->e, -E2BIG,
			       "%s: its tensors claim %llu bytes, far more than the file's %zu",
			       im->q->checkpoint, (unsigned long long)bytes,
			       checkpoint_size(im->c));
	return 0;
}

static void warn(struct import_report *report, const char *path, const char *got, const char *expected)
{
	if (report->n_warnings < IMPORT_WARNINGS_MAX)
		(void)snprintf(report->warnings[report->n_warnings++], sizeof(report->warnings[0]),
			       "hyper-parameter %s is %s, this program computes with %s", path, got,
			       expected);
}

/* What the training run says about itself against what we compute. */
static void check_hyper(struct import *im)
{
	static const struct { const char *path, *expected, *key; } rules[] = {
		{ "model.text.last_n_layers", NULL, "last_n_layers" },
		{ "data.text.word_num", NULL, "word_num" },
		{ "data.image.imsize", NULL, "imsize" },
		{ "transforms.random_crop.crop_size", NULL, "crop" },
		{ "model.fusion.decoder_number_layer", NULL, "fus_depth" },
		{ "model.text.aggregate_method", "sum", NULL },
		{ "model.text.agg_tokens", "true", NULL },
		{ "model.text.norm", "false", NULL },
		{ "transforms.norm", "CXR_MAE", NULL },
		{ "model.vision.model_name", "vit_b_16", NULL },
	};
	char got[128], expected[32];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(rules); i++) {
		if (!checkpoint_hyper(im->c, rules[i].path, got, sizeof(got)))
			continue;
		if (rules[i].key != NULL)
			(void)snprintf(expected, sizeof(expected), "%lld",
				       (long long)json_integer_value(
					       json_object_get(im->json, rules[i].key)));
		else
			(void)str_copy(expected, sizeof(expected), rules[i].expected);
		im->report->hyper_checked++;
		if (strcmp(got, expected) != 0)
			warn(im->report, rules[i].path, got, expected);
	}
}

static bool has_published_shapes(const struct import *im)
{
	return memcmp(im->axis, published, sizeof(published)) == 0;
}

static bool may_set(const char *key)
{
	static const char *const keys[] = { "name",	  "family",    "domain",   "vit_heads",
					    "bert_heads", "fus_heads", "word_num", "last_n_layers",
					    "imsize",	  "mean",      "std",	   "eps" };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(keys); i++)
		if (strcmp(keys[i], key) == 0)
			return true;
	return false;
}

static int merge_json(struct import *im)
{
	const char *path = im->q->model_json, *key;
	CLEANUP(free) void *text = NULL;
	json_t *given, *value;
	json_error_t why;
	size_t n;
	int r;

	r = read_path(path, MANIFEST_BYTES_MAX, &text, &n, im->e);
	if (r < 0)
		return r;
	given = json_loadb(text, n, JSON_REJECT_DUPLICATES, &why);
	if (!json_is_object(given)) {
		json_decref(given);
		return err_set(im->e, -EBADMSG, "%s: line %d: not a JSON object", path,
			       given == NULL ? why.line : 1);
	}
	/* what a verified bundle's own model.json says of itself is no promise about these weights */
	if (json_is_string(json_object_get(given, "family")) &&
	    strcmp(json_string_value(json_object_get(given, "family")), FAMILY_VERIFIED) == 0) {
		json_decref(given);
		return err_set(im->e, -EPERM,
			       "%s: key family is " FAMILY_VERIFIED
			       "; an import cannot promise that: leave it out, and run "
			       "'carzero-model verify' on the bundle",
			       path);
	}
	json_object_foreach(given, key, value) {
		json_t *have = json_object_get(im->json, key);
		CLEANUP(free) char *shown = NULL;
		CLEANUP(free) char *expected = NULL;

		if (may_set(key)) {
			json_object_set(im->json, key, value);
			continue;
		}
		if (have == NULL || json_equal(have, value) ||
		    strcmp(key, "sha256") == 0) /* of other weights */
			continue;
		shown = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
		expected = json_dumps(have, JSON_ENCODE_ANY | JSON_COMPACT);
		r = err_set(im->e, -EBADMSG, "%s: key %s is %.60s, the tensors of %s say %s", path,
			    key, shown != NULL ? shown : "?", im->q->checkpoint,
			    expected != NULL ? expected : "?");
		break;
	}
	json_decref(given);
	if (r < 0)
		return r;
	value = json_object_get(im->json, "domain");
	if (json_is_string(value) && strcmp(json_string_value(value), "clinical") == 0)
		return err_set(
			im->e, -EPERM,
			"%s: key domain is clinical; an import cannot promise that: leave it out, "
			"and run 'carzero-model verify' on the bundle",
			path);
	return 0;
}

static int describe(struct import *im)
{
	static const char *const heads[] = { "vit_heads", "bert_heads", "fus_heads" };
	size_t i;
	int r;

	if (has_published_shapes(im)) {
		json_object_set_new(im->json, "name", json_string("CARZero"));
		json_object_set_new(im->json, "family", json_string(FAMILY_UNVERIFIED));
		json_object_set_new(im->json, "vit_heads", json_integer(12));
		json_object_set_new(im->json, "bert_heads", json_integer(12));
		json_object_set_new(im->json, "fus_heads", json_integer(4));
	}
	if (im->q->model_json != NULL) {
		r = merge_json(im);
		if (r < 0)
			return r;
	}
	for (i = 0; i < ARRAY_SIZE(heads); i++)
		if (json_object_get(im->json, heads[i]) == NULL)
			return err_set(im->e, -ENOENT,
				       "%s: not the published size (dim %zu), and shapes do not "
				       "tell how many "
				       "attention heads there are: give --model-json FILE with "
				       "vit_heads, bert_heads, "
				       "fus_heads",
				       im->q->checkpoint, im->axis[DIM]);
	return 0;
}

static int check_vocab(struct import *im, void **ret, size_t *ret_n)
{
	struct tokenizer *t;
	size_t n;
	int r;

	r = tokenizer_open(im->q->vocab, &t, im->e);
	if (r < 0)
		return r;
	n = tokenizer_size(t);
	tokenizer_close(t);
	if (n != im->axis[VOCAB])
		return err_set(
			im->e, -EBADMSG,
			"%s: %zu pieces, but %s has embeddings for %zu; it is not this model's "
			"vocabulary",
			im->q->vocab, n, im->q->checkpoint, im->axis[VOCAB]);
	return read_path(im->q->vocab, TOKENIZER_VOCAB_BYTES_MAX, ret, ret_n, im->e);
}

/* IEEE 754 binary16 to binary32, by bits. */
static uint32_t widen_half(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;

	if (exponent == 31)
		return sign | 0x7f800000 | fraction << 13;
	if (exponent == 0) { /* zero and subnormals: fraction * 2^-24, exact in float32 */
		float v = (float)fraction / 16777216.0f;
		uint32_t bits;

		memcpy(&bits, &v, sizeof(bits));
		return sign | bits;
	}
	return sign | (exponent + 112) << 23 | fraction << 13;
}

static void widen(enum checkpoint_type type, const uint8_t *p, size_t n, float *ret)
{
	size_t i;

	if (type == CHECKPOINT_F32) {
		memcpy(ret, p, n * sizeof(*ret));
		return;
	}
	for (i = 0; i < n; i++) {
		uint16_t h = (uint16_t)(p[2 * i] | p[2 * i + 1] << 8);
		uint32_t bits = type == CHECKPOINT_F16 ? widen_half(h) : (uint32_t)h << 16;

		memcpy(&ret[i], &bits, sizeof(bits));
	}
}

static int copy_tensor(struct import *im, const struct wanted *w, struct safetensors_writer *out,
		       float *chunk)
{
	const struct checkpoint_tensor *t = checkpoint_tensor(im->c, w->index);
	size_t at, n, i, size = t->count > 0 ? t->bytes / t->count : 0;
	int r;

	r = checkpoint_verify(im->c, w->index, im->e);
	if (r < 0)
		return r;
	for (at = 0; at < t->count; at += n) {
		n = t->count - at < CHUNK ? t->count - at : CHUNK;
		widen(t->type, t->data + at * size, n, chunk);
		checkpoint_release(im->c, t->data + at * size, n * size);
		for (i = 0; i < n; i++)
			if (!isfinite(chunk[i]))
				return err_set(im->e, -EBADMSG,
					       "%s: tensor %s: element %zu is not a finite number; "
					       "training diverged or the file is damaged",
					       im->q->checkpoint, t->name, at + i);
		r = safetensors_write_data(out, chunk, n * sizeof(*chunk), im->e);
		if (r < 0)
			return r;
	}
	return 0;
}

static int write_weights(struct import *im, int dir, uint8_t ret_digest[DIGEST_SIZE])
{
	CLEANUP(free) struct safetensors_entry *entries = xcalloc(im->n_wanted, sizeof(*entries));
	CLEANUP(free) size_t *order = xcalloc(im->n_wanted, sizeof(*order));
	CLEANUP(free) float *chunk = xcalloc(CHUNK, sizeof(*chunk));
	struct safetensors_writer *out;
	char source[DIGEST_HEX_MAX];
	struct safetensors_meta meta[] = { { "format", "pt" },
					   { "source_sha256", source },
					   { "tool", im->q->tool } };
	size_t i;
	int r;

	str_hex(source, im->report->source, DIGEST_SIZE);
	for (i = 0; i < im->n_wanted; i++)
		entries[i] = (struct safetensors_entry){ im->wanted[i].key, im->wanted[i].rank,
							 im->wanted[i].shape };
	r = safetensors_order(entries, im->n_wanted, order, im->e);
	if (r < 0)
		return r;
	r = safetensors_write_open(dir, "weights.safetensors", entries, im->n_wanted, meta,
				   ARRAY_SIZE(meta), &out, im->e);
	if (r < 0)
		return r;
	for (i = 0; r == 0 && i < im->n_wanted; i++)
		r = copy_tensor(im, &im->wanted[order[i]], out, chunk);
	if (r == 0)
		r = safetensors_write_commit(out, ret_digest, im->e);
	safetensors_write_close(out);
	return r;
}

static int write_file(struct import *im, int dir, const char *name, const void *p, size_t n)
{
	CLEANUP(close) int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	int r;

	if (fd < 0)
		return err_set(im->e, -errno, "%s: %s", name, strerror(errno));
	r = write_full(fd, p, n);
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	if (r == 0 && close(TAKE_FD(fd)) < 0)
		r = -errno;
	return r < 0 ? err_set(im->e, r, "%s: writing: %s", name, strerror(-r)) : 0;
}

/* model.json is complete once the digest of the weights is known. */
static int write_manifest(struct import *im, int dir, const uint8_t digest[DIGEST_SIZE])
{
	CLEANUP(free) char *text = NULL;
	char hex[DIGEST_HEX_MAX], family[32];
	const char *given;
	int r;

	str_hex(hex, digest, DIGEST_SIZE);
	json_object_set_new(im->json, "sha256", json_string(hex));
	given = json_string_value(json_object_get(im->json, "family"));
	if (given != NULL &&
	    strcmp(given, UNNAMED) == 0) { /* one that no calibration can refer to by chance */
		(void)snprintf(family, sizeof(family), UNNAMED "-%.8s", hex);
		json_object_set_new(im->json, "family", json_string(family));
	}
	text = json_dumps(im->json, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
	if (text == NULL)
		return err_set(im->e, -EINVAL, "model.json cannot be written");
	r = manifest_parse(text, strlen(text),
			   im->q->model_json != NULL ? im->q->model_json : "model.json",
			   &im->report->manifest, im->e);
	if (r < 0)
		return r;
	return write_file(im, dir, "model.json", text, strlen(text));
}

static int write_bundle(struct import *im, int dir, const void *vocab, size_t n_vocab)
{
	uint8_t digest[DIGEST_SIZE];
	int r;

	r = write_weights(im, dir, digest);
	if (r < 0)
		return r;
	r = write_file(im, dir, "vocab.txt", vocab, n_vocab);
	if (r < 0)
		return r;
	r = write_manifest(im, dir, digest);
	if (r < 0)
		return r;
	if (fsync(dir) < 0)
		return err_set(im->e, -errno, "%s: syncing: %s", im->q->out, strerror(errno));
	return 0;
}

static int sync_parent(struct import *im, const char *path)
{
	CLEANUP(free) char *parent = xstrdup(path);
	CLEANUP(close) int fd = -1;
	char *slash = strrchr(parent, '/');

	if (slash != NULL)
		slash[slash == parent ? 1 : 0] = '\0';
	fd = open(slash != NULL ? parent : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		return err_set(im->e, -errno, "%s: syncing its directory: %s", path, strerror(errno));
	return 0;
}

/* Everything goes into a directory beside OUT, which is renamed when it is complete and on disk. */
static int install(struct import *im, const void *vocab, size_t n_vocab)
{
	static const char *const files[] = { "weights.safetensors", "vocab.txt", "model.json" };
	char out[PATH_MAX - 16], temporary[PATH_MAX];
	size_t n = strlen(im->q->out), i;
	int dir, r;

	while (n > 1 && im->q->out[n - 1] == '/')
		n--;
	if (n == 0 || n >= sizeof(out))
		return err_set(im->e, -EINVAL, "the output directory needs a name");
	(void)snprintf(out, sizeof(out), "%.*s", (int)n, im->q->out);
	(void)snprintf(temporary, sizeof(temporary), "%s.XXXXXX", out);
	if (mkdtemp(temporary) == NULL)
		return err_set(im->e, -errno, "%s: cannot make a directory beside it: %s", out,
			       strerror(errno));
	dir = open(temporary, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0 || fchmod(dir, 0755) < 0)
		r = err_set(im->e, -errno, "%s: %s", temporary, strerror(errno));
	else
		r = write_bundle(im, dir, vocab, n_vocab);
	if (r == 0 && rename(temporary, out) < 0)
		r = err_set(im->e, -errno, "%s: renaming to %s: %s", temporary, out, strerror(errno));
	if (r < 0) {
		for (i = 0; dir >= 0 && i < ARRAY_SIZE(files); i++)
			(void)unlinkat(dir, files[i], 0); /* those that were made */
		(void)rmdir(temporary); /* our own; if it stays, its name says what it is */
	}
	if (dir >= 0)
		(void)close(dir); /* a directory: nothing to write back */
	return r < 0 ? r : sync_parent(im, out);
}

/* Told before the work, not after it.  An empty directory is as good as none. */
static int check_out(const struct import *im)
{
	DIR *d = opendir(im->q->out);
	const struct dirent *entry;
	bool taken = d == NULL && errno != ENOENT;

	while (d != NULL && !taken && (entry = readdir(d)) != NULL)
		taken = strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
	if (d != NULL)
		(void)closedir(d); /* was only read */
	if (taken)
		return err_set(im->e, -EEXIST,
			       "%s: is there already; give a new directory or remove it",
			       im->q->out);
	return 0;
}

static int run(struct import *im)
{
	CLEANUP(free) void *vocab = NULL;
	size_t n_vocab;
	int r;

	r = check_out(im);
	if (r < 0)
		return r;
	r = checkpoint_open(im->q->checkpoint, &im->c, im->e);
	if (r < 0)
		return r;
	im->report->format = checkpoint_format(im->c);
	r = name_tensors(im);
	if (r < 0)
		return r;
	r = derive(im);
	if (r < 0)
		return r;
	r = choose(im);
	if (r < 0)
		return r;
	r = describe(im);
	if (r < 0)
		return r;
	check_hyper(im);
	r = check_vocab(im, &vocab, &n_vocab);
	if (r < 0)
		return r;
	checkpoint_digest(im->c, im->report->source);
	return install(im, vocab, n_vocab);
}

int import_bundle(const struct import_request *q, struct import_report *ret, struct err *e)
{
	struct import im = { .q = q, .report = ret, .e = e };
	int r;

	memset(ret, 0, sizeof(*ret));
	im.json = json_pack("{s:i, s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:f, s:f, s:{s:f, s:f, s:f}}",
			    "format", MANIFEST_FORMAT, "name", UNNAMED, "family", UNNAMED, "domain",
			    "untrained", "sha256", "", "word_num", 97, "last_n_layers", 4, "imsize",
			    256, "mean", 0.4978, "std", 0.2449, "eps", "vit", 1e-6, "bert", 1e-12,
			    "fusion", 1e-5);
	r = run(&im);
	json_decref(im.json);
	checkpoint_close(im.c);
	free(im.named);
	free(im.wanted);
	return r;
}
