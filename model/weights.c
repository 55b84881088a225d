/* weights.c: reads a safetensors file that may be damaged or hostile.
 *
 * Order of the checks at open: the length word against the file, the header's JSON (size limit,
 * no duplicate keys), each entry alone (type known, rank and sizes bounded, byte count = shape times
 * element size, inside the data), then all together: sorted by offset they must tile the data
 * exactly.  Only then is a struct weights handed out, so lookups need no bounds.
 *
 * The mapping is private and read-only; nothing here writes to a file.  A bundle is installed whole
 * and renamed into place: somebody who cuts the file under a running process gets a SIGBUS, and the
 * process is restarted.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdalign.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/mem.h"
#include "base/str.h"

#include "model/weights.h"

#define SHAPE_TEXT_MAX 128
#define NAME_TEXT_MAX WEIGHTS_NAME_MAX

struct dtype {
	const char *name;
	size_t size; /* bytes an element */
};

/* Every type that the format knows: one we cannot use may lie in the file, unused, and must still
 * have honest offsets. */
static const struct dtype dtypes[] = {
	{ "F32", 4 },  { "F16", 2 },	 { "BF16", 2 },	   { "BOOL", 1 }, { "U8", 1 },
	{ "I8", 1 },   { "F8_E4M3", 1 }, { "F8_E5M2", 1 }, { "I16", 2 },  { "U16", 2 },
	{ "I32", 4 },  { "U32", 4 },	 { "F64", 8 },	   { "I64", 8 },  { "U64", 8 },
};
enum { DTYPE_F32 = 0, DTYPE_F16 = 1, DTYPE_BF16 = 2 }; /* indices of the usable ones */

struct tensor {
	char *name;
	size_t dtype; /* index into dtypes */
	size_t rank;
	size_t shape[WEIGHTS_RANK_MAX];
	size_t count;	   /* elements */
	size_t begin, end; /* bytes from the start of the data */
	float *own;	   /* widened or realigned copy, or NULL */
	bool used;
};

struct weights {
	char *name; /* for errors */
	void *map;  /* the whole file; NULL when the memory is the caller's */
	const uint8_t *file;
	size_t size;
	const uint8_t *data; /* after the header */
	size_t data_size;
	struct tensor *tensors; /* [n], by offset */
	struct tensor **by_name; /* [n], the same ones by name */
	size_t n;
	uint64_t used;
	uint64_t stamp[WEIGHTS_STAMP];
};

static char *shape_text(char *ret, const size_t *shape, size_t rank)
{
	size_t at = 1;

	ret[0] = '[';
	for (size_t i = 0; i < rank && at < SHAPE_TEXT_MAX - 24; i++)
		at += (size_t)snprintf(ret + at, SHAPE_TEXT_MAX - at, i > 0 ? ", %zu" : "%zu", shape[i]);
	(void)snprintf(ret + at, SHAPE_TEXT_MAX - at, "]");
	return ret;
}

static int tensor_size(const json_t *v, size_t *ret)
{
	if (!json_is_integer(v) || json_integer_value(v) < 0)
		return -EBADMSG;
	*ret = (size_t)json_integer_value(v);
	return 0;
}

static int tensor_parse(const struct weights *w, const char *name, json_t *entry, struct tensor *t,
			struct err *e)
{
	json_t *shape = json_object_get(entry, "shape"), *offsets = json_object_get(entry, "data_offsets");
	const char *dtype = json_string_value(json_object_get(entry, "dtype"));
	char quoted[NAME_TEXT_MAX], text[SHAPE_TEXT_MAX];
	size_t bytes;

	str_quote(quoted, sizeof(quoted), name);
	if (dtype == NULL || !json_is_array(shape) || !json_is_array(offsets) || json_array_size(offsets) != 2)
		return err_set(e, -EBADMSG,
			       "%s: tensor %s: header entry lacks dtype, shape or data_offsets",
			       w->name, quoted);
	for (t->dtype = 0; t->dtype < ARRAY_SIZE(dtypes); t->dtype++)
		if (strcmp(dtypes[t->dtype].name, dtype) == 0)
			break;
	if (t->dtype == ARRAY_SIZE(dtypes))
		return err_set(e, -EBADMSG, "%s: tensor %s has the unknown dtype %s", w->name, quoted,
			       str_quote(text, sizeof(text), dtype));

	t->rank = json_array_size(shape);
	if (t->rank > WEIGHTS_RANK_MAX)
		return err_set(e, -E2BIG, "%s: tensor %s has %zu dimensions, at most %d are read",
			       w->name, quoted, t->rank, WEIGHTS_RANK_MAX);
	t->count = 1;
	for (size_t i = 0; i < t->rank; i++)
		if (tensor_size(json_array_get(shape, i), &t->shape[i]) < 0 ||
		    !mul_ok(t->count, t->shape[i], &t->count))
			return err_set(e, -EBADMSG, "%s: tensor %s: dimension %zu of its shape is no size",
				       w->name, quoted, i);
	if (tensor_size(json_array_get(offsets, 0), &t->begin) < 0 ||
	    tensor_size(json_array_get(offsets, 1), &t->end) < 0)
		return err_set(e, -EBADMSG, "%s: tensor %s: data_offsets are not two sizes", w->name, quoted);
	if (t->begin > t->end || t->end > w->data_size)
		return err_set(e, -EBADMSG,
			       "%s: tensor %s lies at bytes %zu to %zu, but the file has %zu bytes of data "
			       "(truncated?)",
			       w->name, quoted, t->begin, t->end, w->data_size);
	if (!mul_ok(t->count, dtypes[t->dtype].size, &bytes) || bytes != t->end - t->begin)
		return err_set(e, -EBADMSG, "%s: tensor %s of shape %s and type %s cannot fill %zu bytes",
			       w->name, quoted, shape_text(text, t->shape, t->rank), dtype,
			       t->end - t->begin);
	t->name = xstrdup(name);
	return 0;
}

static int by_offset(const void *pa, const void *pb)
{
	const struct tensor *a = pa, *b = pb;

	if (a->begin != b->begin)
		return a->begin < b->begin ? -1 : 1;
	return a->end < b->end ? -1 : a->end > b->end;
}

static int by_name(const void *pa, const void *pb)
{
	const struct tensor *const *a = pa, *const *b = pb;

	return strcmp((*a)->name, (*b)->name);
}

/* Tensors sorted by offset must touch each other from the first byte of the data to the last. */
static int check_tiling(const struct weights *w, struct err *e)
{
	char a[NAME_TEXT_MAX], b[NAME_TEXT_MAX];
	size_t at = 0;

	for (size_t i = 0; i < w->n; i++) {
		const struct tensor *t = &w->tensors[i];

		str_quote(a, sizeof(a), t->name);
		if (t->begin < at)
			return err_set(e, -EBADMSG,
				       "%s: tensor %s begins at byte %zu, inside tensor %s that ends at %zu",
				       w->name, a, t->begin,
				       str_quote(b, sizeof(b), w->tensors[i - 1].name), at);
		if (t->begin > at)
			return err_set(e, -EBADMSG,
				       "%s: %zu bytes before tensor %s belong to no tensor", w->name,
				       t->begin - at, a);
		at = t->end;
	}
	if (at != w->data_size)
		return err_set(e, -EBADMSG, "%s: %zu bytes after the last tensor belong to no tensor",
			       w->name, w->data_size - at);
	return 0;
}

static int parse_header(struct weights *w, json_t *header, struct err *e)
{
	const char *name;
	json_t *entry;
	int r;

	if (!json_is_object(header))
		return err_set(e, -EBADMSG, "%s: the header is not a JSON object", w->name);
	if (json_object_size(header) > WEIGHTS_TENSORS_MAX)
		return err_set(e, -E2BIG, "%s: %zu tensors, at most %d are read", w->name,
			       json_object_size(header), WEIGHTS_TENSORS_MAX);
	w->tensors = xcalloc(json_object_size(header), sizeof(*w->tensors));
	w->by_name = xcalloc(json_object_size(header), sizeof(*w->by_name));
	json_object_foreach(header, name, entry) {
		if (strcmp(name, "__metadata__") == 0)
			continue;
		r = tensor_parse(w, name, entry, &w->tensors[w->n], e);
		if (r < 0)
			return r;
		w->n++;
	}
	qsort(w->tensors, w->n, sizeof(*w->tensors), by_offset);
	for (size_t i = 0; i < w->n; i++)
		w->by_name[i] = &w->tensors[i];
	qsort(w->by_name, w->n, sizeof(struct tensor *), by_name);
	return check_tiling(w, e);
}

static int parse_file(struct weights *w, struct err *e)
{
	struct buf b = buf_of(w->file, w->size);
	const uint8_t *text;
	uint64_t length;
	json_error_t why;
	json_t *header;
	int r;

	r = buf_get_u64(&b, false, &length);
	if (r < 0)
		return err_set(e, r, "%s: %zu bytes are no safetensors file", w->name, w->size);
	if (length > WEIGHTS_HEADER_MAX)
		return err_set(e, -E2BIG, "%s: header of %llu bytes, at most %d are read", w->name,
			       (unsigned long long)length, WEIGHTS_HEADER_MAX);
	r = buf_get_span(&b, &text, (size_t)length);
	if (r < 0)
		return err_set(e, r, "%s: header of %llu bytes in a file of %zu", w->name,
			       (unsigned long long)length, w->size);
	w->data = b.p;
	w->data_size = b.left;

	header = json_loadb((const char *)text, (size_t)length, JSON_REJECT_DUPLICATES, &why);
	if (header == NULL) {
		char quoted[NAME_TEXT_MAX];

		return err_set(e, -EBADMSG, "%s: header: %s", w->name,
			       str_quote(quoted, sizeof(quoted), why.text));
	}
	r = parse_header(w, header, e);
	json_decref(header);
	return r;
}

static int weights_start(void *map, const void *p, size_t n, const char *name, struct weights **ret,
			 struct err *e)
{
	struct weights *w = xcalloc(1, sizeof(*w));
	int r;

	w->name = xstrdup(name);
	w->map = map;
	w->file = p;
	w->size = n;
	r = parse_file(w, e);
	if (r < 0) {
		weights_close(w);
		return r;
	}
	*ret = w;
	return 0;
}

int weights_open_memory(const void *p, size_t n, const char *name, struct weights **ret, struct err *e)
{
	return weights_start(NULL, p, n, name, ret, e);
}

int weights_open(const char *path, struct weights **ret, struct err *e)
{
	CLEANUP(close) int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	void *map;
	int r;

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
	r = weights_start(map, map, (size_t)st.st_size, path, ret, e);
	if (r < 0)
		return r;
	memcpy((*ret)->stamp,
	       (const uint64_t[]){ st.st_ino, (uint64_t)st.st_size, (uint64_t)st.st_mtim.tv_sec,
				   (uint64_t)st.st_mtim.tv_nsec, (uint64_t)st.st_ctim.tv_sec,
				   (uint64_t)st.st_ctim.tv_nsec },
	       sizeof((*ret)->stamp));
	return 0;
}

void weights_close(struct weights *w)
{
	if (w == NULL)
		return;
	for (size_t i = 0; i < w->n; i++) {
		free(w->tensors[i].name);
		free(w->tensors[i].own);
	}
	free(w->tensors);
	free(w->by_name);
	if (w->map != NULL)
		(void)munmap(w->map, w->size); /* our own mapping: cannot fail */
	free(w->name);
	free(w);
}

void weights_rest(const struct weights *w)
{
	if (w->map != NULL)
		(void)madvise(w->map, w->size, MADV_DONTNEED); /* private and never written: nothing is lost */
}

const char *weights_name(const struct weights *w)
{
	return w->name;
}

void weights_digest(const struct weights *w, uint8_t ret[DIGEST_SIZE])
{
	digest_of(w->file, w->size, ret);
}

void weights_stamp(const struct weights *w, uint64_t ret[WEIGHTS_STAMP])
{
	memcpy(ret, w->stamp, sizeof(w->stamp));
}

static struct tensor *find(const struct weights *w, const char *name)
{
	struct tensor key = { .name = (char *)(uintptr_t)name };
	const struct tensor *pkey = &key;
	struct tensor **hit;

	if (w->n == 0)
		return NULL;
	hit = bsearch(&pkey, w->by_name, w->n, sizeof(struct tensor *), by_name);
	return hit != NULL ? *hit : NULL;
}

bool weights_has(const struct weights *w, const char *name)
{
	return find(w, name) != NULL;
}

bool weights_same(const struct weights *w, const char *a, const char *b)
{
	const struct tensor *x = find(w, a), *y = find(w, b);

	return x != NULL && y != NULL && x->dtype == y->dtype && x->rank == y->rank &&
	       memcmp(x->shape, y->shape, x->rank * sizeof(*x->shape)) == 0 &&
	       memcmp(w->data + x->begin, w->data + y->begin, x->end - x->begin) == 0;
}

const char *weights_at(const struct weights *w, size_t i, const size_t **ret_shape, size_t *ret_rank)
{
	if (i >= w->n)
		return NULL;
	*ret_shape = w->tensors[i].shape;
	*ret_rank = w->tensors[i].rank;
	return w->tensors[i].name;
}

uint64_t weights_used(const struct weights *w)
{
	return w->used;
}

/* IEEE 754 binary16, subnormals, infinities and NaN included. */
static uint32_t widen_f16(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 31, fraction = h & 1023;

	if (exponent == 31)
		return sign | 0x7f800000 | fraction << 13;
	if (exponent != 0)
		return sign | (exponent + 112) << 23 | fraction << 13;
	if (fraction == 0)
		return sign;
	for (exponent = 113; (fraction & 1024) == 0; exponent--)
		fraction <<= 1;
	return sign | exponent << 23 | (fraction & 1023) << 13;
}

/* The tensor's elements as float32 in memory of ours. */
static int make_own(const struct weights *w, struct tensor *t)
{
	struct buf b = buf_of(w->data + t->begin, t->end - t->begin);
	size_t bytes;
	float *own;

	if (!mul_ok(t->count, sizeof(float), &bytes))
		return -ENOMEM;
	own = malloc(bytes > 0 ? bytes : 1);
	if (own == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < t->count; i++) {
		uint32_t bits = 0;
		uint16_t half = 0;

		if (t->dtype == DTYPE_F32) {
			(void)buf_get_u32(&b, false, &bits); /* the sizes were checked at open */
		} else {
			(void)buf_get_u16(&b, false, &half);
			bits = t->dtype == DTYPE_F16 ? widen_f16(half) : (uint32_t)half << 16;
		}
		memcpy(&own[i], &bits, sizeof(bits));
	}
	t->own = own;
	return 0;
}

int weights_get(struct weights *w, const char *name, const size_t *shape, size_t rank,
		const float **ret, struct err *e)
{
	struct tensor *t = find(w, name);
	char want[SHAPE_TEXT_MAX], got[SHAPE_TEXT_MAX];
	const uint8_t *p;
	int r;

	if (t == NULL)
		return err_set(e, -ENOENT, "%s: tensor %s is missing, expected with shape %s", w->name, name,
			       shape_text(want, shape, rank));
	if (t->rank != rank || memcmp(t->shape, shape, rank * sizeof(*shape)) != 0)
		return err_set(e, -EBADMSG, "%s: tensor %s has shape %s, expected %s", w->name, name,
			       shape_text(got, t->shape, t->rank), shape_text(want, shape, rank));
	if (t->dtype > DTYPE_BF16)
		return err_set(e, -ENOTSUP, "%s: tensor %s of shape %s has type %s, expected F32, F16 or BF16",
			       w->name, name, shape_text(got, t->shape, t->rank), dtypes[t->dtype].name);

	p = w->data + t->begin;
	if (t->own == NULL && (t->dtype != DTYPE_F32 || (uintptr_t)p % alignof(float) != 0)) {
		r = make_own(w, t);
		if (r < 0)
			return err_set(e, r, "%s: no memory for tensor %s of %zu elements", w->name, name,
				       t->count);
	}
	if (!t->used)
		w->used += t->count;
	t->used = true;
	*ret = t->own != NULL ? t->own : (const float *)(const void *)p;
	return 0;
}

int weights_bind(struct weights *w, const char *prefix, const struct weights_want *want, size_t n,
		 struct err *e)
{
	char name[WEIGHTS_NAME_MAX];
	size_t rank;
	int r;

	for (size_t i = 0; i < n; i++) {
		for (rank = 0; rank < WEIGHTS_RANK_MAX && want[i].shape[rank] > 0; rank++)
			;
		(void)snprintf(name, sizeof(name), "%s%s", prefix, want[i].name); /* names of ours: they fit */
		r = weights_get(w, name, want[i].shape, rank, want[i].ret, e);
		if (r < 0)
			return r;
	}
	return 0;
}
