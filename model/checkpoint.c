/* checkpoint.c: see checkpoint.h and carzero.md 1.4.
 *
 * Two steps.  The pickle gives, for each key of state_dict, a storage's key, an offset, a shape and
 * strides; the archive (or, in the legacy format, the bytes behind the pickles) says where each storage lies
 * and how long it is.  Storages are collected once, sorted by key; a tensor is bound to its storage
 * with every product checked.
 *
 * A file that is cut while we read it ends the process with SIGBUS; the importer's temporary directory
 * is then left over and nothing else.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/mem.h"
#include "base/str.h"

#include "model/checkpoint.h"
#include "model/pickle.h"
#include "model/weights.h"
#include "model/zip.h"

#define STORAGES_MAX 65536
#define WRAPPERS_MAX 4 /* _rebuild_parameter around a tensor: one in practice */
#define SHOWN_MAX 160
#define KEYS_SHOWN 6
#define SLICE ((size_t)4 * 1024 * 1024) /* looked at, then given back */

_Static_assert(CHECKPOINT_RANK_MAX >= WEIGHTS_RANK_MAX, "shapes that weights.h lets through must fit");

struct storage {
	const uint8_t *key; /* in the file */
	size_t key_len;
	enum checkpoint_type type;
	size_t element; /* bytes an element */
	size_t numel;	/* as the pickle says */
	const uint8_t *data; /* NULL until it is known where it lies */
	size_t bytes;
	const struct zip_member *member; /* NULL in the legacy format */
	bool verified;
};

struct checkpoint {
	char *what; /* for errors */
	void *map;  /* NULL when the memory is the caller's */
	const uint8_t *file;
	size_t size;
	const char *format;
	struct zip *zip;
	struct pickle *pickle;
	uint32_t hyper; /* node of hyper_parameters, 0 when there is none */
	struct storage *storages; /* [n_storages] by key */
	size_t n_storages;
	struct checkpoint_tensor *tensors; /* [n_tensors] in file order */
	size_t n_tensors;
};

static void shown(char ret[SHOWN_MAX], const void *text, size_t n)
{
	char raw[SHOWN_MAX];

	(void)str_copy_padded(raw, sizeof(raw), text, n); /* cutting is what we want */
	(void)str_quote(ret, SHOWN_MAX, raw);
}

/* Storage classes of torch (module "torch", in old files also "torch.cuda"). */
static bool storage_class(const struct pickle *p, uint32_t name, struct storage *s)
{
	static const struct {
		const char *name;
		enum checkpoint_type type;
		size_t element;
	} classes[] = {
		{ "FloatStorage", CHECKPOINT_F32, 4 },	  { "HalfStorage", CHECKPOINT_F16, 2 },
		{ "BFloat16Storage", CHECKPOINT_BF16, 2 }, { "DoubleStorage", CHECKPOINT_OTHER, 8 },
		{ "LongStorage", CHECKPOINT_OTHER, 8 },	  { "IntStorage", CHECKPOINT_OTHER, 4 },
		{ "ShortStorage", CHECKPOINT_OTHER, 2 },  { "CharStorage", CHECKPOINT_OTHER, 1 },
		{ "ByteStorage", CHECKPOINT_OTHER, 1 },	  { "BoolStorage", CHECKPOINT_OTHER, 1 },
		{ "ComplexFloatStorage", CHECKPOINT_OTHER, 8 }, { "ComplexDoubleStorage", CHECKPOINT_OTHER, 16 },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(classes); i++)
		if (pickle_name_is(p, name, "torch", classes[i].name) ||
		    pickle_name_is(p, name, "torch.cuda", classes[i].name)) {
			s->type = classes[i].type;
			s->element = classes[i].element;
			return true;
		}
	if (pickle_name_is(p, name, "torch.storage", "UntypedStorage")) {
		s->type = CHECKPOINT_OTHER;
		s->element = 1;
		return true;
	}
	return false;
}

/* ('storage', class, key, location, numel [, view]) */
static int read_storage(const struct checkpoint *c, uint32_t id, struct storage *ret, struct err *e)
{
	const struct pickle *p = c->pickle;
	uint32_t view = pickle_nth(p, id, 5);
	const struct pickle_node *key = pickle_node(p, pickle_nth(p, id, 2));
	struct storage s = { .key = key->text, .key_len = key->n };
	char text[SHOWN_MAX];

	if (pickle_node(p, id)->kind != PICKLE_TUPLE ||
	    !pickle_text_is(p, pickle_nth(p, id, 0), "storage") || key->kind != PICKLE_TEXT ||
	    !pickle_size_value(p, pickle_nth(p, id, 4), &s.numel))
		return err_set(e, -EBADMSG,
			       "%s: an outside object is not the description of a storage",
			       c->what);
	shown(text, key->text, key->n);
	if (!storage_class(p, pickle_nth(p, id, 1), &s))
		return err_set(
			e, -ENOTSUP,
			"%s: storage %s has an unknown class; convert the checkpoint to float32",
			c->what, text);
	if (view != 0 && pickle_node(p, view)->kind != PICKLE_NONE)
		return err_set(
			e, -ENOTSUP,
			"%s: storage %s is a view of another one, as torch before 0.4 wrote; "
			"save the checkpoint again with a newer torch",
			c->what, text);
	*ret = s;
	return 0;
}

static int by_key(const void *pa, const void *pb)
{
	const struct storage *a = pa, *b = pb;
	size_t n = a->key_len < b->key_len ? a->key_len : b->key_len;
	int r = n > 0 ? memcmp(a->key, b->key, n) : 0;

	return r != 0 ? r : (a->key_len > b->key_len) - (a->key_len < b->key_len);
}

static struct storage *find_storage(const struct checkpoint *c, const uint8_t *key, size_t len)
{
	struct storage want = { .key = key, .key_len = len };

	return c->n_storages > 0 ? bsearch(&want, c->storages, c->n_storages, sizeof(want), by_key)
				 : NULL;
}

/* Every storage that the pickle names, each once. */
static int collect_storages(struct checkpoint *c, struct err *e)
{
	const struct pickle *p = c->pickle;
	size_t n = 0, i, kept = 0;
	char text[SHOWN_MAX];
	int r;

	for (i = 1; i < pickle_size(p); i++)
		n += pickle_node(p, (uint32_t)i)->kind == PICKLE_OUTSIDE;
	if (n > STORAGES_MAX)
		return err_set(e, -E2BIG, "%s: %zu storages, at most %d are read", c->what, n,
			       STORAGES_MAX);
	c->storages = xcalloc(n, sizeof(*c->storages));
	for (i = 1; i < pickle_size(p); i++) {
		const struct pickle_node *node = pickle_node(p, (uint32_t)i);

		if (node->kind != PICKLE_OUTSIDE)
			continue;
		r = read_storage(c, node->a, &c->storages[c->n_storages], e);
		if (r < 0)
			return r;
		c->n_storages++;
	}
	qsort(c->storages, c->n_storages, sizeof(*c->storages), by_key);
	for (i = 0; i < c->n_storages; i++) {
		const struct storage *s = &c->storages[i],
				     *last = kept > 0 ? &c->storages[kept - 1] : NULL;

		if (last == NULL || by_key(last, s) != 0) {
			c->storages[kept++] = *s;
			continue;
		}
		shown(text, s->key, s->key_len);
		if (last->element != s->element || last->type != s->type || last->numel != s->numel)
			return err_set(e, -EBADMSG, "%s: storage %s is described in two ways",
				       c->what, text);
	}
	c->n_storages = kept;
	return 0;
}

/* Says where a storage lies, after its length is known to be enough. */
static int place_storage(const struct checkpoint *c, struct storage *s, const uint8_t *data, size_t bytes,
			 struct err *e)
{
	char text[SHOWN_MAX];
	size_t need;

	shown(text, s->key, s->key_len);
	if (!mul_ok(s->numel, s->element, &need) || need > bytes)
		return err_set(e, -EBADMSG,
			       "%s: storage %s should hold %zu elements of %zu bytes, but has only "
			       "%zu bytes",
			       c->what, text, s->numel, s->element, bytes);
	s->data = data;
	s->bytes = need;
	return 0;
}

/* In a zip archive: member ROOT/data/KEY; looked up when a tensor needs it. */
static int locate_in_zip(const struct checkpoint *c, const struct zip_member *root, struct storage *s,
			 struct err *e)
{
	static const char tail[] = "data.pkl", folder[] = "data/";
	size_t prefix = root->name_len - (sizeof(tail) - 1);
	char name[CHECKPOINT_NAME_MAX], text[SHOWN_MAX];
	size_t n = prefix + sizeof(folder) - 1;

	shown(text, s->key, s->key_len);
	if (s->key_len > sizeof(name) || n > sizeof(name) - s->key_len)
		return err_set(e, -E2BIG, "%s: storage %s has too long a name", c->what, text);
	memcpy(name, root->name, prefix);
	memcpy(name + prefix, folder, sizeof(folder) - 1);
	memcpy(name + n, s->key, s->key_len);
	s->member = zip_find(c->zip, name, n + s->key_len);
	if (s->member == NULL)
		return err_set(e, -EBADMSG, "%s: the archive has no member for storage %s", c->what,
			       text);
	return place_storage(c, s, s->member->data, s->member->size, e);
}

static bool read_shape(const struct pickle *p, uint32_t node, size_t *ret, size_t *ret_rank)
{
	struct pickle_item item;
	uint32_t at = 0;
	size_t n = 0;

	if (pickle_node(p, node)->kind != PICKLE_TUPLE)
		return false;
	while (pickle_next(p, node, &at, &item)) {
		if (n == CHECKPOINT_RANK_MAX || !pickle_size_value(p, item.value, &ret[n]))
			return false;
		n++;
	}
	*ret_rank = n;
	return true;
}

/* Row-major without holes; a dimension of 1 may have any stride. */
static bool contiguous(const struct checkpoint_tensor *t, const size_t *strides)
{
	size_t i, want = 1;

	for (i = t->rank; i-- > 0;) {
		if (t->shape[i] != 1 && strides[i] != want)
			return false;
		want *= t->shape[i]; /* the product of all was checked */
	}
	return true;
}

/* _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks [, metadata]) */
static int bind_tensor(const struct checkpoint *c, const struct zip_member *root, uint32_t arguments,
		       struct checkpoint_tensor *t, struct err *e)
{
	const struct pickle *p = c->pickle;
	const struct pickle_node *outside = pickle_node(p, pickle_nth(p, arguments, 0));
	const struct pickle_node *key = pickle_node(p, pickle_nth(p, outside->a, 2));
	size_t strides[CHECKPOINT_RANK_MAX], stride_rank = 0, offset, end, i;
	struct storage *s;
	int r;

	if (outside->kind != PICKLE_OUTSIDE ||
	    !pickle_size_value(p, pickle_nth(p, arguments, 1), &offset) ||
	    !read_shape(p, pickle_nth(p, arguments, 2), t->shape, &t->rank) ||
	    !read_shape(p, pickle_nth(p, arguments, 3), strides, &stride_rank) ||
	    stride_rank != t->rank)
		return err_set(
			e, -EBADMSG,
			"%s: tensor %s: broken description (storage, offset, shape, strides)",
			c->what, t->name);
	s = find_storage(c, key->text, key->n); /* there: collect_storages() took them all */
	if (s->data == NULL && root != NULL) {
		r = locate_in_zip(c, root, s, e);
		if (r < 0)
			return err_prefix(e, r, "tensor %s", t->name);
	}
	if (s->data == NULL)
		return err_set(e, -EBADMSG, "%s: tensor %s: its storage is not in the file",
			       c->what, t->name);
	t->type = s->type;
	t->storage = (size_t)(s - c->storages);
	t->count = 1;
	for (i = 0; i < t->rank; i++)
		if (!mul_ok(t->count, t->shape[i], &t->count))
			return err_set(e, -EBADMSG, "%s: tensor %s: its shape overflows", c->what,
				       t->name);
	if (!contiguous(t, strides)) {
		t->problem = "is a strided view; save it with .contiguous()";
		return 0;
	}
	if (!add_ok(offset, t->count, &end) || end > s->numel)
		return err_set(
			e, -EBADMSG,
			"%s: tensor %s has %zu elements from %zu on, but its storage has only %zu",
			c->what, t->name, t->count, offset, s->numel);
	if (t->type == CHECKPOINT_OTHER) {
		t->problem = "is not float32, float16 or bfloat16";
		return 0;
	}
	t->data = s->data + offset * s->element; /* at most numel * element, which was checked */
	t->bytes = t->count * s->element;
	return 0;
}

/* Names are printable ASCII without blanks, so that they can be shown and compared as they are. */
static bool plain(const uint8_t *text, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (text[i] <= 0x20 || text[i] >= 0x7f)
			return false;
	return n > 0;
}

static int read_tensor(const struct checkpoint *c, const struct zip_member *root,
		       const struct pickle_item *item, struct checkpoint_tensor *t, struct err *e)
{
	const struct pickle *p = c->pickle;
	const struct pickle_node *key = pickle_node(p, item->key);
	uint32_t node = item->value;
	char text[SHOWN_MAX];
	int depth;

	if (key->kind != PICKLE_TEXT)
		return err_set(e, -EBADMSG, "%s: state_dict has a key that is no string", c->what);
	shown(text, key->text, key->n);
	if (key->n >= sizeof(t->name) || !plain(key->text, key->n))
		return err_set(e, -EBADMSG, "%s: state_dict has a key that no model has: %s",
			       c->what, text);
	(void)str_copy_padded(t->name, sizeof(t->name), key->text, key->n); /* its length was checked */
	for (depth = 0;
	     depth < WRAPPERS_MAX && pickle_call_is(p, node, "torch._utils", "_rebuild_parameter");
	     depth++)
		node = pickle_nth(p, pickle_node(p, node)->b, 0);
	if (!pickle_call_is(p, node, "torch._utils", "_rebuild_tensor_v2")) {
		t->problem = "is not a dense tensor";
		return 0;
	}
	return bind_tensor(c, root, pickle_node(p, node)->b, t, e);
}

/* "epoch, state_dict, ..." for an error. */
static void list_keys(const struct pickle *p, uint32_t node, char *ret, size_t size)
{
	struct pickle_item item;
	uint32_t at = 0;
	size_t n = 0, shown_keys = 0;
	char text[SHOWN_MAX];

	ret[0] = '\0';
	while (n < size - 1 && shown_keys < KEYS_SHOWN && pickle_next(p, node, &at, &item)) {
		const struct pickle_node *key = pickle_node(p, item.key);

		if (key->kind != PICKLE_TEXT)
			continue;
		shown(text, key->text, key->n);
		n += (size_t)snprintf(ret + n, size - n, "%s%s", shown_keys++ > 0 ? ", " : "", text);
	}
}

static int read_state_dict(struct checkpoint *c, const struct zip_member *root, struct err *e)
{
	const struct pickle *p = c->pickle;
	uint32_t state = pickle_get(p, pickle_root(p), "state_dict"), at = 0;
	enum pickle_kind kind = pickle_node(p, state)->kind;
	size_t n = pickle_count(p, state);
	struct pickle_item item;
	char keys[ERR_TEXT_MAX / 2];
	int r;

	if (kind != PICKLE_DICT && !pickle_call_is(p, state, "collections", "OrderedDict")) {
		list_keys(p, pickle_root(p), keys, sizeof(keys));
		return err_set(
			e, -EBADMSG,
			"%s: no state_dict in it; a Lightning checkpoint has one. Its keys are: %s",
			c->what, keys[0] != '\0' ? keys : "(none)");
	}
	if (n > CHECKPOINT_TENSORS_MAX)
		return err_set(e, -E2BIG, "%s: state_dict has %zu entries, at most %d are read",
			       c->what, n, CHECKPOINT_TENSORS_MAX);
	c->hyper = pickle_get(p, pickle_root(p), "hyper_parameters");
	c->tensors = xcalloc(n, sizeof(*c->tensors));
	while (pickle_next(p, state, &at, &item)) {
		r = read_tensor(c, root, &item, &c->tensors[c->n_tensors], e);
		if (r < 0)
			return r;
		c->n_tensors++;
	}
	return 0;
}

static bool ends_with(const struct zip_member *m, const char *tail)
{
	size_t n = strlen(tail);

	return m->name_len >= n && memcmp(m->name + m->name_len - n, tail, n) == 0;
}

static int open_zip(struct checkpoint *c, struct err *e)
{
	const struct zip_member *root = NULL;
	struct buf b;
	size_t i;
	int r;

	c->format = "PyTorch zip archive";
	r = zip_open(c->file, c->size, c->what, &c->zip, e);
	if (r < 0)
		return r;
	for (i = 0; i < zip_count(c->zip); i++) {
		const struct zip_member *m = zip_member(c->zip, i);

		if (ends_with(m, "/byteorder") && (m->size != 6 || memcmp(m->data, "little", 6) != 0))
			return err_set(e, -ENOTSUP, "%s: written on a big-endian machine", c->what);
		if (!ends_with(m, "/data.pkl"))
			continue;
		if (root != NULL)
			return err_set(e, -EBADMSG, "%s: two members called data.pkl", c->what);
		root = m;
	}
	if (root == NULL)
		return err_set(
			e, -EBADMSG,
			"%s: a zip archive without data.pkl; this is not a PyTorch checkpoint",
			c->what);
	if (zip_crc32(0, root->data, root->size) != root->crc32)
		return err_set(e, -EBADMSG,
			       "%s: data.pkl has changed since it was written (CRC-32); the file "
			       "is damaged",
			       c->what);
	b = buf_of(root->data, root->size);
	r = pickle_read(&b, c->what, &c->pickle, e);
	if (r < 0)
		return r;
	r = collect_storages(c, e);
	if (r < 0)
		return r;
	return read_state_dict(c, root, e);
}

/* The list of keys says in which order the storages follow: int64 numel and the bytes, each. */
static int locate_legacy(struct checkpoint *c, const struct pickle *keys, struct buf *b, struct err *e)
{
	struct pickle_item item;
	uint32_t at = 0;
	int r;

	while (pickle_next(keys, pickle_root(keys), &at, &item)) {
		const struct pickle_node *key = pickle_node(keys, item.value);
		const uint8_t *data;
		char text[SHOWN_MAX];
		struct storage *s;
		uint64_t numel;
		size_t bytes;

		if (key->kind != PICKLE_TEXT)
			return err_set(e, -EBADMSG, "%s: the list of storages holds something else",
				       c->what);
		shown(text, key->text, key->n);
		s = find_storage(c, key->text, key->n);
		if (s == NULL || s->data != NULL)
			return err_set(e, -EBADMSG, "%s: storage %s is %s", c->what, text,
				       s == NULL ? "not described" : "there twice");
		if (buf_get_u64(b, false, &numel) < 0 || numel != s->numel)
			return err_set(
				e, -EBADMSG,
				"%s: storage %s is cut off or has another size than described",
				c->what, text);
		if (!mul_ok(s->numel, s->element, &bytes) || buf_get_span(b, &data, bytes) < 0)
			return err_set(e, -EBADMSG,
				       "%s: storage %s of %zu elements reaches beyond the end; the "
				       "download "
				       "was cut short",
				       c->what, text, s->numel);
		r = place_storage(c, s, data, bytes, e);
		if (r < 0)
			return r;
	}
	return 0;
}

static void cleanup_pickle_free(struct pickle **p)
{
	pickle_free(*p);
}

/* Magic number, protocol version, machine, object, list of storage keys: five pickles. */
static int open_legacy(struct checkpoint *c, struct err *e)
{
	CLEANUP(pickle_free) struct pickle *magic = NULL, *version = NULL, *machine = NULL, *keys = NULL;
	struct buf b = buf_of(c->file, c->size);
	size_t number;
	int r;

	c->format = "PyTorch legacy file";
	r = pickle_read(&b, c->what, &magic, e); /* its bytes were how the format was told */
	if (r < 0)
		return r;
	r = pickle_read(&b, c->what, &version, e);
	if (r < 0)
		return r;
	if (!pickle_size_value(version, pickle_root(version), &number) || number != 1001)
		return err_set(e, -ENOTSUP, "%s: a legacy file of an unknown version", c->what);
	r = pickle_read(&b, c->what, &machine, e);
	if (r < 0)
		return r;
	if (pickle_node(machine, pickle_get(machine, pickle_root(machine), "little_endian"))->number != 1)
		return err_set(e, -ENOTSUP, "%s: written on a big-endian machine", c->what);
	r = pickle_read(&b, c->what, &c->pickle, e);
	if (r < 0)
		return r;
	r = pickle_read(&b, c->what, &keys, e);
	if (r < 0)
		return r;
	r = collect_storages(c, e);
	if (r < 0)
		return r;
	r = locate_legacy(c, keys, &b, e);
	if (r < 0)
		return r;
	return read_state_dict(c, NULL, e);
}

/* weights.h knows the format and checks everything; what is left is to list the entries. */
static int open_safetensors(struct checkpoint *c, struct err *e)
{
	struct buf b = buf_of(c->file, c->size);
	const uint8_t *text;
	struct weights *w;
	json_t *header, *entry, *size;
	const char *name;
	uint64_t length;
	int r;

	c->format = "safetensors file";
	r = weights_open_memory(c->file, c->size, c->what, &w, e);
	if (r < 0)
		return r;
	weights_close(w);
	if (buf_get_u64(&b, false, &length) < 0 || buf_get_span(&b, &text, (size_t)length) < 0)
		return err_set(e, -EBADMSG, "%s: broken header", c->what);
	header = json_loadb((const char *)text, (size_t)length, JSON_REJECT_DUPLICATES, NULL);
	c->tensors = xcalloc(json_object_size(header), sizeof(*c->tensors));
	json_object_foreach(header, name, entry) {
		struct checkpoint_tensor *t = &c->tensors[c->n_tensors];
		const char *dtype = json_string_value(json_object_get(entry, "dtype"));
		json_t *offsets = json_object_get(entry, "data_offsets");
		size_t i, begin = (size_t)json_integer_value(json_array_get(offsets, 0));

		if (strcmp(name, "__metadata__") == 0)
			continue;
		if (!plain((const uint8_t *)name, strlen(name)) ||
		    !str_copy(t->name, sizeof(t->name), name)) {
			r = err_set(e, -EBADMSG, "%s: a tensor has a name that no model has", c->what);
			break;
		}
		t->count = 1;
		json_array_foreach(json_object_get(entry, "shape"), i, size) {
			t->shape[t->rank++] = (size_t)json_integer_value(size);
			t->count *= (size_t)json_integer_value(size);
		}
		t->type = strcmp(dtype, "F32") == 0   ? CHECKPOINT_F32
			  : strcmp(dtype, "F16") == 0 ? CHECKPOINT_F16
			  : strcmp(dtype, "BF16") == 0 ? CHECKPOINT_BF16 : CHECKPOINT_OTHER;
		t->bytes = (size_t)json_integer_value(json_array_get(offsets, 1)) - begin;
		if (t->type == CHECKPOINT_OTHER)
			t->problem = "is not float32, float16 or bfloat16";
		else
			t->data = b.p + begin;
		c->n_tensors++;
	}
	json_decref(header);
	return r;
}

static int by_tensor_name(const void *pa, const void *pb)
{
	const char *const *a = pa, *const *b = pb;

	return strcmp(*a, *b);
}

static int check_names(const struct checkpoint *c, struct err *e)
{
	CLEANUP(free) const char **names = xcalloc(c->n_tensors, sizeof(*names));
	size_t i;

	for (i = 0; i < c->n_tensors; i++)
		names[i] = c->tensors[i].name;
	qsort(names, c->n_tensors, sizeof(*names), by_tensor_name);
	for (i = 1; i < c->n_tensors; i++)
		if (strcmp(names[i - 1], names[i]) == 0)
			return err_set(e, -EBADMSG, "%s: tensor %s is there twice", c->what, names[i]);
	return 0;
}

static int open_any(struct checkpoint *c, struct err *e)
{
	static const uint8_t zip[] = { 'P', 'K', 3, 4 },
			     legacy[] = { 0x80, 2,    0x8a, 10,	  0x6c, 0xfc, 0x9c, 0x46,
					  0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, '.' };
	const uint8_t *p = c->file;
	char first[2 * 8 + 1];
	int r;

	if (c->size >= sizeof(zip) && memcmp(p, zip, sizeof(zip)) == 0)
		r = open_zip(c, e);
	else if (c->size >= sizeof(legacy) && memcmp(p, legacy, sizeof(legacy)) == 0)
		r = open_legacy(c, e);
	else if (c->size < 16)
		return err_set(e, -EBADMSG, "%s: %zu bytes are no checkpoint", c->what, c->size);
	else if (p[8] == '{')
		r = open_safetensors(c, e);
	else if (p[0] == '<')
		return err_set(e, -EBADMSG,
			       "%s: a web page, not a checkpoint; the download went wrong",
			       c->what);
	else {
		str_hex(first, p, 8);
		return err_set(e, -EBADMSG,
			       "%s: neither a PyTorch checkpoint nor a safetensors file (it begins "
			       "with %s)",
			       c->what, first);
	}
	if (r < 0)
		return r;
	return check_names(c, e);
}

static int start(struct checkpoint *c, const char *what, const void *p, size_t n, struct checkpoint **ret,
		 struct err *e)
{
	int r;

	c->what = xstrdup(what);
	c->file = p;
	c->size = n;
	r = open_any(c, e);
	if (r < 0) {
		checkpoint_close(c);
		return r;
	}
	*ret = c;
	return 0;
}

int checkpoint_open_memory(const void *p, size_t n, const char *what, struct checkpoint **ret,
			   struct err *e)
{
	return start(xcalloc(1, sizeof(struct checkpoint)), what, p, n, ret, e);
}

int checkpoint_open(const char *path, struct checkpoint **ret, struct err *e)
{
	CLEANUP(close) int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct checkpoint *c;
	struct stat st;
	void *map;

	if (fd < 0)
		return err_set(e, -errno, "%s: %s", path, strerror(errno));
	if (fstat(fd, &st) < 0)
		return err_set(e, -errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode) || st.st_size == 0)
		return err_set(e, -EBADMSG, "%s: not a regular file with something in it", path);
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (map == MAP_FAILED)
		return err_set(e, -errno, "%s: cannot map %lld bytes: %s", path, (long long)st.st_size,
			       strerror(errno));
	c = xcalloc(1, sizeof(*c));
	c->map = map;
	return start(c, path, map, (size_t)st.st_size, ret, e);
}

void checkpoint_close(struct checkpoint *c)
{
	if (c == NULL)
		return;
	free(c->tensors);
	free(c->storages);
	pickle_free(c->pickle);
	zip_close(c->zip);
	if (c->map != NULL)
		(void)munmap(c->map, c->size); /* our own mapping: cannot fail */
	free(c->what);
	free(c);
}

const char *checkpoint_format(const struct checkpoint *c)
{
	return c->format;
}

size_t checkpoint_size(const struct checkpoint *c)
{
	return c->size;
}

size_t checkpoint_count(const struct checkpoint *c)
{
	return c->n_tensors;
}

const struct checkpoint_tensor *checkpoint_tensor(const struct checkpoint *c, size_t i)
{
	return &c->tensors[i];
}

int checkpoint_verify(struct checkpoint *c, size_t i, struct err *e)
{
	const struct checkpoint_tensor *t = &c->tensors[i];
	const struct zip_member *m;
	uint32_t crc = 0;
	size_t at;

	if (t->data == NULL || c->n_storages == 0 || c->storages[t->storage].verified)
		return 0;
	c->storages[t->storage].verified = true;
	m = c->storages[t->storage].member;
	if (m == NULL)
		return 0; /* the legacy format has no checksums */
	for (at = 0; at < m->size; at += SLICE) {
		size_t n = m->size - at < SLICE ? m->size - at : SLICE;

		crc = zip_crc32(crc, m->data + at, n);
		checkpoint_release(c, m->data + at, n);
	}
	if (crc != m->crc32)
		return err_set(e, -EBADMSG,
			       "%s: tensor %s: CRC-32 of its bytes is %08" PRIx32
			       ", the archive says %08" PRIx32
			       "; the file is damaged, download it again",
			       c->what, t->name, crc, m->crc32);
	return 0;
}

void checkpoint_digest(const struct checkpoint *c, uint8_t ret[DIGEST_SIZE])
{
	CLEANUP(digest_free) struct digest *d = digest_new();
	size_t at;

	for (at = 0; at < c->size; at += SLICE) {
		size_t n = c->size - at < SLICE ? c->size - at : SLICE;

		digest_update(d, c->file + at, n);
		checkpoint_release(c, c->file + at, n);
	}
	digest_final(d, ret);
}

void checkpoint_release(const struct checkpoint *c, const void *p, size_t n)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), first, end;

	if (c->map == NULL)
		return;
	first = (size_t)((const uint8_t *)p - c->file);
	end = first + n;
	first -= first % page;
	if (end > first)
		(void)madvise((uint8_t *)c->map + first, end - first,
			      MADV_DONTNEED); /* advice: clean pages of a file */
}

/* One step down: an item of a dict, or of the dict inside an omegaconf container or an object. */
static uint32_t hyper_step(const struct pickle *p, uint32_t node, const char *key)
{
	uint32_t state = pickle_node(p, node)->state, next;

	next = pickle_get(p, node, key);
	if (next == 0)
		next = pickle_get(p, pickle_get(p, state, "_content"), key);
	if (next == 0)
		next = pickle_get(p, state, key);
	return next;
}

bool checkpoint_hyper(const struct checkpoint *c, const char *path, char *ret, size_t size)
{
	CLEANUP(free) char *copy = xstrdup(path);
	char *rest = copy, *key, text[SHOWN_MAX];
	const struct pickle_node *n;
	uint32_t node = c->hyper;

	if (c->pickle == NULL || node == 0)
		return false;
	while ((key = strsep(&rest, ".")) != NULL && node != 0)
		node = hyper_step(c->pickle, node, key);
	n = pickle_node(c->pickle, node);
	if (n->kind == PICKLE_CALL) /* omegaconf's leaf */
		n = pickle_node(c->pickle, pickle_get(c->pickle, n->state, "_val"));
	switch (n->kind) {
	case PICKLE_NONE:
		(void)snprintf(ret, size, "null");
		return true;
	case PICKLE_BOOL:
		(void)snprintf(ret, size, "%s", n->number != 0 ? "true" : "false");
		return true;
	case PICKLE_INT:
		(void)snprintf(ret, size, "%" PRId64, n->number);
		return n->n <= 8;
	case PICKLE_FLOAT:
		(void)snprintf(ret, size, "%g", n->real);
		return true;
	case PICKLE_TEXT:
		shown(text, n->text, n->n);
		(void)snprintf(ret, size, "%s", text);
		return true;
	default:
		return false;
	}
}
