/* manifest.c: see manifest.h.  Reads model.json with jansson and believes nothing.
 *
 * One reader per kind of value; the list of keys in read_dims() is the format's definition.  Relations
 * between numbers are checked after all of them are read.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fdio.h"
#include "base/mem.h"
#include "base/str.h"

#include "model/manifest.h"
#include "model/tokenizer.h"

#define VALUE_TEXT_MAX 96

struct reader {
	const char *path;
	struct err *e;
};

static const char *const domains[] = {
	[MODEL_UNTRAINED] = "untrained",
	[MODEL_PHANTOM] = "phantom",
	[MODEL_CLINICAL] = "clinical",
};

/* The value as an error shows it. */
static const char *value_text(char ret[VALUE_TEXT_MAX], const json_t *v)
{
	char quoted[VALUE_TEXT_MAX - 8];
	CLEANUP(free) char *dump = NULL;

	if (v == NULL)
		return "missing";
	if (json_is_string(v)) {
		(void)snprintf(ret, VALUE_TEXT_MAX, "\"%s\"",
			       str_quote(quoted, sizeof(quoted), json_string_value(v)));
		return ret;
	}
	dump = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
	return str_quote(ret, VALUE_TEXT_MAX, dump != NULL ? dump : "?");
}

static int bad_value(const struct reader *r, const char *key, const json_t *v, const char *expected)
{
	char text[VALUE_TEXT_MAX];

	return err_set(r->e, -EBADMSG, "%s: key %s is %s, expected %s", r->path, key, value_text(text, v),
		       expected);
}

static int read_size(const struct reader *r, const json_t *v, const char *key, size_t min, size_t max,
		     size_t *ret)
{
	char expected[VALUE_TEXT_MAX];

	if (!json_is_integer(v) || json_integer_value(v) < (json_int_t)min ||
	    json_integer_value(v) > (json_int_t)max) {
		(void)snprintf(expected, sizeof(expected), "a whole number from %zu to %zu", min, max);
		return bad_value(r, key, v, expected);
	}
	*ret = (size_t)json_integer_value(v);
	return 0;
}

static int read_real(const struct reader *r, const json_t *v, const char *key, double min, double max,
		     float *ret)
{
	char expected[VALUE_TEXT_MAX];
	double x = json_is_number(v) ? json_number_value(v) : NAN;

	if (!(x >= min && x <= max)) {
		(void)snprintf(expected, sizeof(expected), "a number from %g to %g", min, max);
		return bad_value(r, key, v, expected);
	}
	*ret = (float)x;
	return 0;
}

/* Names travel into logs, reports and calibrations: letters, digits and a little punctuation. */
static int read_name(const struct reader *r, const json_t *root, const char *key, char *ret, size_t size)
{
	const json_t *v = json_object_get(root, key);
	const char *s = json_string_value(v);

	if (s == NULL || s[0] == '\0' || strlen(s) >= size ||
	    s[strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ._+-")] != '\0')
		return bad_value(r, key, v, "1 to 63 letters, digits, blanks or . _ + -");
	(void)str_copy(ret, size, s); /* its length was checked */
	return 0;
}

static int read_domain(const struct reader *r, const json_t *root, enum model_domain *ret)
{
	const json_t *v = json_object_get(root, "domain");
	const char *s = json_string_value(v);

	*ret = MODEL_UNTRAINED; /* a bundle that does not say is never trusted with a patient */
	if (v == NULL)
		return 0;
	for (size_t i = 0; s != NULL && i < ARRAY_SIZE(domains); i++)
		if (strcmp(s, domains[i]) == 0) {
			*ret = (enum model_domain)i;
			return 0;
		}
	return bad_value(r, "domain", v, "untrained, phantom or clinical");
}

static int read_digest(const struct reader *r, const json_t *root, uint8_t ret[DIGEST_SIZE])
{
	const json_t *v = json_object_get(root, "sha256");
	const char *s = json_string_value(v);

	if (s == NULL || !str_unhex(ret, DIGEST_SIZE, s))
		return bad_value(r, "sha256", v, "the SHA-256 of weights.safetensors in 64 hex digits");
	return 0;
}

static int read_dims(const struct reader *r, const json_t *root, struct dims *d)
{
	const struct {
		const char *key;
		size_t min, max, *ret;
	} sizes[] = {
		{ "dim", 1, DIMS_DIM_MAX, &d->dim },
		{ "img", 1, DIMS_IMAGE_MAX, &d->image },
		{ "patch", 1, DIMS_PATCH_MAX, &d->patch },
		{ "vit_depth", 1, DIMS_DEPTH_MAX, &d->vit_depth },
		{ "vit_heads", 1, DIMS_DIM_MAX, &d->vit_heads },
		{ "vit_mlp", 1, DIMS_HIDDEN_MAX, &d->vit_mlp },
		{ "vocab", 4, TOKENIZER_VOCAB_MAX, &d->vocab },
		{ "max_pos", 3, DIMS_POSITIONS_MAX, &d->positions },
		{ "bert_depth", 1, DIMS_DEPTH_MAX, &d->bert_depth },
		{ "bert_heads", 1, DIMS_DIM_MAX, &d->bert_heads },
		{ "bert_mlp", 1, DIMS_HIDDEN_MAX, &d->bert_mlp },
		{ "last_n_layers", 1, DIMS_DEPTH_MAX + 1, &d->last_layers },
		{ "fus_depth", 1, DIMS_DEPTH_MAX, &d->fusion_depth },
		{ "fus_heads", 1, DIMS_DIM_MAX, &d->fusion_heads },
		{ "fus_mlp", 1, DIMS_HIDDEN_MAX, &d->fusion_mlp },
		{ "word_num", 3, DIMS_POSITIONS_MAX, &d->word_num },
		{ "imsize", 1, DIMS_IMAGE_MAX, &d->square },
	};
	const json_t *head = json_object_get(root, "head"), *eps = json_object_get(root, "eps");
	int err;

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		err = read_size(r, json_object_get(root, sizes[i].key), sizes[i].key, sizes[i].min,
				sizes[i].max, sizes[i].ret);
		if (err < 0)
			return err;
	}
	if (json_array_size(head) != DIMS_HEAD_LAYERS)
		return bad_value(r, "head", head, "a list of 3 whole numbers");
	for (size_t i = 0; i < DIMS_HEAD_LAYERS; i++) {
		err = read_size(r, json_array_get(head, i), "head", 1, DIMS_HIDDEN_MAX, &d->head[i]);
		if (err < 0)
			return err;
	}
	err = read_real(r, json_object_get(root, "mean"), "mean", 0, 1, &d->mean);
	if (err < 0)
		return err;
	err = read_real(r, json_object_get(root, "std"), "std", 1e-3, 1e3, &d->deviation);
	if (err < 0)
		return err;
	err = read_real(r, json_object_get(eps, "vit"), "eps.vit", 1e-15, 0.1, &d->vit_eps);
	if (err < 0)
		return err;
	err = read_real(r, json_object_get(eps, "bert"), "eps.bert", 1e-15, 0.1, &d->bert_eps);
	if (err < 0)
		return err;
	return read_real(r, json_object_get(eps, "fusion"), "eps.fusion", 1e-15, 0.1, &d->fusion_eps);
}

static int check_relations(const struct reader *r, const json_t *root, struct dims *d)
{
	const struct {
		const char *key;
		size_t heads;
	} heads[] = {
		{ "vit_heads", d->vit_heads },
		{ "bert_heads", d->bert_heads },
		{ "fus_heads", d->fusion_heads },
	};
	size_t crop;
	int err;

	for (size_t i = 0; i < ARRAY_SIZE(heads); i++)
		if (d->dim % heads[i].heads != 0)
			return bad_value(r, heads[i].key, json_object_get(root, heads[i].key),
					 "a divisor of dim");
	err = read_size(r, json_object_get(root, "crop"), "crop", 1, DIMS_IMAGE_MAX, &crop);
	if (err < 0)
		return err;
	if (crop != d->image)
		return bad_value(r, "crop", json_object_get(root, "crop"), "the value of img");
	if (d->square < d->image || (d->square - d->image) % 2 != 0)
		return bad_value(r, "imsize", json_object_get(root, "imsize"),
				 "crop plus an even number, so that the crop has a centre");
	if (d->image % d->patch != 0)
		return bad_value(r, "patch", json_object_get(root, "patch"), "a divisor of img");
	d->grid = d->image / d->patch;
	d->tokens = d->grid * d->grid + 1;
	if (d->tokens > DIMS_TOKENS_MAX)
		return bad_value(r, "patch", json_object_get(root, "patch"), "at most 16384 patches");
	if (d->word_num > d->positions)
		return bad_value(r, "word_num", json_object_get(root, "word_num"), "at most max_pos");
	if (d->last_layers > d->bert_depth + 1)
		return bad_value(r, "last_n_layers", json_object_get(root, "last_n_layers"),
				 "at most bert_depth + 1");
	return 0;
}

static int read_root(const struct reader *r, const json_t *root, struct manifest *ret)
{
	struct manifest m = { .name = "" };
	size_t format;
	int err;

	if (!json_is_object(root))
		return err_set(r->e, -EBADMSG, "%s: not a JSON object", r->path);
	err = read_size(r, json_object_get(root, "format"), "format", MANIFEST_FORMAT, MANIFEST_FORMAT,
			&format);
	if (err < 0)
		return err;
	err = read_name(r, root, "name", m.name, sizeof(m.name));
	if (err < 0)
		return err;
	err = read_name(r, root, "family", m.family, sizeof(m.family));
	if (err < 0)
		return err;
	err = read_domain(r, root, &m.domain);
	if (err < 0)
		return err;
	err = read_digest(r, root, m.digest);
	if (err < 0)
		return err;
	err = read_dims(r, root, &m.dims);
	if (err < 0)
		return err;
	err = check_relations(r, root, &m.dims);
	if (err < 0)
		return err;
	*ret = m;
	return 0;
}

int manifest_parse(const char *text, size_t n, const char *path, struct manifest *ret, struct err *e)
{
	struct reader r = { .path = path, .e = e };
	char quoted[VALUE_TEXT_MAX];
	json_error_t why;
	json_t *root;
	int err;

	root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &why);
	if (root == NULL)
		return err_set(e, -EBADMSG, "%s: line %d: %s", path, why.line,
			       str_quote(quoted, sizeof(quoted), why.text));
	err = read_root(&r, root, ret);
	json_decref(root);
	return err;
}

int manifest_read(const char *path, struct manifest *ret, struct err *e)
{
	CLEANUP(free) void *text = NULL;
	size_t n;
	int err;

	err = read_path(path, MANIFEST_BYTES_MAX, &text, &n, e);
	if (err < 0)
		return err;
	return manifest_parse(text, n, path, ret, e);
}

/* Beside the old one, then in its place: a reader finds either, and after a power cut too. */
static int replace(const char *dir, const char *text, struct err *e)
{
	CLEANUP(close) int at = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CLEANUP(close) int fd = -1;
	int r = 0;

	if (at < 0)
		return err_set(e, -errno, "%s: %s", dir, strerror(errno));
	(void)unlinkat(at, "model.json.new", 0); /* of a run that was cut short */
	fd = openat(at, "model.json.new", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		return err_set(e, -errno, "%s/model.json.new: %s", dir, strerror(errno));
	r = write_full(fd, text, strlen(text));
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	if (r == 0 && close(TAKE_FD(fd)) < 0)
		r = -errno;
	if (r == 0 && renameat(at, "model.json.new", at, "model.json") < 0)
		r = -errno;
	if (r == 0 && fsync(at) < 0)
		r = -errno;
	if (r < 0) {
		(void)unlinkat(at, "model.json.new", 0); /* ours; gone already after the rename */
		return err_set(e, r, "%s/model.json: writing: %s", dir, strerror(-r));
	}
	return 0;
}

int manifest_verified(const char *dir, const struct manifest_proof *proof, struct err *e)
{
	CLEANUP(free) void *old = NULL;
	CLEANUP(free) char *text = NULL;
	char path[PATH_MAX], hex[DIGEST_HEX_MAX];
	struct manifest m;
	json_t *root;
	size_t n;
	int r;

	if (snprintf(path, sizeof(path), "%s/model.json", dir) >= (int)sizeof(path))
		return err_set(e, -ENAMETOOLONG, "%s: path too long", dir);
	r = read_path(path, MANIFEST_BYTES_MAX, &old, &n, e);
	if (r < 0)
		return r;
	r = manifest_parse(old, n, path, &m, e);
	if (r < 0)
		return r;
	root = json_loadb(old, n, JSON_REJECT_DUPLICATES, NULL); /* manifest_parse() could */
	str_hex(hex, proof->logits, DIGEST_SIZE);
	json_object_set_new(root, "family", json_string(FAMILY_VERIFIED));
	json_object_set_new(root, "domain", json_string(domains[MODEL_CLINICAL]));
	json_object_set_new(root, "verified",
			    json_pack("{s:I, s:I, s:f, s:s}", "images", (json_int_t)proof->images,
				      "findings", (json_int_t)proof->findings, "max_difference",
				      proof->difference, "logits_sha256", hex));
	text = json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
	json_decref(root);
	if (text == NULL)
		return err_set(e, -EINVAL, "%s cannot be written as JSON", path);
	return replace(dir, text, e);
}
