/* embedding.c: see embedding.h.
 *
 * Promise: what is read back is bit for bit what was written, under the head that it was written with, or
 * nothing is.  Two digests, so that a start that looks for the owners of ten thousand files reads their
 * heads alone.
 *
 * Never: names a file, knows what the numbers mean.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fdio.h"
#include "base/mem.h"

#include "store/embedding.h"

#define MAGIC 0x31646562657a7263ull /* "crzebed1" on a little-endian machine */
#define FORM 1

struct head {
	uint64_t magic;
	uint32_t version, size; /* of this struct */
	uint64_t object;
	uint32_t rows, columns;
	uint8_t digest[DIGEST_SIZE], weights[DIGEST_SIZE];
	char recipe[16], precision[8], program[32];
	uint8_t zero[24];
	uint8_t values[DIGEST_SIZE]; /* SHA-256 of the numbers */
	uint8_t seal[DIGEST_SIZE];   /* of all before */
};
static_assert(sizeof(struct head) == EMBEDDING_HEAD, "no padding");

static size_t values_size(uint32_t rows, uint32_t columns)
{
	return (size_t)rows * columns * sizeof(uint16_t); /* both are bounded */
}

int embedding_write(int fd, const struct embedding *e, const uint16_t *values)
{
	struct head h = { .magic = MAGIC, .version = FORM, .size = sizeof(h), .object = e->object, .rows = e->rows,
			  .columns = e->columns };
	size_t size = values_size(e->rows, e->columns);
	int r;

	assert(e->rows >= 1 && e->rows <= EMBEDDING_ROWS_MAX && e->columns >= 1 && e->columns <= EMBEDDING_COLUMNS_MAX);
	memcpy(h.digest, e->digest, DIGEST_SIZE);
	memcpy(h.weights, e->weights, DIGEST_SIZE);
	(void)str_copy(h.recipe, sizeof(h.recipe), e->recipe); /* same sizes */
	(void)str_copy(h.precision, sizeof(h.precision), e->precision);
	(void)str_copy(h.program, sizeof(h.program), e->version);
	digest_of(values, size, h.values);
	digest_of(&h, offsetof(struct head, seal), h.seal);
	r = pwrite_full(fd, &h, sizeof(h), 0);
	return r < 0 ? r : pwrite_full(fd, values, size, sizeof(h));
}

static int read_head(int fd, struct head *h)
{
	uint8_t seal[DIGEST_SIZE];
	struct stat st;
	int r;

	r = pread_full(fd, h, sizeof(*h), 0);
	if (r < 0)
		return r == -ENODATA ? -EBADMSG : r;
	digest_of(h, offsetof(struct head, seal), seal);
	if (h->magic != MAGIC || h->version != FORM || h->size != sizeof(*h) || memcmp(seal, h->seal, DIGEST_SIZE) != 0)
		return -EBADMSG;
	if (h->rows < 1 || h->rows > EMBEDDING_ROWS_MAX || h->columns < 1 || h->columns > EMBEDDING_COLUMNS_MAX ||
	    memchr(h->recipe, 0, sizeof(h->recipe)) == NULL || memchr(h->precision, 0, sizeof(h->precision)) == NULL ||
	    memchr(h->program, 0, sizeof(h->program)) == NULL)
		return -EBADMSG;
	if (fstat(fd, &st) < 0)
		return -errno;
	return (uint64_t)st.st_size == sizeof(*h) + values_size(h->rows, h->columns) ? 0 : -EBADMSG;
}

int embedding_read_head(int fd, struct embedding *ret)
{
	struct head h;
	int r;

	r = read_head(fd, &h);
	if (r < 0)
		return r;
	*ret = (struct embedding){ .object = h.object, .rows = h.rows, .columns = h.columns };
	memcpy(ret->digest, h.digest, DIGEST_SIZE);
	memcpy(ret->weights, h.weights, DIGEST_SIZE);
	(void)str_copy(ret->recipe, sizeof(ret->recipe), h.recipe);
	(void)str_copy(ret->precision, sizeof(ret->precision), h.precision);
	(void)str_copy(ret->version, sizeof(ret->version), h.program);
	return 0;
}

int embedding_read_values(int fd, const struct embedding *e, uint16_t *ret)
{
	size_t size = values_size(e->rows, e->columns);
	uint8_t is[DIGEST_SIZE];
	struct head h;
	int r;

	r = read_head(fd, &h);
	if (r == 0 && (h.rows != e->rows || h.columns != e->columns))
		r = -EBADMSG;
	if (r == 0)
		r = pread_full(fd, ret, size, sizeof(h));
	if (r < 0)
		return r == -ENODATA ? -EBADMSG : r;
	digest_of(ret, size, is);
	return memcmp(is, h.values, DIGEST_SIZE) == 0 ? 0 : -EBADMSG;
}
