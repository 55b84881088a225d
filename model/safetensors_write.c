/* safetensors_write.c: see safetensors_write.h. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fdio.h"
#include "base/mem.h"

#include "model/safetensors_write.h"

struct safetensors_writer {
	int dir, fd; /* dir is the caller's */
	char *name, *temporary;
	struct digest *digest;
	size_t left; /* bytes of data to come */
};

static int bytes_of(const struct safetensors_entry *t, size_t *ret, struct err *e)
{
	size_t n = sizeof(float), i;

	for (i = 0; i < t->rank; i++)
		if (!mul_ok(n, t->shape[i], &n))
			return err_set(e, -E2BIG, "tensor %s: its shape overflows", t->name);
	*ret = n;
	return 0;
}

int safetensors_order(const struct safetensors_entry *entries, size_t n, size_t *ret_order, struct err *e)
{
	size_t i, k = 0, bytes = 0;
	int pass, r;

	for (pass = 0; pass < 2; pass++) /* the aligned ones, then the others */
		for (i = 0; i < n; i++) {
			r = bytes_of(&entries[i], &bytes, e);
			if (r < 0)
				return r;
			if ((bytes % SAFETENSORS_ALIGN != 0) == (pass == 1))
				ret_order[k++] = i;
		}
	return 0;
}

static json_t *header_entry(const struct safetensors_entry *t, size_t begin, size_t end)
{
	json_t *shape = json_array();
	size_t i;

	for (i = 0; i < t->rank; i++)
		json_array_append_new(shape, json_integer((json_int_t)t->shape[i]));
	return json_pack("{s:s, s:o, s:[I, I]}", "dtype", "F32", "shape", shape, "data_offsets",
			 (json_int_t)begin, (json_int_t)end);
}

/* The header's text (malloc'd) and the size of the data behind it. */
static int make_header(const struct safetensors_entry *entries, size_t n,
		       const struct safetensors_meta *meta, size_t n_meta, char **ret,
		       size_t *ret_data, struct err *e)
{
	CLEANUP(free) size_t *order = xcalloc(n, sizeof(*order));
	json_t *root = json_object(), *about = json_object();
	size_t i, at = 0, bytes = 0;
	int r;

	for (i = 0; i < n_meta; i++)
		json_object_set_new(about, meta[i].key, json_string(meta[i].value));
	json_object_set_new(root, "__metadata__", about);
	r = safetensors_order(entries, n, order, e);
	for (i = 0; r == 0 && i < n; i++) {
		const struct safetensors_entry *t = &entries[order[i]];

		r = bytes_of(t, &bytes, e);
		if (r < 0)
			break;
		if (bytes > SIZE_MAX - at) {
			r = err_set(e, -E2BIG, "the tensors together are too large");
			break;
		}
		json_object_set_new(root, t->name, header_entry(t, at, at + bytes));
		at += bytes;
	}
	if (r == 0) {
		*ret = json_dumps(root, JSON_COMPACT | JSON_ENSURE_ASCII); /* in the order of insertion */
		*ret_data = at;
		if (*ret == NULL)
			r = err_set(
				e, -EINVAL,
				"the safetensors header cannot be written: a name is not UTF-8");
	}
	json_decref(root);
	return r;
}

static int put(struct safetensors_writer *w, const void *p, size_t n, struct err *e)
{
	int r = write_full(w->fd, p, n);

	if (r < 0)
		return err_set(e, r, "%s: writing: %s", w->temporary, strerror(-r));
	digest_update(w->digest, p, n);
	return 0;
}

static int put_header(struct safetensors_writer *w, const char *header, struct err *e)
{
	static const char blanks[] = "                                                                ";
	size_t n = strlen(header),
	       pad = (SAFETENSORS_ALIGN - (8 + n) % SAFETENSORS_ALIGN) % SAFETENSORS_ALIGN, i;
	uint8_t length[8];
	int r;

	for (i = 0; i < sizeof(length); i++)
		length[i] = (uint8_t)((uint64_t)(n + pad) >> (8 * i));
	r = put(w, length, sizeof(length), e);
	if (r < 0)
		return r;
	r = put(w, header, n, e);
	if (r < 0)
		return r;
	return put(w, blanks, pad, e);
}

int safetensors_write_open(int dir, const char *name, const struct safetensors_entry *entries,
			   size_t n, const struct safetensors_meta *meta, size_t n_meta,
			   struct safetensors_writer **ret, struct err *e)
{
	struct safetensors_writer *w = xcalloc(1, sizeof(*w));
	CLEANUP(free) char *header = NULL;
	int r;

	w->dir = dir;
	w->fd = -1;
	w->digest = digest_new();
	w->name = xstrdup(name);
	if (asprintf(&w->temporary, ".%s.tmp", name) < 0) {
		w->temporary = NULL;
		r = err_set(e, -ENOMEM, "out of memory");
		goto fail;
	}
	r = make_header(entries, n, meta, n_meta, &header, &w->left, e);
	if (r < 0)
		goto fail;
	w->fd = openat(dir, w->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (w->fd < 0) {
		r = err_set(e, -errno, "%s: %s", w->temporary, strerror(errno));
		goto fail;
	}
	r = put_header(w, header, e);
	if (r < 0)
		goto fail;
	*ret = w;
	return 0;
fail:
	safetensors_write_close(w);
	return r;
}

int safetensors_write_data(struct safetensors_writer *w, const void *p, size_t n, struct err *e)
{
	if (n > w->left)
		return err_set(e, -EINVAL, "%s: more data than the header announces", w->temporary);
	w->left -= n;
	return put(w, p, n, e);
}

int safetensors_write_commit(struct safetensors_writer *w, uint8_t ret_digest[DIGEST_SIZE], struct err *e)
{
	uint8_t digest[DIGEST_SIZE];

	if (w->left > 0)
		return err_set(e, -EINVAL, "%s: %zu bytes less than the header announces",
			       w->temporary, w->left);
	digest_final(w->digest, digest);
	if (fsync(w->fd) < 0)
		return err_set(e, -errno, "%s: syncing: %s", w->temporary, strerror(errno));
	if (close(TAKE_FD(w->fd)) < 0)
		return err_set(e, -errno, "%s: closing: %s", w->temporary, strerror(errno));
	if (renameat(w->dir, w->temporary, w->dir, w->name) < 0)
		return err_set(e, -errno, "%s: renaming to %s: %s", w->temporary, w->name,
			       strerror(errno));
	free(TAKE(w->temporary)); /* nothing left to remove */
	if (fsync(w->dir) < 0)
		return err_set(e, -errno, "%s: syncing its directory: %s", w->name, strerror(errno));
	memcpy(ret_digest, digest, DIGEST_SIZE);
	return 0;
}

void safetensors_write_close(struct safetensors_writer *w)
{
	if (w == NULL)
		return;
	if (w->fd >= 0)
		(void)close(w->fd); /* not committed: its bytes do not matter */
	if (w->temporary != NULL)
		(void)unlinkat(w->dir, w->temporary, 0); /* may not exist yet */
	digest_free(w->digest);
	free(w->name);
	free(w->temporary);
	free(w);
}
